// Draws one plane: voxels to a buffer of their own size, the buffer to the screen, and
// what lies over it (lines, names, boxes, letters) to a second canvas.

import { paintPlane } from "./slicing.js";

const INK = "#f2f4f6";
const SHADE = "rgba(0, 0, 0, 0.75)";
const LINE = "rgba(120, 200, 255, 0.65)";
const FONT = "600 13px system-ui, sans-serif";
const NAME_PX = 22; // height of the name of a level
const CORNER_PX = 44; // of the words in a corner
const SCALES_MM = [100, 50, 20, 10, 5, 2];

export class Painter {
  #buffer = document.createElement("canvas");
  #pixels;
  #image;
  #over;

  constructor(image, over, [width, height]) {
    Object.assign(this.#buffer, { width, height });
    const context = this.#buffer.getContext("2d", { willReadFrequently: true });
    this.#pixels = context.createImageData(width, height);
    this.#image = image.getContext("2d", { alpha: false });
    this.#over = over.getContext("2d");
  }

  // Paints the voxels; `look`: { window, colours, hot }.
  paint(values, labels, heat, look) {
    const out = new Uint32Array(this.#pixels.data.buffer);
    paintPlane(values, look.window, labels, look.colours, heat, look.hot, out);
    this.#buffer.getContext("2d").putImageData(this.#pixels, 0, 0);
  }

  // Draws the voxels by the matrix of `placement` (pixels of the plane to those of CSS).
  draw(placement, ratio) {
    const context = this.#image;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = "#000";
    context.fillRect(0, 0, context.canvas.width, context.canvas.height);
    context.setTransform(...placement.matrix.map((part) => part * ratio));
    context.imageSmoothingEnabled = true;
    context.drawImage(this.#buffer, -0.5, -0.5);
  }

  // Draws what lies over it: `marks`: { cross, names, boxes, letters }.
  drawOver(placement, ratio, marks) {
    const context = this.#over;
    const { width, height } = placement;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    if (marks.cross) this.#drawCross(placement, marks.cross);
    for (const box of marks.boxes) this.#drawBox(placement, box);
    this.#drawNames(placement, marks.names);
    this.#drawLetters(placement, marks.letters);
    this.#drawScale(placement);
  }

  #drawCross(placement, [i, j]) {
    const context = this.#over;
    const [x, y] = placement.toScreen(i, j);
    const gap = 14;
    context.strokeStyle = LINE;
    context.lineWidth = 1;
    context.beginPath();
    for (const [from, to] of [
      [0, x - gap],
      [x + gap, placement.width],
    ]) {
      context.moveTo(from, Math.round(y) + 0.5);
      context.lineTo(to, Math.round(y) + 0.5);
    }
    for (const [from, to] of [
      [0, y - gap],
      [y + gap, placement.height],
    ]) {
      context.moveTo(Math.round(x) + 0.5, from);
      context.lineTo(Math.round(x) + 0.5, to);
    }
    context.stroke();
  }

  // A box in pixel edges: (0, 0) is the outer corner of the first pixel.
  #drawBox(placement, { x, y, width, height, colour, name, isDashed }) {
    const context = this.#over;
    const corners = [
      [x, y],
      [x + width, y],
      [x + width, y + height],
      [x, y + height],
    ].map(([i, j]) => placement.toScreen(i - 0.5, j - 0.5));
    for (const [stroke, thick] of [
      [SHADE, 4],
      [colour, 2],
    ]) {
      context.strokeStyle = stroke;
      context.lineWidth = thick;
      context.setLineDash(isDashed ? [7, 4] : []);
      context.beginPath();
      corners.forEach((corner, at) => {
        if (at) context.lineTo(...corner);
        else context.moveTo(...corner);
      });
      context.closePath();
      context.stroke();
    }
    context.setLineDash([]);
    const left = Math.min(...corners.map(([across]) => across));
    const top = Math.min(...corners.map(([, down]) => down));
    if (name) this.#write(name, left, top - 10, "left");
  }

  // The names of the vertebrae beside the column, none over another.
  #drawNames(placement, names) {
    const placed = names
      .map((name) => ({ ...name, spot: placement.toScreen(...name.at) }))
      .filter((name) => name.spot[1] <= placement.height)
      .sort((one, other) => one.spot[1] - other.spot[1]);
    const wanted = placed.map((name) => name.spot[1] - NAME_PX / 2);
    const tops = spread(wanted, placement.height - CORNER_PX);
    placed.forEach((name, at) => this.#drawName(placement, name, tops[at] + NAME_PX / 2));
  }

  // One name, at a height of the screen, and a line to its vertebra.
  #drawName(placement, { spot: [x, y], side, text, colour, isChosen }, height) {
    const context = this.#over;
    const [half, tall] = [16, NAME_PX - (isChosen ? 0 : 4)];
    const left = Math.max(half + 26, x - side * placement.scale);
    context.strokeStyle = colour;
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(left + half, height);
    context.lineTo(Math.max(left + half, x - 12 * placement.scale), y);
    context.stroke();
    context.beginPath();
    context.roundRect(left - half, height - tall / 2, 2 * half, tall, 5);
    context.fillStyle = colour;
    context.fill();
    if (isChosen) {
      context.strokeStyle = INK;
      context.lineWidth = 2;
      context.stroke();
    }
    context.font = FONT;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillStyle = isLight(colour) ? "#000" : "#fff";
    context.fillText(text, left, height + 0.5);
  }

  #drawLetters({ width, height }, { left, right, top, bottom }) {
    this.#write(left, 8, height / 2, "left");
    this.#write(right, width - 8, height / 2, "right");
    this.#write(top, width / 2, 13, "center");
    this.#write(bottom, width / 2, height - 13, "center");
  }

  #drawScale({ width, height, scale }) {
    const context = this.#over;
    const length = SCALES_MM.find((mm) => mm * scale <= width / 3) || 1;
    const [right, bottom] = [width - 12, height - 14];
    for (const [stroke, thick] of [
      [SHADE, 4],
      [INK, 2],
    ]) {
      context.strokeStyle = stroke;
      context.lineWidth = thick;
      context.beginPath();
      context.moveTo(right - length * scale, bottom - 5);
      context.lineTo(right - length * scale, bottom);
      context.lineTo(right, bottom);
      context.lineTo(right, bottom - 5);
      context.stroke();
    }
    this.#write(length >= 10 ? `${length / 10} cm` : `${length} mm`, right, bottom - 14);
  }

  #write(text, x, y, align = "right") {
    const context = this.#over;
    context.font = FONT;
    context.textAlign = align;
    context.textBaseline = "middle";
    context.lineWidth = 3;
    context.lineJoin = "round";
    context.strokeStyle = SHADE;
    context.strokeText(text, x, y);
    context.fillStyle = INK;
    context.fillText(text, x, y);
  }
}

// Where names are written that should begin at some heights: none over another, and as
// far as there is room none below `end`, where the words of the corner are.
export function spread(wanted, end) {
  return pushDown(pushUp(pushDown(wanted), end));
}

function pushDown(tops) {
  let free = 0; // above it, all is taken
  return tops.map((top) => {
    const at = Math.max(free, top);
    free = at + NAME_PX;
    return at;
  });
}

function pushUp(tops, end) {
  return tops.map((top, at) => Math.min(top, end - NAME_PX * (tops.length - at)));
}

export function isLight(colour) {
  const [red, green, blue] = rgbOf(colour);
  return 0.299 * red + 0.587 * green + 0.114 * blue > 140;
}

export function rgbOf(colour) {
  return [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
}
