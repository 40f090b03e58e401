// Parts of the reader's panel: answers, boxes, a prediction, signed reviews.
// Everything from outside goes into the page as text.

import {
  adviceOf,
  boxInWords,
  dayAndClock,
  levelsInWords,
  probabilityInWords,
  summaryOf,
  told,
} from "./review_words.js";

export function showPrediction(overallLine, rows, note) {
  const { overall, vertebra } = note.thresholds;
  overallLine.hidden = false;
  const words = probabilityInWords(note.probabilities.patient_overall, overall);
  overallLine.textContent = `Any fracture: ${words}; rests on ${levelsInWords(note)}.`;
  for (const row of rows) {
    const name = row.dataset.level;
    const value = note.probabilities[name];
    const said = row.querySelector('[data-place="said"]');
    said.hidden = false;
    said.classList.toggle("above", value !== null && value >= vertebra);
    const unsure = note.uncertainty?.[name]?.at_operating_point;
    said.querySelector(".words").textContent =
      probabilityInWords(value, vertebra) + (unsure ? "; its members disagree" : "");
    said.querySelector(".scale").hidden = value === null;
    said.querySelector(".value").style.width = `${100 * (value ?? 0)}%`;
    said.querySelector(".limit").style.left = `${100 * vertebra}%`;
    const answer = note.answers?.[name];
    const badge = said.querySelector('[data-place="answer"]');
    badge.hidden = !answer;
    badge.textContent = answer ? told(answer) : "";
    badge.classList.toggle("bad", answer === "fractured");
    badge.classList.toggle("warn", answer === "undecided");
  }
}

// `answer(what, isMove)` is told what was chosen; arrows move from one to the next.
export function listenToAnswers(row, answer) {
  const buttons = [...row.querySelectorAll("[role=radio]")];
  for (const [index, button] of buttons.entries()) {
    button.addEventListener("click", () => answer(button.dataset.answer, false));
    button.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      event.stopPropagation(); // the viewer would scroll
      const next = buttons[(index + step + buttons.length) % buttons.length];
      answer(next.dataset.answer, true);
      next.focus();
    });
  }
}

export function showAnswer(row, answer) {
  const buttons = [...row.querySelectorAll("[role=radio]")];
  for (const [index, button] of buttons.entries()) {
    const isChosen = button.dataset.answer === answer;
    button.setAttribute("aria-checked", String(isChosen));
    button.tabIndex = isChosen || (!answer && index === 0) ? 0 : -1;
  }
}

export function showOthers(rows, others, differ) {
  for (const row of rows) {
    const name = row.dataset.level;
    const said = others.filter((one) => one.levels[name]);
    const line = row.querySelector('[data-place="others"]');
    line.hidden = !said.length;
    line.textContent = said
      .map((one) => `${one.reader}: ${told(one.levels[name])}`)
      .join(" · ");
    row.classList.toggle("differs", differ.includes(name));
  }
}

// Before signing.
export function showSummary(dialog, levels, boxes) {
  const lines = summaryOf(levels, boxes).map((line) => made("li", line));
  dialog.querySelector('[data-place="summary"]').replaceChildren(...lines);
  const advice = dialog.querySelector('[data-place="advice"]');
  advice.textContent = adviceOf(levels, boxes);
  advice.hidden = advice.textContent === "";
}

export function boxLine(box, goTo, drop) {
  const line = made("li");
  const go = made("button", boxInWords(box));
  go.addEventListener("click", goTo);
  const remove = made("button", "Delete");
  remove.className = "quiet";
  remove.setAttribute("aria-label", `Delete the box: ${boxInWords(box)}`);
  remove.addEventListener("click", drop);
  for (const button of [go, remove]) button.type = "button";
  line.append(go, remove);
  return line;
}

function made(kind, text = "") {
  const element = document.createElement(kind);
  element.textContent = text;
  return element;
}

export function newestOfOthers(reviews, version) {
  const newest = new Map();
  for (const one of reviews) {
    if (!one.is_mine && one.version === version) newest.set(one.reader, one);
  }
  return [...newest.values()];
}

export function historyLine(one, version) {
  const line = made("li");
  const old = one.version === version ? "" : `, version ${one.version} of the study`;
  const how = one.saw_ai ? "with the model's answer" : "blind";
  line.append(made("strong", one.reader), ` ${dayAndClock(one.signed_at)}, ${how}${old}`);
  const said = made("ul");
  said.append(...summaryOf(one.levels, one.boxes).map((text) => made("li", text)));
  line.append(said);
  if (one.comment) {
    const remark = made("p", one.comment);
    remark.className = "remark";
    line.append(remark);
  }
  return line;
}
