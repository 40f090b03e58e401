// What the reader's panel says in words.

export const ANSWERS = {
  fractured: "fractured",
  whole: "not fractured",
  not_assessable: "not assessable",
  undecided: "undecided",
};

export function told(answer) {
  return ANSWERS[answer] ?? "nothing said";
}

export function probabilityInWords(value, limit) {
  if (value === null || value === undefined) {
    return "not assessed: not found, or hardly in the scan";
  }
  const side = value >= limit ? "above" : "below";
  return `${value.toFixed(2)}, ${side} the operating point ${limit.toFixed(2)}`;
}

export function join(names) {
  if (names.length < 2) return names.join("");
  return `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}

// Levels in a row as a range: C1 to C3, C5.
export function levelsInWords(prediction) {
  const names = prediction.overall_rests_on;
  return names.length === 7 ? "all levels" : join(names) || "no level";
}

export function clock(moment) {
  return new Date(moment).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
}

export function dayAndClock(moment) {
  const options = { dateStyle: "medium", timeStyle: "short" };
  return new Date(moment).toLocaleString([], options);
}

// What became of a draft; what is wrong with it is told as the server says it.
export function savedInWords(savedAt, problem) {
  if (problem === null) return `saved ${clock(savedAt)}`;
  const isWrong = problem.status === 413 || problem.status === 422;
  return isWrong ? problem.message : "not saved; kept in this browser";
}

export function boxInWords(box) {
  const size = `${box.width.toFixed(0)} × ${box.height.toFixed(0)} px`;
  return `${box.level}, slice ${box.slice_index + 1}, ${size}`;
}

// Lines of what a review says.
export function summaryOf(levels, boxes) {
  const lines = [];
  for (const answer of ["fractured", "whole", "not_assessable"]) {
    const names = Object.keys(levels).filter((name) => levels[name] === answer);
    if (names.length) lines.push(`${join(names)}: ${told(answer)}`);
  }
  const open = Object.keys(levels).filter((name) => !levels[name]);
  if (open.length) lines.push(`${join(open)}: nothing said`);
  if (boxes.length) lines.push(`${boxes.length} ${boxes.length > 1 ? "boxes" : "box"}`);
  return lines;
}

// What became of what a reader has signed; `doesFileWait` is null where nobody knows.
export function outcomeInWords(own, reviews, use, doesFileWait) {
  const newest = reviews.at(-1);
  const signed = `Signed by ${own.reader}, ${dayAndClock(own.signed_at)}.`;
  if (newest.id !== own.id) {
    return `${signed} ${newest.reader} has signed since: that review counts.`;
  }
  const file = {
    true: "Its label file could not be written yet; it will be.",
    false: "Its label file is in the inbox.",
    null: "Its label file goes to the inbox.",
  }[doesFileWait];
  const end = use === "trains" ? "trains the next model" : "compares models and trains none";
  return `${signed} ${file} It ${end}.`;
}

// What is worth a thought before signing; empty: nothing is.
export function adviceOf(levels, boxes) {
  const broken = Object.keys(levels).filter((name) => levels[name] === "fractured");
  const bare = broken.filter((name) => !boxes.some((box) => box.level === name));
  if (!bare.length) return "";
  return `There is no box on ${join(bare)}. Boxes show the model where to look.`;
}
