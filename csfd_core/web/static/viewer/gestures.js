// Mouse and touch on one plane, told as what they mean.
//
// Mouse: left drag window, middle drag pan, right drag zoom, wheel slices, left click a
// point, Shift and left drag the point along. Touch: one finger slices, two fingers pan
// and zoom, a long press and then a drag the window, a tap a point.

const CLICK_PX = 4;
const TOUCH_CLICK_PX = 10;
const TOUCH_SLICE_PX = 9;
const LONG_PRESS_MS = 450;
const WHEEL_PX = 100;
const ZOOM_PER_PX = 0.006;

export class Gestures {
  #element;
  #on;
  #fingers = new Map(); // pointer -> [x, y]
  #meaning = null; // of the drag
  #start = [0, 0];
  #last = [0, 0];
  #rest = 0; // of a slice that was not scrolled yet
  #timer = 0;

  // `on`: { scroll(slices), window(dx, dy), pan(dx, dy), zoom(factor, x, y),
  // point(x, y), touched(), isDrawing(), box(phase, x, y) }
  constructor(element, on) {
    this.#element = element;
    this.#on = on;
    const listen = (name, act, options) =>
      element.addEventListener(name, (event) => act.call(this, event), options);
    listen("pointerdown", this.#begin);
    listen("pointermove", this.#move);
    listen("pointerup", this.#end);
    listen("pointercancel", this.#cancel);
    listen("wheel", this.#wheel, { passive: false });
    listen("contextmenu", (event) => event.preventDefault());
    listen("auxclick", (event) => event.preventDefault());
  }

  #place(event) {
    const box = this.#element.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  #begin(event) {
    this.#element.setPointerCapture(event.pointerId);
    this.#on.touched();
    const at = this.#place(event);
    this.#fingers.set(event.pointerId, at);
    clearTimeout(this.#timer);
    if (this.#fingers.size > 1) {
      this.#stopDrawing();
      this.#meaning = "pinch";
      return;
    }
    [this.#start, this.#last, this.#rest] = [at, at, 0];
    if (event.button === 1) event.preventDefault(); // no automatic scrolling
    if (event.button === 0 && this.#on.isDrawing()) {
      this.#meaning = "box";
      this.#on.box("start", ...at);
    } else if (event.pointerType === "touch") {
      this.#meaning = "touch";
      this.#timer = setTimeout(() => {
        this.#meaning = "window";
        // Before the first tap browsers refuse it, and complain.
        if (navigator.userActivation?.hasBeenActive) navigator.vibrate?.(15);
      }, LONG_PRESS_MS);
    } else if (event.button === 0 && event.shiftKey) {
      this.#meaning = "point";
      this.#on.point(...at);
    } else {
      this.#meaning = ["click", "pan", "zoom"][event.button] || null;
    }
  }

  #move(event) {
    if (!this.#fingers.has(event.pointerId)) return;
    const at = this.#place(event);
    if (this.#meaning === "pinch") {
      this.#pinch(event.pointerId, at);
      return;
    }
    this.#fingers.set(event.pointerId, at);
    const [dx, dy] = [at[0] - this.#last[0], at[1] - this.#last[1]];
    const far = Math.hypot(at[0] - this.#start[0], at[1] - this.#start[1]);
    if (this.#meaning === "click" && far > CLICK_PX) this.#meaning = "window";
    if (this.#meaning === "touch" && far > TOUCH_CLICK_PX) {
      clearTimeout(this.#timer);
      this.#meaning = "scroll";
    }
    this.#last = at;
    this.#act(dx, dy, at);
  }

  #act(dx, dy, at) {
    if (this.#meaning === "window") this.#on.window(dx, dy);
    else if (this.#meaning === "pan") this.#on.pan(dx, dy);
    else if (this.#meaning === "zoom") {
      this.#on.zoom(Math.exp(-dy * ZOOM_PER_PX), ...this.#start);
    } else if (this.#meaning === "point") this.#on.point(...at);
    else if (this.#meaning === "box") this.#on.box("move", ...at);
    else if (this.#meaning === "scroll") this.#scroll(dy / TOUCH_SLICE_PX);
  }

  #end(event) {
    if (!this.#fingers.delete(event.pointerId)) return;
    clearTimeout(this.#timer);
    const at = this.#place(event);
    if (this.#meaning === "box") this.#on.box("end", ...at);
    else if (["click", "touch"].includes(this.#meaning)) this.#on.point(...at);
    if (this.#meaning !== "pinch" || !this.#fingers.size) this.#meaning = null;
  }

  #cancel(event) {
    clearTimeout(this.#timer);
    this.#fingers.delete(event.pointerId);
    this.#stopDrawing();
    this.#meaning = null;
  }

  #stopDrawing() {
    if (this.#meaning === "box") this.#on.box("cancel", 0, 0);
  }

  #pinch(pointer, at) {
    const before = [...this.#fingers.values()];
    this.#fingers.set(pointer, at);
    const after = [...this.#fingers.values()];
    if (after.length < 2) return; // one finger is left of two
    const [from, to] = [middle(before), middle(after)];
    this.#on.pan(to[0] - from[0], to[1] - from[1]);
    this.#on.zoom(apart(after) / Math.max(1, apart(before)), ...to);
  }

  #wheel(event) {
    event.preventDefault();
    const notch = event.deltaMode === 0 ? WHEEL_PX : event.deltaMode === 1 ? 3 : 1;
    if (event.ctrlKey) {
      const factor = Math.exp((-event.deltaY / notch) * 0.2);
      this.#on.zoom(factor, ...this.#place(event));
    } else {
      this.#on.touched();
      this.#scroll(event.deltaY / notch);
    }
  }

  #scroll(slices) {
    this.#rest += slices;
    const whole = Math.trunc(this.#rest);
    this.#rest -= whole;
    if (whole) this.#on.scroll(whole);
  }
}

function middle(points) {
  return [0, 1].map((axis) => (points[0][axis] + points[1][axis]) / 2);
}

function apart(points) {
  return Math.hypot(points[0][0] - points[1][0], points[0][1] - points[1][1]);
}
