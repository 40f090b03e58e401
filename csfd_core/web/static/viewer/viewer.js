// The viewer of a study: three linked planes. For other scripts of the page:
//
//   const viewer = await openViewer(root, { studyUid, level, findings });
//   viewer.goToLevel("C5")            the slice of its evidence, else of its middle
//   viewer.level, viewer.sliceIndex   the level that was chosen; slice 0 is at the head
//   viewer.on("level", fn)            fn(name); on("slice", fn): fn(sliceIndex)
//   viewer.beginBox(fn)               lets the reader draw on the axial plane; fn gets
//                                     {slice_index, x, y, width, height}, edges of pixels
//                                     of the original slice, or null where they stopped;
//                                     returns a function that stops it
//   viewer.reveal()                   scrolls the page to the planes, if they are out of sight
//   viewer.setBoxes([{level, slice_index, x, y, width, height}])
//   viewer.keys.add("y", "what it does", fn)   returns a function that removes it
//   viewer.close()
//
// `root` holds the markup of templates/viewer.html. `findings`: names of suspicious
// levels, the worst first; without it, the prediction's. It never rejects: what goes wrong is said in the viewport.

import { askJson } from "../api.js";
import { BoxDrawing } from "./drawing.js";
import { Keys } from "./keys.js";
import { Loading } from "./loading.js";
import { cornersOf, describe, marksOf } from "./marks.js";
import { planesOf } from "./planes.js";
import { rgbOf } from "./painter.js";
import { heatColours, labelColours, windowTable } from "./slicing.js";
import { addKeys, Toolbar } from "./toolbar.js";
import { COLOURS, MARKS, PLACE, Viewport, VOXELS } from "./viewport.js";
import { Decoder, persist, Volume } from "./volume.js";

export const PRESETS = {
  bone: { title: "bone", width: 1800, center: 400 },
  wide: { title: "wide bone", width: 2500, center: 480 },
  soft: { title: "soft tissue", width: 400, center: 40 },
  brain: { title: "brain", width: 80, center: 40 },
  lung: { title: "lung", width: 1500, center: -600 },
};
const OTHER_LABEL = [170, 176, 182]; // of vertebrae below C7
const HEAT_OPACITY = 0.65;
const LEAST_WIDTH_HU = 2;

export async function openViewer(root, options) {
  const viewer = new Viewer(root, options);
  await viewer.open();
  return viewer;
}

class Viewer {
  #root;
  #options;
  #listeners = { level: new Set(), slice: new Set() };
  #told = { link: "", work: "" };
  #scheduled = 0;
  #drawing;
  #loading;
  #window = { ...PRESETS.bone, preset: "bone" };
  #isInverted = false;
  #volume = null;
  #isClosed = false;

  constructor(root, options) {
    this.#root = root;
    this.#options = options;
    this.keys = new Keys(root.querySelector("dialog.keys"));
    this.#drawing = new BoxDrawing((isOn) => {
      root.classList.toggle("drawing", isOn);
      this.panes.axial?.stale(MARKS);
      this.#schedule();
    });
    this.level = null;
    this.cursor = [0, 0, 0];
    this.boxes = [];
    this.slab = { mm: 0, mode: "average" };
    this.shows = { mask: true, labels: true, heat: false, cross: true };
    this.opacity = 0.35;
    this.panes = {};
    this.active = "axial";
  }

  get sliceIndex() {
    return this.cursor[0];
  }

  // Names of the suspicious levels, the worst first; none while one reads blind.
  get findings() {
    return this.#options.findings || this.facts?.findings || [];
  }

  get window() {
    return this.#window;
  }

  get isInverted() {
    return this.#isInverted;
  }

  get volume() {
    return this.#volume;
  }

  on(name, listener) {
    this.#listeners[name].add(listener);
    return () => this.#listeners[name].delete(listener);
  }

  async open() {
    const decoder = new Decoder();
    addKeys(this);
    const keys = this.keys.load();
    this.tell("work", "The study is being opened.");
    try {
      const path = `/studies/${this.#options.studyUid}/geometry`;
      const { content } = await persist(
        path,
        (text) => this.tell("link", text),
        () => this.#isClosed,
      );
      this.#build(JSON.parse(new TextDecoder().decode(content)), decoder);
    } catch (error) {
      decoder.stop();
      this.#fail(error);
    }
    await keys;
  }

  #build(facts, decoder) {
    this.facts = facts;
    this.#volume = new Volume(this.#options.studyUid, facts, decoder, {
      told: (text) => this.tell("link", text),
      changed: (slices) => this.#arrive(slices),
    });
    this.#loading = new Loading(this.#volume, facts, {
      focus: () => this.cursor[0],
      isApproximated: () => this.#window.preset !== "bone",
      tell: (text) => this.tell("work", text),
      come: (what) => this.#restart(what),
      fail: (error) => this.#fail(error),
    });
    const planes = planesOf(facts);
    for (const element of this.#root.querySelectorAll("[data-plane]")) {
      const name = element.dataset.plane;
      this.panes[name] = new Viewport(element, planes[name], this.#meanings(name));
    }
    this.toolbar = new Toolbar(this.#root, this);
    this.#colour();
    this.#start();
  }

  #start() {
    const wanted = this.#options.level || this.findings[0];
    const [depth, height, width] = this.facts.shape_zyx;
    const levels = this.facts.levels;
    this.cursor = [depth, height, width].map((size) => Math.floor(size / 2));
    if (levels.some((one) => one.level === wanted)) this.goToLevel(wanted);
    else if (levels.length) {
      this.#moveTo(levels[Math.floor(levels.length / 2)].centroid_zyx);
    }
    this.#loading.begin();
  }

  #arrive(slices) {
    const { depth, shown, exact } = this.#volume;
    if (shown < depth) this.tell("work", `Slices: ${shown} of ${depth}`);
    else if (exact && exact < depth) {
      this.tell("work", `Hounsfield units: ${exact} of ${depth} slices`);
    }
    if (slices.includes(this.cursor[0])) this.panes.axial.stale(VOXELS);
    this.panes.sagittal.stale(VOXELS);
    this.panes.coronal.stale(VOXELS);
    this.#schedule();
  }

  // What is said in the viewport: of the connection first, then of the work.
  tell(about, text) {
    this.#told[about] = text;
    const place = this.#root.querySelector(".told");
    const shown = this.#told.link || this.#told.work;
    if (place.textContent !== shown) place.textContent = shown;
  }

  #fail(error) {
    if (this.#isClosed) return;
    this.tell("link", "");
    this.tell("work", error.message || "Something went wrong. Load the page again.");
  }

  // Scrolling and levels

  scroll(steps, name = this.active) {
    const pane = this.panes[name];
    if (!pane) return;
    const moved = [...this.cursor];
    moved[pane.plane.fixed] += steps;
    this.#moveTo(moved);
  }

  scrollTo(share, name = this.active) {
    const pane = this.panes[name];
    if (!pane) return;
    const moved = [...this.cursor];
    moved[pane.plane.fixed] = share * (pane.plane.count - 1);
    this.#moveTo(moved);
  }

  goToLevel(name) {
    const place = this.facts?.levels.find((one) => one.level === name);
    const isOther = this.level !== name;
    this.level = name;
    const found = this.facts?.evidence?.[name];
    if (found) {
      const { x, y, width, height } = found.box_px;
      this.#moveTo([found.slice_index, y + height / 2 - 0.5, x + width / 2 - 0.5]);
    } else if (place) this.#moveTo(place.centroid_zyx);
    this.#all(MARKS);
    if (isOther) this.#emit("level", name);
  }

  nextLevel(step) {
    const names = (this.facts?.levels || []).map((one) => one.level);
    if (!names.length) return;
    const at = names.indexOf(this.level);
    const next = at < 0 ? 0 : Math.min(names.length - 1, Math.max(0, at + step));
    this.goToLevel(names[next]);
  }

  nextFinding() {
    const { findings } = this;
    if (!findings.length) return;
    this.goToLevel(findings[(findings.indexOf(this.level) + 1) % findings.length]);
  }

  // The level that a slice shows: of those that it crosses, the one it is nearest to
  // the middle of.
  levelAt(z) {
    let best = null;
    for (const one of this.facts.levels) {
      if (z < one.first_slice || z > one.last_slice) continue;
      const far = Math.abs(z - one.centroid_zyx[0]);
      if (!best || far < best.far) best = { ...one, far };
    }
    return best;
  }

  #moveTo(voxel) {
    this.#loading.touch();
    const before = this.cursor;
    this.cursor = voxel.map((at, axis) =>
      Math.min(this.facts.shape_zyx[axis] - 1, Math.max(0, Math.round(at))),
    );
    for (const pane of Object.values(this.panes)) {
      const { fixed } = pane.plane;
      pane.stale(before[fixed] === this.cursor[fixed] ? MARKS : VOXELS);
    }
    this.#schedule();
    if (before[0] !== this.cursor[0]) this.#emit("slice", this.cursor[0]);
  }

  #emit(name, fact) {
    for (const listener of this.#listeners[name]) listener(fact);
  }

  // Windows and overlays

  setWindow(name) {
    if (!this.facts) return;
    this.#window = { ...PRESETS[name], preset: name };
    this.#colour();
    if (name !== "bone") this.#loading.wantHounsfield();
  }

  dragWindow(dx, dy) {
    this.#loading.touch();
    const step = Math.max(1, this.#window.width / 400);
    this.#window = {
      title: "",
      preset: null,
      width: Math.max(LEAST_WIDTH_HU, Math.round(this.#window.width + dx * step)),
      center: Math.round(this.#window.center + dy * step),
    };
    this.#colour();
    this.#loading.wantHounsfield();
  }

  invert() {
    if (!this.facts) return;
    this.#isInverted = !this.#isInverted;
    this.#colour();
  }

  reset() {
    if (!this.facts) return;
    this.setWindow("bone");
    this.#isInverted = false;
    for (const pane of Object.values(this.panes)) pane.reset();
    this.#colour();
  }

  async toggle(what) {
    if (!this.facts) return;
    if (what === "heat" && !this.facts?.has_heat) return;
    if (what === "mask" && !this.facts?.has_mask) return;
    this.shows[what] = !this.shows[what];
    if (what === "heat" && this.shows.heat) {
      this.shows.heat = await this.#loading.wantHeat();
    }
    this.#restart(what === "mask" || what === "heat" ? COLOURS : MARKS);
  }

  setOpacity(share) {
    this.opacity = share;
    this.#colour(true);
  }

  setSlab(slab) {
    this.slab = { ...this.slab, ...slab };
    this.panes.sagittal?.stale(VOXELS);
    this.panes.coronal?.stale(VOXELS);
    this.#schedule();
  }

  enlarge(name) {
    const grid = this.#root.querySelector(".panes");
    if (grid.dataset.enlarged === name) delete grid.dataset.enlarged;
    else grid.dataset.enlarged = name;
    this.active = name;
    this.#all(PLACE);
  }

  reveal() {
    this.#root.querySelector(".panes").scrollIntoView({ block: "nearest" });
  }

  // Makes the table of the window anew; those of the colours only where they changed.
  #colour(isRecoloured = false) {
    const { width, center } = this.#window;
    this.look = {
      window: windowTable(center, width, this.#isInverted),
      colours: isRecoloured || !this.look ? this.#coloursOfLabels() : this.look.colours,
      hot: this.look?.hot ?? heatColours(HEAT_OPACITY),
    };
    this.#all(COLOURS);
  }

  #coloursOfLabels() {
    const colours = [];
    for (let label = 8; label < 256; label += 1) colours[label] = OTHER_LABEL;
    for (const one of this.facts.levels) colours[one.label] = rgbOf(one.colour);
    return labelColours(colours, this.opacity);
  }

  #restart(what) {
    for (const pane of Object.values(this.panes)) pane.forgetLabels();
    this.#all(what);
  }

  // Boxes

  setBoxes(boxes) {
    this.boxes = boxes;
    this.panes.axial?.stale(MARKS);
    this.#schedule();
  }

  beginBox(done) {
    const { enlarged } = this.#root.querySelector(".panes").dataset;
    if (enlarged && enlarged !== "axial") this.enlarge("axial");
    this.reveal();
    this.#drawing.begin(done);
    return () => this.stopBox();
  }

  stopBox() {
    this.#drawing.stop();
  }

  get drawnBox() {
    return this.#drawing.box;
  }

  // A step of drawing, at a place of the axial plane on the screen.
  #draw(phase, x, y) {
    const [height, width] = this.facts.shape_zyx.slice(1);
    const [i, j] = this.panes.axial.toPlane(x, y);
    const at = [Math.min(width, Math.max(0, i + 0.5)), Math.min(height, Math.max(0, j + 0.5))];
    this.#drawing.step(phase, at, this.cursor[0]);
  }

  #meanings(name) {
    const pane = () => this.panes[name];
    return {
      touched: () => {
        this.active = name;
        this.#loading.touch();
      },
      resized: () => this.#schedule(),
      scroll: (slices) => this.scroll(slices, name),
      window: (dx, dy) => this.dragWindow(dx, dy),
      pan: (dx, dy) => {
        pane().pan(dx, dy);
        this.#schedule();
      },
      zoom: (factor, x, y) => {
        pane().zoom(factor, x, y);
        this.#schedule();
      },
      point: (x, y) => {
        const [i, j] = pane().toPlane(x, y);
        const moved = [...this.cursor];
        moved[pane().plane.across] = i;
        moved[pane().plane.down] = j;
        this.#moveTo(moved);
      },
      isDrawing: () => name === "axial" && this.#drawing.isOn,
      box: (phase, x, y) => this.#draw(phase, x, y),
    };
  }

  #all(what) {
    for (const pane of Object.values(this.panes)) pane.stale(what);
    this.#schedule();
  }

  #schedule() {
    if (this.#scheduled || this.#isClosed || !this.toolbar) return;
    this.#scheduled = requestAnimationFrame(() => {
      this.#scheduled = 0;
      this.#render();
    });
  }

  #render() {
    const scene = {
      volume: this.#volume,
      cursor: this.cursor,
      slab: this.slab,
      look: this.look,
      showsMask: this.shows.mask && this.#volume.mask !== null,
      showsHeat: this.shows.heat && this.#volume.heat !== null,
    };
    for (const pane of Object.values(this.panes)) {
      pane.render(
        scene,
        () => marksOf(this, pane.plane),
        () => cornersOf(this, pane.plane),
      );
      pane.describe(describe(this, pane.plane));
    }
    this.toolbar.update();
  }

  close() {
    this.#isClosed = true;
    cancelAnimationFrame(this.#scheduled);
    this.keys.stop();
    this.#loading?.stop();
    this.#volume?.stop();
    for (const pane of Object.values(this.panes)) pane.observer.disconnect();
  }
}
