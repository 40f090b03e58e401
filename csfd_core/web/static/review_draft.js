// Drafts: saved by themselves on the server, and kept in this browser until they are.
//
// The browser keeps levels and boxes, by user and study, and never the comment. What a
// session that ended could not save is offered again.

import { askJson } from "./api.js";

const WAIT_MS = 800; // after the last change
const AGAIN_MS = 10000; // where the server could not be reached
const SIGNED_OUT_MS = 60000; // where the session has ended

export class Draft {
  #path;
  #key;
  #read;
  #tell;
  #timer = 0;
  #sending = Promise.resolve();
  #isStopped = false;

  // `read` returns {version, levels, boxes, comment}; `tell(savedAt, problem)` is told
  // what became of it.
  constructor(studyUid, user, read, tell) {
    this.#path = `/studies/${studyUid}/draft`;
    this.#key = `csfd:draft:${user}:${studyUid}`;
    this.#read = read;
    this.#tell = tell;
    document.addEventListener("visibilitychange", () => {
      if (document.hidden && this.#timer) this.#send();
    });
  }

  // What this browser has and the server has not; null where there is nothing.
  get unsaved() {
    try {
      const kept = JSON.parse(localStorage.getItem(this.#key));
      return kept && Array.isArray(kept.boxes) && kept.levels ? kept : null;
    } catch {
      return null; // no storage, or of another origin
    }
  }

  change() {
    const { version, levels, boxes } = this.#read();
    this.#keep({ version, levels, boxes, at: Date.now() });
    this.#schedule(WAIT_MS);
  }

  // Ends saving for good, as before signing; resolves once nothing is under way.
  async stop() {
    this.#isStopped = true;
    clearTimeout(this.#timer);
    this.#timer = 0;
    await this.#sending;
  }

  resume() {
    this.#isStopped = false;
  }

  forgetHere() {
    try {
      localStorage.removeItem(this.#key);
    } catch {
      // no storage: nothing was kept
    }
  }

  async drop() {
    await this.stop();
    this.forgetHere();
    await askJson("DELETE", this.#path);
    this.resume();
  }

  #keep(content) {
    try {
      localStorage.setItem(this.#key, JSON.stringify(content));
    } catch {
      // no storage: the server alone keeps it
    }
  }

  #schedule(wait) {
    clearTimeout(this.#timer);
    if (!this.#isStopped) this.#timer = setTimeout(() => this.#send(), wait);
  }

  #send() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#sending = this.#sending.then(() => this.#put());
  }

  async #put() {
    const sent = this.#read();
    try {
      const { saved_at } = await askJson("PUT", this.#path, sent);
      if (!this.#timer) this.forgetHere(); // nothing was changed meanwhile
      this.#tell(saved_at, null);
    } catch (error) {
      this.#tell(null, error);
      // Until the session is there again, or the network; what is wrong stays wrong.
      const isSignedOut = error.status === 401;
      if (this.#timer) return; // a further change is on its way
      if (isSignedOut) this.#schedule(SIGNED_OUT_MS);
      else if (error.status === undefined || error.status >= 500) this.#schedule(AGAIN_MS);
    }
  }
}
