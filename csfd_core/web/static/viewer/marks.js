// What is written over and around the planes: names of levels, boxes, corners.

import { patientMm } from "./planes.js";

const BESIDE_MM = 38; // from the middle of a vertebra to its name
const BOX_COLOUR = "#ffffff"; // of the reader's boxes
const EVIDENCE_COLOUR = "#ffd24d"; // seen on every colour of the mask

export function marksOf(viewer, plane) {
  const { cursor, shows } = viewer;
  return {
    cross: shows.cross ? [cursor[plane.across], cursor[plane.down]] : null,
    letters: plane.letters,
    names: shows.labels && plane.fixed !== 0 ? namesOf(viewer, plane) : [],
    boxes: plane.fixed === 0 ? boxesOf(viewer) : [],
  };
}

function namesOf(viewer, plane) {
  return viewer.facts.levels.map((one) => ({
    at: [one.centroid_zyx[plane.across], one.centroid_zyx[plane.down]],
    side: BESIDE_MM,
    text: one.level,
    colour: one.colour,
    isChosen: one.level === viewer.level,
  }));
}

// The evidence of the chosen level, the boxes of the reader, and that being drawn.
function boxesOf(viewer) {
  const isHere = (box) => box?.slice_index === viewer.sliceIndex;
  const boxes = viewer.boxes
    .filter(isHere)
    .map((box) => ({ ...box, colour: BOX_COLOUR, name: box.level || "" }));
  const found = viewer.facts.evidence?.[viewer.level];
  if (isHere(found)) {
    const name = `${viewer.level} evidence`;
    boxes.push({ ...found.box_px, colour: EVIDENCE_COLOUR, name, isDashed: true });
  }
  if (isHere(viewer.drawnBox)) boxes.push({ ...viewer.drawnBox, colour: BOX_COLOUR });
  return boxes;
}

export function cornersOf(viewer, plane) {
  const { width, center, title } = viewer.window;
  const index = viewer.cursor[plane.fixed];
  const hints = [`W ${width} L ${center}`];
  if (title) hints.push(title);
  if (viewer.isInverted) hints.push("inverted");
  return {
    plane: titleOf(viewer, plane),
    window: hints.join(" · "),
    preview: isPreview(viewer, plane) ? "preview grey levels" : "",
    slice: `${index + 1} / ${plane.count}`,
    place: ` · ${positionOf(viewer, plane)}`,
  };
}

function titleOf(viewer, plane) {
  const name = plane.name[0].toUpperCase() + plane.name.slice(1);
  if (plane.fixed !== 0) {
    const { mm, mode } = viewer.slab;
    return mm ? `${name} · ${mm} mm ${mode}` : name;
  }
  const level = viewer.shows.labels ? viewer.levelAt(viewer.sliceIndex) : null;
  return level ? `${name} · ${level.level}` : name;
}

function isPreview(viewer, plane) {
  const { volume } = viewer;
  if (plane.fixed === 0) return !volume.hu[viewer.sliceIndex];
  return volume.exact < volume.depth;
}

function positionOf(viewer, plane) {
  const mm = patientMm(viewer.facts, viewer.cursor);
  const axis = { sagittal: 0, coronal: 1, axial: 2 }[plane.name];
  return `${"xyz"[axis]} ${mm[axis].toFixed(1).replace("-", "−")} mm`;
}

// What a screen reader says of a plane.
export function describe(viewer, plane) {
  const index = viewer.cursor[plane.fixed];
  const level = plane.fixed === 0 ? viewer.levelAt(index) : null;
  const shown = level ? `, level ${level.level}` : "";
  const { width, center } = viewer.window;
  return (
    `${plane.name} plane, slice ${index + 1} of ${plane.count}${shown}, ` +
    `window ${width} level ${center}`
  );
}
