// What a review says, and what another one says differently.

export const NOTHING = { levels: {}, boxes: [], comment: "" };

// Without boxes whose slice is gone, and without what the server adds to the others.
export function contentOf({ levels, boxes, comment = "" }) {
  const placed = boxes.filter((box) => box.slice_index !== null);
  return {
    levels,
    boxes: placed.map(({ level, slice_index, x, y, width, height }) => ({
      level, slice_index, x, y, width, height,
    })),
    comment: comment.trim(),
  };
}

// What `now` says differently, by name; empty: nothing.
export function changesOf(before, now) {
  const [old, fresh] = [contentOf(before), contentOf(now)];
  const changes = Object.keys(fresh.levels).filter(
    (name) => (old.levels[name] ?? null) !== fresh.levels[name],
  );
  if (JSON.stringify(old.boxes) !== JSON.stringify(fresh.boxes)) changes.push("the boxes");
  if (old.comment !== fresh.comment) changes.push("the comment");
  return changes;
}

// Of levels and boxes alone: a browser keeps no comment.
export function isSameDraft(kept, now) {
  return JSON.stringify([kept.levels, kept.boxes]) === JSON.stringify([now.levels, now.boxes]);
}
