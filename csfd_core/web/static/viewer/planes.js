// How each plane lies on the screen: millimetres are equal, the patient's right is on
// the left, the head and the front are at the top, whichever way the scan was turned.

const LETTERS = [
  ["R", "L"],
  ["A", "P"],
  ["F", "H"],
];
const OBLIQUE = 0.3; // share of a further direction that is told

const LEFT = [1, 0, 0]; // of the patient, in LPS
const BACK = [0, 1, 0];
const FEET = [0, 0, -1];

// Which letters a direction in LPS millimetres has: the nearest side first.
export function lettersOf(direction) {
  const length = Math.hypot(...direction);
  const order = [0, 1, 2].sort(
    (one, other) => Math.abs(direction[other]) - Math.abs(direction[one]),
  );
  return order
    .filter((axis, at) => at === 0 || Math.abs(direction[axis]) / length > OBLIQUE)
    .map((axis) => LETTERS[axis][direction[axis] > 0 ? 1 : 0])
    .join("");
}

// Returns the planes of a study by name. Axes are 0 slices, 1 rows, 2 columns; `fixed`
// is the one that a plane scrolls through, `across` and `down` those of its pixels.
// `basis` maps a step across and a step down to millimetres on the screen:
// x = basis[0] i + basis[2] j, y = basis[1] i + basis[3] j.
export function planesOf(geometry) {
  const steps = [0, 1, 2].map((axis) =>
    [0, 1, 2].map((part) => geometry.affine_lps[part][axis]),
  );
  const isTurned = share(steps[1], LEFT) > share(steps[2], LEFT);
  const sideways = isTurned ? 1 : 2; // the axis from right to left
  const forward = isTurned ? 2 : 1;
  return {
    sagittal: plane("sagittal", geometry, steps, [sideways, forward, 0], BACK, FEET),
    axial: plane("axial", geometry, steps, [0, 2, 1], LEFT, BACK),
    coronal: plane("coronal", geometry, steps, [forward, sideways, 0], LEFT, FEET),
  };
}

function plane(name, geometry, steps, [fixed, across, down], right, below) {
  const [one, other] = [steps[across], steps[down]];
  const isSwapped = share(other, right) > share(one, right);
  const [level, steep] = isSwapped ? [other, one] : [one, other];
  const x = unit(level, dot(level, right) < 0 ? -1 : 1);
  const along = dot(steep, x);
  const rest = steep.map((part, axis) => part - along * x[axis]);
  const y = unit(rest, dot(rest, below) < 0 ? -1 : 1);
  return {
    name,
    fixed,
    across,
    down,
    size: [geometry.shape_zyx[across], geometry.shape_zyx[down]],
    count: geometry.shape_zyx[fixed],
    spacing: geometry.spacing_zyx_mm[fixed],
    basis: [dot(one, x), dot(one, y), dot(other, x), dot(other, y)],
    letters: {
      left: lettersOf(negative(x)),
      right: lettersOf(x),
      top: lettersOf(negative(y)),
      bottom: lettersOf(y),
    },
  };
}

// Where a voxel (slice, row, column) lies in the patient, in LPS millimetres.
export function patientMm(geometry, voxel) {
  return geometry.affine_lps
    .slice(0, 3)
    .map((row) => dot(row.slice(0, 3), voxel) + row[3]);
}

function dot(one, other) {
  return one.reduce((sum, part, axis) => sum + part * other[axis], 0);
}

function share(step, direction) {
  return Math.abs(dot(step, direction)) / Math.hypot(...step);
}

function unit(vector, sign) {
  const length = Math.hypot(...vector) * sign;
  return vector.map((part) => part / length);
}

function negative(vector) {
  return vector.map((part) => -part);
}
