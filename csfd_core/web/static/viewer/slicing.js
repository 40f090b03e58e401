// Planes of a volume, and windows: functions of numbers alone.
//
// A volume has `shape` [slices, rows, columns], and for each slice, head to feet, either
// `hu[z]` (Int16Array) or `grey[z]` (Uint8Array, which `fromGrey`, an Int16Array of 256,
// brings back to Hounsfield units), or neither while it is being loaded. Planes are
// Int16Arrays of Hounsfield units; what is not there yet is EMPTY.

export const EMPTY = -32768;
const VALUES = 65536;

// Hounsfield units that the grey levels of a window stand for (PS3.3 C.11.2.1.2.1).
export function hounsfieldOfGrey(center, width) {
  const table = new Int16Array(256);
  for (let grey = 0; grey < 256; grey += 1) {
    table[grey] = Math.round((grey / 255 - 0.5) * (width - 1) + center - 0.5);
  }
  return table;
}

// Grey level of each Hounsfield unit from -32768 (DICOM PS3.3 C.11.2.1.2.1, LINEAR).
export function windowTable(center, width, isInverted = false) {
  const table = new Uint8Array(VALUES);
  const slope = 1 / Math.max(1, width - 1);
  for (let at = 0; at < VALUES; at += 1) {
    const share = (at - 32768 - (center - 0.5)) * slope + 0.5;
    const grey = share <= 0 ? 0 : share >= 1 ? 255 : Math.round(share * 255);
    table[at] = isInverted ? 255 - grey : grey;
  }
  table[0] = 0; // nothing is there
  return table;
}

// The first voxel of a slab around `index` and the one behind its last.
export function slabOf(index, thickness, spacing, size) {
  const count = Math.max(1, Math.round(thickness / spacing));
  const first = Math.max(0, index - Math.floor((count - 1) / 2));
  return [first, Math.min(size, index - Math.floor((count - 1) / 2) + count)];
}

export function axialPlane(volume, z, out) {
  const own = volume.hu[z];
  if (own) out.set(own);
  else if (volume.grey[z]) through(volume.grey[z], volume.fromGrey, out);
  else out.fill(EMPTY);
  return out;
}

function through(grey, table, out) {
  for (let at = 0; at < out.length; at += 1) out[at] = table[grey[at]];
}

// Columns `first` to before `stop`, joined by `mode`: "average" or "maximum". The plane
// has the rows of the slices across and the slices down.
export function sagittalPlane(volume, first, stop, mode, out) {
  const [depth, height, width] = volume.shape;
  for (let z = 0; z < depth; z += 1) {
    const own = volume.hu[z];
    const data = own || volume.grey[z];
    const table = own ? null : volume.fromGrey;
    const target = z * height;
    if (!data) out.fill(EMPTY, target, target + height);
    else if (stop - first === 1) {
      for (let y = 0, at = first; y < height; y += 1, at += width) {
        out[target + y] = table ? table[data[at]] : data[at];
      }
    } else {
      for (let y = 0; y < height; y += 1) {
        const row = y * width;
        out[target + y] = joined(data, table, row + first, row + stop, mode);
      }
    }
  }
  return out;
}

// Rows `first` to before `stop`. The plane has the columns across and the slices down.
export function coronalPlane(volume, first, stop, mode, out) {
  const [depth, , width] = volume.shape;
  const sum = new Int32Array(width);
  for (let z = 0; z < depth; z += 1) {
    const own = volume.hu[z];
    const data = own || volume.grey[z];
    const table = own ? null : volume.fromGrey;
    const target = z * width;
    if (!data) {
      out.fill(EMPTY, target, target + width);
      continue;
    }
    sum.fill(mode === "maximum" ? EMPTY : 0);
    for (let y = first; y < stop; y += 1) gather(data, table, y * width, mode, sum);
    const count = mode === "maximum" ? 1 : stop - first;
    for (let x = 0; x < width; x += 1) {
      out[target + x] = count === 1 ? sum[x] : Math.round(sum[x] / count);
    }
  }
  return out;
}

function joined(data, table, first, stop, mode) {
  let sum = 0;
  let most = EMPTY;
  for (let at = first; at < stop; at += 1) {
    const value = table ? table[data[at]] : data[at];
    sum += value;
    if (value > most) most = value;
  }
  return mode === "maximum" ? most : Math.round(sum / (stop - first));
}

function gather(data, table, row, mode, sum) {
  const width = sum.length;
  if (mode === "maximum") {
    for (let x = 0; x < width; x += 1) {
      const value = table ? table[data[row + x]] : data[row + x];
      if (value > sum[x]) sum[x] = value;
    }
  } else {
    for (let x = 0; x < width; x += 1) {
      sum[x] += table ? table[data[row + x]] : data[row + x];
    }
  }
}

// A plane of labels: 0 outside of what was sent. `part` has `box`, [[z0, z1], [y0, y1],
// [x0, x1]], and `data` of it; `fixed` is the axis (0 slices, 1 rows, 2 columns) that
// stays at `index`; `across` is the size of the plane's rows.
export function labelPlane(part, fixed, index, across, out) {
  out.fill(0);
  const [[z0, z1], [y0, y1], [x0, x1]] = part.box;
  const [low, high] = part.box[fixed];
  if (index < low || index >= high) return out;
  const [rows, columns] = [y1 - y0, x1 - x0];
  if (fixed === 0) {
    for (let y = y0; y < y1; y += 1) {
      const from = ((index - z0) * rows + y - y0) * columns;
      out.set(part.data.subarray(from, from + columns), y * across + x0);
    }
    return out;
  }
  for (let z = z0; z < z1; z += 1) {
    const slice = (z - z0) * rows * columns;
    if (fixed === 1) {
      const from = slice + (index - y0) * columns;
      out.set(part.data.subarray(from, from + columns), z * across + x0);
    } else {
      let from = slice + index - x0;
      for (let y = y0; y < y1; y += 1, from += columns) {
        out[z * across + y] = part.data[from];
      }
    }
  }
  return out;
}

// Opaque colours of (label, grey level): `colours[label]` is [red, green, blue], or
// undefined for grey alone. Little-endian, as all browsers are.
export function labelColours(colours, opacity) {
  const table = new Uint32Array(VALUES);
  for (let label = 0; label < 256; label += 1) {
    const colour = colours[label];
    const share = colour ? opacity : 0;
    for (let grey = 0; grey < 256; grey += 1) {
      table[(label << 8) | grey] = blended(grey, colour || [0, 0, 0], share);
    }
  }
  return table;
}

// The same of (heat, grey level): from nothing over yellow to red.
export function heatColours(opacity) {
  const table = new Uint32Array(VALUES);
  for (let heat = 0; heat < 256; heat += 1) {
    const share = (opacity * Math.min(255, heat * 1.4)) / 255;
    const colour = [255, 225 - (heat * 190) / 255, 0];
    for (let grey = 0; grey < 256; grey += 1) {
      table[(heat << 8) | grey] = blended(grey, colour, share);
    }
  }
  return table;
}

function blended(grey, colour, share) {
  const [red, green, blue] = colour.map((part) =>
    Math.round(grey * (1 - share) + part * share),
  );
  return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}

// Paints a plane into `out` (Uint32Array of RGBA). `labels` and `heat` may be null.
export function paintPlane(values, window, labels, colours, heat, hot, out) {
  const count = values.length;
  if (labels) {
    for (let at = 0; at < count; at += 1) {
      out[at] = colours[(labels[at] << 8) | window[values[at] + 32768]];
    }
  } else {
    for (let at = 0; at < count; at += 1) out[at] = colours[window[values[at] + 32768]];
  }
  if (!heat) return;
  for (let at = 0; at < count; at += 1) {
    if (heat[at] > 25) out[at] = hot[(heat[at] << 8) | window[values[at] + 32768]];
  }
}

// The slices of a volume in parts of `size`, the part nearest to `focus` first.
export function nearestFirst(parts, focus) {
  let best = null;
  let distance = Infinity;
  for (const part of parts) {
    const far = Math.max(part.start - focus, focus - part.stop + 1, 0);
    if (far < distance) [best, distance] = [part, far];
  }
  return best;
}

export function partsOf(depth, size) {
  const parts = [];
  for (let start = 0; start < depth; start += size) {
    parts.push({ start, stop: Math.min(depth, start + size) });
  }
  return parts;
}
