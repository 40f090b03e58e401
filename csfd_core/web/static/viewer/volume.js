// Loading and holding a study: the JPEGs of the bone window first, Hounsfield units
// later; mask and heat as the box that holds all of them.
//
// Each slice is held once: when its Hounsfield units are there, its grey levels go.

import { ask, Refusal } from "../api.js";
import { decodeGrey } from "./decode.js";
import { hounsfieldOfGrey, nearestFirst, partsOf } from "./slicing.js";

const PART = 16; // slices of a request; the server sends no more Hounsfield units
const LANES = 2; // requests at once
const LONGEST_WAIT_S = 15;

// Asks until there is an answer. A lost connection is told and tried again; a refusal is
// thrown. `told`: called with a sentence, and with "" when all is well again.
export async function persist(path, told, isStopped = () => false) {
  for (let wait = 1; ; wait = Math.min(LONGEST_WAIT_S, wait * 2)) {
    try {
      const response = await ask("GET", path);
      const content = await response.arrayBuffer();
      told("");
      return { content, headers: response.headers };
    } catch (error) {
      const isFinal = error instanceof Refusal && error.status < 500;
      if (isFinal || isStopped()) throw error;
      told(`The connection is lost. It is tried again in ${wait} s.`);
      await new Promise((resolve) => setTimeout(resolve, wait * 1000));
      if (isStopped()) throw error;
    }
  }
}

export class Decoder {
  #waiting = new Map();
  #worker = null;

  constructor() {
    if (typeof Worker === "undefined" || typeof OffscreenCanvas === "undefined") return;
    this.#worker = new Worker(new URL("./decoder.js", import.meta.url), {
      type: "module",
    });
    this.#worker.onmessage = ({ data }) => this.#settle(data);
    this.#worker.onerror = () => this.#fallBack();
  }

  decode(index, jpeg) {
    if (!this.#worker) return decodeGrey(jpeg);
    return new Promise((resolve, reject) => {
      this.#waiting.set(index, { jpeg, resolve, reject });
      this.#worker.postMessage({ index, jpeg });
    });
  }

  stop() {
    this.#worker?.terminate();
    this.#waiting.clear();
  }

  #settle({ index, grey }) {
    const one = this.#waiting.get(index);
    this.#waiting.delete(index);
    if (grey) one?.resolve(grey);
    else one?.reject(new Error("A slice cannot be decoded."));
  }

  #fallBack() {
    this.#worker.terminate();
    this.#worker = null;
    for (const one of this.#waiting.values()) {
      decodeGrey(one.jpeg).then(one.resolve, one.reject);
    }
    this.#waiting.clear();
  }
}

export class Volume {
  #path;
  #content; // of the slices: what comes must be of these
  #decoder;
  #told;
  #isStopped = false;
  #hounsfield = null; // the promise of them
  #greyParts = []; // large buffers: the browser gives these back when they are let go

  // `told(sentence)`: of the connection; `changed(slices)`: some have come.
  constructor(studyUid, geometry, decoder, { told, changed }) {
    this.#path = `/studies/${studyUid}`;
    this.#content = geometry.content_hash;
    this.#decoder = decoder;
    this.#told = told;
    this.changed = changed;
    this.shape = geometry.shape_zyx;
    const { center_hu: center, width_hu: width } = geometry.window;
    this.fromGrey = hounsfieldOfGrey(center, width);
    this.grey = new Array(this.shape[0]).fill(null);
    this.hu = new Array(this.shape[0]).fill(null);
    this.mask = null;
    this.heat = null;
  }

  get depth() {
    return this.shape[0];
  }

  get shown() {
    return this.hu.filter((one, z) => one || this.grey[z]).length;
  }

  get exact() {
    return this.hu.filter(Boolean).length;
  }

  // Loads the grey levels of all slices, `first` before any other, then those nearest to
  // what `focus()` says is looked at.
  async loadGrey(first, focus) {
    await this.#loadFrames({ start: first, stop: first + 1 });
    await this.#inLanes(focus, (part) => this.#loadFrames(part));
    this.#decoder.stop(); // it is not needed any more, and holds memory
  }

  // Loads the Hounsfield units of all slices; asked for twice, they are loaded once.
  loadHounsfield(focus) {
    this.#hounsfield ??= this.#inLanes(focus, (part) => this.#loadVolume(part)).catch(
      (error) => {
        this.#hounsfield = null;
        throw error;
      },
    );
    return this.#hounsfield;
  }

  async loadMask() {
    this.mask = await this.#loadPart("mask");
  }

  async loadHeat() {
    this.heat = await this.#loadPart("heat");
  }

  stop() {
    this.#isStopped = true;
    this.#decoder.stop();
    this.#greyParts = [];
    this.grey.fill(null);
    this.hu.fill(null);
    this.mask = null;
    this.heat = null;
  }

  async #inLanes(focus, load) {
    const waiting = new Set(partsOf(this.depth, PART));
    const lane = async () => {
      while (waiting.size && !this.#isStopped) {
        const part = nearestFirst(waiting, focus());
        waiting.delete(part);
        await load(part);
      }
    };
    await Promise.all(Array.from({ length: LANES }, lane));
  }

  #get(what) {
    const same = `${what.includes("?") ? "&" : "?"}content_hash=${this.#content}`;
    return persist(`${this.#path}/${what}${same}`, this.#told, () => this.#isStopped);
  }

  async #loadFrames({ start, stop }) {
    const isThere = (z) => this.grey[z] || this.hu[z];
    let [first, last] = [start, stop];
    while (first < last && isThere(first)) first += 1;
    while (last > first && isThere(last - 1)) last -= 1;
    if (first === last) return;
    const { content } = await this.#get(`frames?start=${first}&stop=${last}`);
    const view = new DataView(content);
    const decoding = [];
    for (let at = 0; at < content.byteLength; ) {
      const [index, length] = [view.getUint32(at), view.getUint32(at + 4)];
      const jpeg = content.slice(at + 8, at + 8 + length);
      at += 8 + length;
      decoding.push(
        this.#decoder.decode(index, jpeg).then((grey) => this.#take(index, grey)),
      );
    }
    await Promise.all(decoding);
  }

  #take(index, grey) {
    if (this.#isStopped || this.hu[index]) return;
    const [, height, width] = this.shape;
    const size = height * width;
    const part = Math.floor(index / PART);
    const slices = Math.min(PART, this.depth - part * PART);
    this.#greyParts[part] ??= new Uint8Array(slices * size);
    const at = (index - part * PART) * size;
    this.grey[index] = this.#greyParts[part].subarray(at, at + size);
    this.grey[index].set(grey);
    this.changed([index]);
  }

  async #loadVolume({ start, stop }) {
    const { content } = await this.#get(`volume?start=${start}&stop=${stop}`);
    if (this.#isStopped) return;
    const values = new Int16Array(content);
    const size = this.shape[1] * this.shape[2];
    const come = [];
    this.#greyParts[start / PART] = null;
    for (let z = start; z < stop; z += 1) {
      this.hu[z] = values.subarray((z - start) * size, (z - start + 1) * size);
      this.grey[z] = null;
      come.push(z);
    }
    this.changed(come);
  }

  async #loadPart(name) {
    const { content, headers } = await this.#get(`${name}?cropped=true`);
    const ends = headers.get("X-Volume-Box").split(",").map(Number);
    const box = [ends.slice(0, 2), ends.slice(2, 4), ends.slice(4, 6)];
    return { box, data: new Uint8Array(content) };
  }
}
