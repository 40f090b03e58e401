// One study: opens viewer and review, and follows what becomes of it.

import { follow } from "./follow.js";
import { toast } from "./api.js";

const head = document.getElementById("study");
const { studyUid, state, version, before, after, level } = head.dataset;

function goTo(uid) {
  if (uid) location.assign(`/studies/${uid}`);
}

async function open() {
  const root = document.getElementById("viewer");
  if (!root) return null;
  const { openViewer } = await import("./viewer/viewer.js");
  const viewer = await openViewer(root, { studyUid, level: level || null });
  viewer.keys.add("j", "Next study", () => goTo(after));
  viewer.keys.add("k", "Previous study", () => goTo(before));
  const panel = document.getElementById("review");
  if (panel) {
    const { openReview } = await import("./review.js");
    await openReview(panel, viewer, { studyUid, version: Number(version) });
  }
  return viewer;
}

function showStep(step) {
  let isPast = true;
  for (const item of document.querySelectorAll("#progress .steps li")) {
    const isNow = item.dataset.step === step;
    if (isNow) isPast = false;
    item.classList.toggle("done", isPast && step !== "");
    item.toggleAttribute("aria-current", isNow);
    if (isNow) item.setAttribute("aria-current", "step");
  }
}

const progress = document.getElementById("progress");
if (progress) showStep(progress.querySelector("[aria-current]")?.dataset.step ?? "");

follow((study) => {
  if (study.study_uid !== studyUid) return;
  if (study.version !== Number(version)) {
    toast("This study has a new version: load the page again to see it.", "warn");
  } else if (study.state !== state && ["accepted", "running"].includes(state)) {
    if (["accepted", "running"].includes(study.state)) showStep(study.step);
    else location.reload();
  } else if (study.state === "running") {
    showStep(study.step);
  }
});

async function openBelow() {
  const root = document.getElementById("results");
  if (!root) return;
  const { openResults } = await import("./results.js");
  await openResults(root);
}

open().catch((error) => toast(error.message, "bad"));
openBelow().catch((error) => toast(error.message, "bad"));
