// In which order a study comes: the slice that is looked at, the other grey levels and
// the mask, then Hounsfield units, where somebody wants them or nothing else is going on.

import { COLOURS } from "./viewport.js";

const IDLE_MS = 2500; // without a touch, before Hounsfield units are fetched

export class Loading {
  #volume;
  #facts;
  #viewer;
  #touchedAt = 0;
  #isStopped = false;

  // `viewer`: { focus(), isApproximated(), tell(text), come(what is stale), fail(error) }
  constructor(volume, facts, viewer) {
    this.#volume = volume;
    this.#facts = facts;
    this.#viewer = viewer;
  }

  async begin() {
    this.touch();
    await this.#try(async () => {
      const slices = this.#volume.loadGrey(this.#viewer.focus(), this.#viewer.focus);
      if (this.#facts.has_mask) this.#loadMask();
      await slices;
      this.#viewer.tell("");
      if (this.#facts.has_hounsfield) this.#whenIdle();
    });
  }

  touch() {
    this.#touchedAt = performance.now();
  }

  async wantHounsfield() {
    if (this.#volume.exact === this.#volume.depth) return;
    if (this.#facts.has_hounsfield) {
      await this.#try(async () => {
        await this.#volume.loadHounsfield(this.#viewer.focus);
        this.#viewer.tell("");
      });
    } else if (this.#viewer.isApproximated()) {
      this.#viewer.tell(
        "The DICOM images are not here any more: other windows than bone are " +
          "approximated.",
      );
    }
  }

  // Returns whether the heatmap is there.
  async wantHeat() {
    if (!this.#volume.heat) {
      this.#viewer.tell("The heatmap is being fetched.");
      await this.#try(async () => {
        await this.#volume.loadHeat();
        this.#viewer.tell("");
      });
    }
    return this.#volume.heat !== null;
  }

  stop() {
    this.#isStopped = true;
  }

  #loadMask() {
    return this.#try(async () => {
      await this.#volume.loadMask();
      this.#viewer.come(COLOURS);
    });
  }

  #whenIdle() {
    if (this.#isStopped) return;
    const rest = this.#touchedAt + IDLE_MS - performance.now();
    if (rest <= 0) this.wantHounsfield();
    else setTimeout(() => this.#whenIdle(), rest);
  }

  async #try(work) {
    try {
      await work();
    } catch (error) {
      this.#viewer.fail(error);
    }
  }
}
