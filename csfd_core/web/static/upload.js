// The page to upload: files, folders and zips, dropped or chosen.

import { Sender } from "./sender.js";
import { askJson, Refusal, toast } from "./api.js";
import { follow } from "./follow.js";

const drop = document.getElementById("drop");
const list = document.getElementById("uploads");
const card = document.getElementById("upload");
const running = new Set();
const KIND_OF = { accepted: "muted", running: "muted", refused: "warn", failed: "bad" };
let events = null; // of studies that were uploaded here
const number = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

for (const name of ["folder", "files"]) {
  const input = document.getElementById(name);
  document.getElementById(`pick-${name}`).addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    const files = [...input.files];
    begin(files, nameOf(files));
    input.value = "";
  });
}

for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) drop.classList.remove("over");
});
document.addEventListener("drop", async (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  // Entries must be asked for at once: after the event there are none.
  const items = [...event.dataTransfer.items].filter((item) => item.kind === "file");
  const entries = items.map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile());
  try {
    const name = entries.length === 1 ? entries[0]?.name : "";
    begin((await Promise.all(entries.map(filesOf))).flat(), name);
  } catch {
    toast("A file or folder cannot be read. Check that it is still there.", "bad");
  }
});

window.addEventListener("beforeunload", (event) => {
  if (running.size) event.preventDefault();
});

async function filesOf(entry) {
  if (!entry) return [];
  if (entry instanceof File) return [entry];
  if (entry.isFile) return [await new Promise((yes, no) => entry.file(yes, no))];
  const reader = entry.createReader();
  const found = [];
  for (;;) { // a reader gives a hundred at a time
    const some = await new Promise((yes, no) => reader.readEntries(yes, no));
    if (!some.length) break;
    for (const one of some) found.push(...(await filesOf(one)));
  }
  return found;
}

// What was chosen, for the card alone: it is never sent.
function nameOf(files) {
  const [folder] = files[0]?.webkitRelativePath.split("/") ?? [];
  return folder || (files.length === 1 ? files[0].name : "");
}

async function begin(files, name) {
  if (!files.length) {
    toast("There is no file in it.", "bad");
    return;
  }
  const priority = Number(document.querySelector('input[name="priority"]:checked').value);
  const view = new View(files, priority, name);
  const sender = new Sender(files, priority, () => view.show(sender));
  view.onCancel(() => sender.cancel());
  running.add(sender);
  view.show(sender);
  try {
    const result = await sender.run();
    if (result) view.showResult(result);
  } catch (error) {
    view.showRefusal(error instanceof Refusal
      ? error.message
      : "A file could not be read. Check that it is still there, and upload again.");
  } finally {
    running.delete(sender);
  }
}

class View {
  constructor(files, priority, name) {
    this.node = card.content.cloneNode(true).querySelector("article");
    this.part = (selector) => this.node.querySelector(selector);
    const urgency = ["", "urgent, ", "STAT, "][priority];
    const files_ = files.length === 1 ? "1 file" : `${number.format(files.length)} files`;
    this.size = files.reduce((sum, file) => sum + file.size, 0);
    const told = `${files_} (${urgency}${megabytes(this.size)})`;
    this.part("h2").textContent = name ? `${name}: ${told}` : told;
    this.started = performance.now();
    list.prepend(this.node);
  }

  onCancel(cancel) {
    this.part(".cancel").addEventListener("click", cancel, { once: true });
  }

  show(sender) {
    const bar = this.part("progress");
    if (sender.state === "completing") bar.removeAttribute("value");
    else bar.value = this.size ? sender.sent / this.size : 0;
    this.part(".state").textContent = this.sentence(sender);
    this.part(".cancel").hidden = sender.isOver || sender.state === "completing";
    bar.hidden = sender.isOver;
  }

  sentence(sender) {
    if (sender.state === "cancelled") return "Cancelled: nothing of it was kept.";
    if (sender.isWaiting) return "No answer from the server. It goes on by itself.";
    if (sender.state === "completing") return "Everything is sent. It is being accepted.";
    if (sender.state !== "sending") return "";
    const seconds = (performance.now() - this.started) / 1000;
    const rate = sender.sent / seconds;
    const sent = `${megabytes(sender.sent)} of ${megabytes(this.size)}`;
    if (!sender.sent || seconds < 1) return sent;
    const left = Math.ceil((this.size - sender.sent) / rate);
    const time = left < 90 ? `${left} s` : `${Math.ceil(left / 60)} min`;
    return `${sent}, ${megabytes(rate)} a second, ${time} left`;
  }

  showResult(result) {
    const studies = result.studies.map((study) => {
      const link = document.createElement("a");
      link.href = `/studies/${encodeURIComponent(study.study_uid)}`;
      link.textContent = `…${study.study_uid.slice(-10)}`;
      const now = document.createElement("span");
      const one = item([link, ` ${study.told} `, now]);
      one.dataset.uid = study.study_uid;
      return one;
    });
    this.part(".studies").append(...studies);
    if (studies.length) followStudies();
    this.part(".told").append(
      ...result.refused.map((told) => item([told], "bad")),
      ...result.passed_over.map((told) => item([told], "muted")),
    );
    this.part(".state").textContent = result.studies.length
      ? "Done. What becomes of each study is shown here and in the worklist."
      : "Done. No study was accepted.";
  }

  showRefusal(text) {
    this.part(".told").append(item([text], "bad"));
  }
}

// Shows what becomes of the studies of this page; whatever was told while there was no
// connection is asked for.
function followStudies() {
  if (events === null) {
    events = follow(showStudy);
    events.addEventListener("open", askAll);
  }
  askAll();
}

function askAll() {
  const uids = [...list.querySelectorAll("[data-uid]")].map((one) => one.dataset.uid);
  for (const uid of new Set(uids)) {
    askJson("GET", `/studies/${encodeURIComponent(uid)}`).then(showStudy, () => {});
  }
}

function showStudy(study) {
  for (const one of list.querySelectorAll("[data-uid]")) {
    if (one.dataset.uid !== study.study_uid) continue;
    const now = one.querySelector("span");
    now.textContent = standing(study);
    const verdict = study.verdict.replace(" ", "-");
    now.className = KIND_OF[study.state] ?? (verdict ? `verdict ${verdict}` : "");
  }
}

function standing(study) {
  if (study.state === "accepted") return "Waits for its prediction.";
  if (study.state === "running") return `Is being predicted${study.step && `: ${study.step}`}.`;
  if (study.state !== "done") return `${study.state}: ${study.reason}`;
  return [study.verdict, study.suspicious.join(", ")].filter(Boolean).join(" ") || "Ready to read.";
}

function item(content, kind = "") {
  const node = document.createElement("li");
  node.className = kind;
  node.append(...content);
  return node;
}

function megabytes(bytes) {
  return `${number.format(bytes / 2 ** 20)} MB`;
}
