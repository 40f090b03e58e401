// The worklist follows what happens, and is used from the keyboard.

import { follow } from "./follow.js";

const list = document.getElementById("list");
const sound = document.getElementById("sound");
const SOUND = "csfd:sound";
const ARRIVING_MS = 2_000;
const IDLE_MS = 15_000;
let chosen = null;
let timer = 0;

function rows() {
  return [...list.querySelectorAll("tr.study")];
}

function choose(uid) {
  chosen = uid;
  for (const row of rows()) row.classList.toggle("chosen", row.dataset.uid === uid);
  list.querySelector("tr.study.chosen")?.scrollIntoView({ block: "nearest" });
}

function step(by) {
  const uids = rows().map((row) => row.dataset.uid);
  if (!uids.length) return;
  const place = uids.indexOf(chosen);
  const next = place < 0 ? 0 : Math.min(Math.max(place + by, 0), uids.length - 1);
  choose(uids[next]);
}

async function refresh() {
  const address = new URL(location.href);
  address.searchParams.set("part", "true");
  const response = await fetch(address);
  if (!response.ok || response.redirected) return;
  list.innerHTML = await response.text(); // of our own server, which escapes
  if (chosen) choose(chosen);
  const first = Number(list.querySelector(".tabs").dataset.first);
  document.title = `${first ? `(${first}) ` : ""}Worklist · csfd`;
}

function beep() {
  const audio = new AudioContext();
  const tone = audio.createOscillator();
  const gain = audio.createGain();
  tone.frequency.value = 660;
  gain.gain.setValueAtTime(0.15, audio.currentTime);
  gain.gain.exponentialRampToValueAtTime(0.001, audio.currentTime + 0.6);
  tone.connect(gain).connect(audio.destination);
  tone.start();
  tone.stop(audio.currentTime + 0.6);
}

sound.checked = localStorage.getItem(SOUND) === "on";
sound.addEventListener("change", () => {
  localStorage.setItem(SOUND, sound.checked ? "on" : "off");
  if (sound.checked) beep();
});

list.addEventListener("click", (event) => {
  const row = event.target.closest("tr.study");
  if (row && !event.target.closest("a, button")) location.assign(row.querySelector("a.open").href);
});

document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest("input, textarea, select");
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "j") step(1);
  else if (event.key === "k") step(-1);
  else if (event.key === "/") document.getElementById("q").focus();
  else if (event.key === "Enter" && chosen && event.target === document.body) {
    location.assign(`/studies/${chosen}`);
  } else return;
  event.preventDefault();
});

// Nothing tells of what is only coming in; and ages grow.
function lookAgain() {
  const wait = document.getElementById("arriving") ? ARRIVING_MS : IDLE_MS;
  setTimeout(async () => {
    const isUsed = list.contains(document.activeElement); // it would lose its place
    if (!document.hidden && !isUsed) await refresh().catch(() => {});
    lookAgain();
  }, wait);
}

lookAgain();

follow((study) => {
  const isNew = study.state === "done" && Date.now() / 1000 - study.done_at < 10;
  if (sound.checked && isNew && study.verdict === "suspicious" && !study.is_signed) beep();
  clearTimeout(timer);
  timer = setTimeout(refresh, 300); // many changes at once, one look
});
