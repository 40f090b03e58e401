// Sends files as parts: small ones together, large ones in pieces. Parts that fail for
// want of a connection are sent again until it is back; what the server has lost is
// sent anew. No name of a file ever leaves the browser.

import { Refusal, ask, askJson } from "./api.js";
import { sha256 } from "./sha256.js";

const HEADER = 24;
const IN_FLIGHT = 3;
const LONGEST_PAUSE_S = 30;
const GIVE_UP = 5; // answers in a row that say the server is in trouble

// Yields lists of {file, number, offset, length} that fill a part each.
export function* pack(files, partBytes) {
  let part = [];
  let room = partBytes;
  for (const { file, number } of files) {
    if (part.length && file.size + HEADER > room) {
      yield part;
      part = [];
      room = partBytes;
    }
    let offset = 0;
    do {
      const length = Math.min(file.size - offset, room - HEADER);
      part.push({ file, number, offset, length });
      room -= length + HEADER;
      offset += length;
      if (room <= HEADER) {
        yield part;
        part = [];
        room = partBytes;
      }
    } while (offset < file.size);
  }
  if (part.length) yield part;
}

export async function assemble(pieces) {
  const size = pieces.reduce((sum, piece) => sum + HEADER + piece.length, 0);
  const part = new Uint8Array(size);
  const view = new DataView(part.buffer);
  let place = 0;
  for (const { file, number, offset, length } of pieces) {
    view.setUint32(place, number);
    view.setBigUint64(place + 4, BigInt(offset));
    view.setBigUint64(place + 12, BigInt(file.size));
    view.setUint32(place + 20, length);
    const content = await file.slice(offset, offset + length).arrayBuffer();
    part.set(new Uint8Array(content), place + HEADER);
    place += HEADER + length;
  }
  return part;
}

// One upload. `changed` is called whenever `sent`, `waiting` or `state` is another.
export class Sender {
  constructor(files, priority, changed) {
    this.files = files.map((file, number) => ({ file, number }));
    this.priority = priority;
    this.changed = changed;
    this.total = files.reduce((sum, file) => sum + file.size, 0);
    this.sent = 0;
    this.state = "sending";
    this.isWaiting = false;
    this.parts = 0;
    this.stopper = new AbortController();
  }

  get isOver() {
    return this.state === "done" || this.state === "cancelled" || this.state === "refused";
  }

  // Returns what became of it; throws a Refusal where the server says no.
  async run() {
    try {
      const begun = await this.patiently(() =>
        askJson("POST", "/uploads", { priority: this.priority }));
      this.id = begun.id;
      this.partBytes = begun.part_bytes;
      await this.send(this.files);
      const result = await this.complete();
      this.tell("done");
      return result;
    } catch (error) {
      if (this.stopper.signal.aborted) {
        this.tell("cancelled");
        await this.discard();
        return null;
      }
      this.tell("refused");
      await this.discard();
      throw error;
    }
  }

  async cancel() {
    this.stopper.abort();
    this.tell("cancelled");
    await this.discard();
  }

  async discard() {
    if (!this.id) return;
    try {
      await ask("DELETE", `/uploads/${this.id}`);
    } catch {
      // Gone already, accepted already, or no connection: the server sweeps.
    }
  }

  async send(files) {
    const parts = pack(files, this.partBytes);
    const work = async () => {
      for (const pieces of parts) {
        const number = this.parts;
        this.parts += 1;
        await this.sendPart(number, pieces);
      }
    };
    await Promise.all(Array.from({ length: IN_FLIGHT }, work));
  }

  async sendPart(number, pieces) {
    const part = await assemble(pieces);
    const headers = { "X-SHA256": await sha256(part) };
    const path = `/uploads/${this.id}/parts/${number}`;
    await this.patiently(() => ask("PUT", path, part, headers));
    this.sent += pieces.reduce((sum, piece) => sum + piece.length, 0);
    this.changed();
  }

  async complete() {
    this.tell("completing");
    for (let attempt = 0; ; attempt += 1) {
      try {
        const path = `/uploads/${this.id}/complete`;
        return await this.patiently(() => askJson("POST", path, { parts: this.parts }));
      } catch (error) {
        if (error.status !== 409 || attempt === GIVE_UP) throw error;
        const there = await this.patiently(() => askJson("GET", `/uploads/${this.id}`));
        const again = new Set(there.unfinished);
        if (!again.size) throw error;
        const files = this.files.filter(({ number }) => again.has(number));
        this.sent -= files.reduce((sum, { file }) => sum + file.size, 0);
        this.tell("sending");
        await this.send(files);
        this.tell("completing");
      }
    }
  }

  // Tries again, with longer and longer pauses, until there is a connection.
  async patiently(work) {
    let troubles = 0;
    for (let pause = 1; ; pause = Math.min(2 * pause, LONGEST_PAUSE_S)) {
      this.stopper.signal.throwIfAborted();
      try {
        const answer = await work();
        this.wait(false);
        return answer;
      } catch (error) {
        const isTrouble = error instanceof Refusal && [500, 502, 504].includes(error.status);
        const isSignedOut = error instanceof Refusal && error.status === 401;
        troubles += isTrouble ? 1 : 0;
        const isLost = !(error instanceof Refusal) && error instanceof TypeError;
        if (!isLost && !isSignedOut && !(isTrouble && troubles < GIVE_UP)) throw error;
        this.wait(true);
        await this.pause(pause);
      }
    }
  }

  pause(seconds) {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        window.removeEventListener("online", done);
        this.stopper.signal.removeEventListener("abort", done);
        resolve();
      };
      const timer = setTimeout(done, 1000 * seconds);
      window.addEventListener("online", done);
      this.stopper.signal.addEventListener("abort", done);
    });
  }

  wait(isWaiting) {
    if (this.isWaiting === isWaiting) return;
    this.isWaiting = isWaiting;
    this.changed();
  }

  tell(state) {
    if (this.stopper.signal.aborted && state !== "cancelled") return;
    this.state = state;
    this.changed();
  }
}
