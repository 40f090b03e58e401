// One plane on the page: what it shows of the volume, how it is placed, its corners.

import { Gestures } from "./gestures.js";
import { Painter } from "./painter.js";
import { axialPlane, coronalPlane, labelPlane, sagittalPlane, slabOf } from "./slicing.js";

const MOST_RATIO = 2; // of pixels of the screen to those of CSS
const LEAST_ZOOM = 0.2;
const MOST_ZOOM = 20;

// What must be made anew, each with all that follows from it.
export const VOXELS = 3;
export const COLOURS = 2;
export const PLACE = 1;
export const MARKS = 0;

export class Viewport {
  #stale = VOXELS;
  #labelsOf = -1; // index that the labels were taken at
  #heatOf = -1;
  #pan = [0, 0];
  #zoom = 1;
  #ratio = 1;
  #corners;
  #painter;
  #values;
  #labels;
  #heat;

  // `on`: what Gestures tells, and `resized()`.
  constructor(element, plane, on) {
    this.plane = plane;
    this.element = element;
    this.image = element.querySelector("canvas.image");
    this.over = element.querySelector("canvas.over");
    const [across, down] = plane.size;
    this.#values = new Int16Array(across * down);
    this.#labels = new Uint8Array(across * down);
    this.#painter = new Painter(this.image, this.over, plane.size);
    this.#corners = Object.fromEntries(
      [...element.querySelectorAll("[data-corner]")].map((one) => [
        one.dataset.corner,
        one,
      ]),
    );
    new Gestures(this.over, on);
    this.observer = new ResizeObserver(() => {
      this.#fit();
      on.resized();
    });
    this.observer.observe(element);
    this.#fit();
  }

  stale(what) {
    this.#stale = Math.max(this.#stale, what);
  }

  forgetLabels() {
    this.#labelsOf = -1;
    this.#heatOf = -1;
  }

  reset() {
    this.#pan = [0, 0];
    this.#zoom = 1;
    this.stale(PLACE);
  }

  pan(dx, dy) {
    this.#pan = [this.#pan[0] + dx, this.#pan[1] + dy];
    this.stale(PLACE);
  }

  // Zooms around a point of the screen, which stays where it is.
  zoom(factor, x, y) {
    const wanted = Math.min(MOST_ZOOM, Math.max(LEAST_ZOOM, this.#zoom * factor));
    const real = wanted / this.#zoom;
    const { width, height } = this.#size();
    const middle = [width / 2, height / 2];
    this.#pan = [x, y].map((at, axis) => {
      const from = at - middle[axis];
      return from - (from - this.#pan[axis]) * real;
    });
    this.#zoom = wanted;
    this.stale(PLACE);
  }

  // Where pixels of the plane lie on the screen, in pixels of CSS.
  placement() {
    const { width, height } = this.#size();
    const [a, b, c, d] = this.plane.basis;
    const [across, down] = this.plane.size;
    const wide = Math.abs(a) * across + Math.abs(c) * down;
    const tall = Math.abs(b) * across + Math.abs(d) * down;
    const scale = this.#zoom * Math.min(width / wide, height / tall);
    const [i0, j0] = [(across - 1) / 2, (down - 1) / 2];
    const e = width / 2 + this.#pan[0] - scale * (a * i0 + c * j0);
    const f = height / 2 + this.#pan[1] - scale * (b * i0 + d * j0);
    const matrix = [scale * a, scale * b, scale * c, scale * d, e, f];
    return {
      width,
      height,
      scale,
      matrix,
      toScreen: (i, j) => [
        matrix[0] * i + matrix[2] * j + e,
        matrix[1] * i + matrix[3] * j + f,
      ],
    };
  }

  // The pixel of the plane at a place of the screen; the middle of the first is (0, 0).
  toPlane(x, y) {
    const [a, b, c, d, e, f] = this.placement().matrix;
    const [u, v] = [x - e, y - f];
    const area = a * d - b * c;
    return [(d * u - c * v) / area, (a * v - b * u) / area];
  }

  // Makes anew what is stale. `scene`: { volume, cursor, slab, look, showsMask,
  // showsHeat }; `marks()` and `corners()` tell what to write over the image.
  render(scene, marks, corners) {
    if (this.#stale < 0 || !this.element.clientWidth) return;
    const index = scene.cursor[this.plane.fixed];
    if (this.#stale >= VOXELS) this.#slice(scene, index);
    if (this.#stale >= COLOURS) {
      const labels = scene.showsMask ? this.#labelsAt(scene.volume.mask, index) : null;
      const heat = scene.showsHeat ? this.#heatAt(scene.volume.heat, index) : null;
      this.#painter.paint(this.#values, labels, heat, scene.look);
    }
    const placement = this.placement();
    if (this.#stale >= PLACE) this.#painter.draw(placement, this.#ratio);
    this.#painter.drawOver(placement, this.#ratio, marks());
    for (const [name, text] of Object.entries(corners())) {
      const place = this.#corners[name];
      if (place.textContent !== text) place.textContent = text;
    }
    this.#stale = -1;
  }

  describe(text) {
    if (this.image.getAttribute("aria-label") !== text) {
      this.image.setAttribute("aria-label", text);
    }
  }

  #slice({ volume, slab }, index) {
    const { fixed, spacing, count } = this.plane;
    if (fixed === 0) {
      axialPlane(volume, index, this.#values);
      return;
    }
    const [first, stop] = slabOf(index, slab.mm, spacing, count);
    const cut = fixed === 1 ? coronalPlane : sagittalPlane;
    cut(volume, first, stop, slab.mode, this.#values);
  }

  #labelsAt(part, index) {
    if (this.#labelsOf !== index) {
      labelPlane(part, this.plane.fixed, index, this.plane.size[0], this.#labels);
      this.#labelsOf = index;
    }
    return this.#labels;
  }

  #heatAt(part, index) {
    this.#heat ??= new Uint8Array(this.#values.length);
    if (this.#heatOf !== index) {
      labelPlane(part, this.plane.fixed, index, this.plane.size[0], this.#heat);
      this.#heatOf = index;
    }
    return this.#heat;
  }

  #size() {
    return { width: this.element.clientWidth, height: this.element.clientHeight };
  }

  #fit() {
    const { width, height } = this.#size();
    this.#ratio = Math.min(MOST_RATIO, window.devicePixelRatio || 1);
    for (const canvas of [this.image, this.over]) {
      canvas.width = Math.max(1, Math.round(width * this.#ratio));
      canvas.height = Math.max(1, Math.round(height * this.#ratio));
    }
    this.stale(PLACE);
  }
}
