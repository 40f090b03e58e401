// A box that a reader draws on the axial plane, in edges of pixels of the slice.

const LEAST_PX = 2; // of a side; less was a slip of the hand

export class BoxDrawing {
  #done = null;
  #start = null;
  #slice = 0;
  #changed;
  box = null; // as far as it is drawn

  // `changed(isOn)`: called whenever there is something else to see.
  constructor(changed) {
    this.#changed = changed;
  }

  get isOn() {
    return this.#done !== null;
  }

  begin(done) {
    this.stop();
    this.#done = done;
    this.#changed(true);
  }

  stop() {
    this.#end(null);
  }

  // `phase`: "start", "move", "end" or "cancel"; `at`: [x, y].
  step(phase, at, slice) {
    if (!this.isOn) return;
    if (phase === "start") [this.#start, this.#slice] = [at, slice];
    const isDrawn = phase !== "cancel" && this.#start !== null;
    this.box = isDrawn ? between(this.#start, at, this.#slice) : null;
    if (phase === "cancel" || phase === "end") this.#start = null;
    if (phase === "end" && this.box) {
      if (Math.min(this.box.width, this.box.height) >= LEAST_PX) {
        this.#end(this.box);
        return;
      }
      this.box = null;
    }
    this.#changed(true);
  }

  #end(box) {
    const done = this.#done;
    [this.#done, this.#start, this.box] = [null, null, null];
    if (!done) return;
    this.#changed(false);
    done(box);
  }
}

function between([x0, y0], [x1, y1], slice) {
  const round = (part) => Math.round(part * 100) / 100;
  return {
    slice_index: slice,
    x: round(Math.min(x0, x1)),
    y: round(Math.min(y0, y1)),
    width: round(Math.abs(x1 - x0)),
    height: round(Math.abs(y1 - y0)),
  };
}
