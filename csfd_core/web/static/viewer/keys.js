// Keys of the page: what each does, how a reader changes it, and the list of them.
//
// A key is told as `event.key` does, small letters, with "Ctrl+" or "Alt+" before it.
// What a reader has changed is kept by user: /api/v1/me/keys, {"keys": {action: key}}.

import { askJson, toast } from "../api.js";

const NAMES = {
  " ": "Space",
  ArrowUp: "↑",
  ArrowDown: "↓",
  ArrowLeft: "←",
  ArrowRight: "→",
  PageUp: "PgUp",
  PageDown: "PgDn",
};
const FIELDS = "input, textarea, select, [contenteditable]";
const PRESSED = "button, a, summary, [role=button]"; // Space and Enter are theirs

export function keyOf(event) {
  const plain = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const control = event.ctrlKey || event.metaKey ? "Ctrl+" : "";
  return `${control}${event.altKey ? "Alt+" : ""}${plain}`;
}

export function nameOf(key) {
  const [, before, last] = /^((?:Ctrl\+)?(?:Alt\+)?)([^]+)$/.exec(key);
  return before + (NAMES[last] || (last.length === 1 ? last.toUpperCase() : last));
}

export class Keys {
  #actions = new Map(); // name -> { standard, key, description, act }
  #changed = {};
  #dialog;
  #waiting = null; // name of the action whose key is being changed
  #listener = (event) => this.#press(event);

  constructor(dialog) {
    this.#dialog = dialog;
    document.addEventListener("keydown", this.#listener);
    dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
    dialog.querySelector("[data-standard]").addEventListener("click", () => {
      this.#changed = {};
      this.#keep();
    });
    dialog.addEventListener("close", () => {
      this.#waiting = null;
    });
  }

  // Reads what the reader has changed; without an answer the standard keys hold.
  async load() {
    try {
      this.#changed = (await askJson("GET", "/me/keys")).keys;
    } catch {
      this.#changed = {};
    }
    this.#apply();
  }

  // Adds an action; returns a function that removes it. What is asked for twice by
  // readers (two actions on one key) belongs to the action that came first.
  add(key, description, act) {
    const name = description.toLowerCase().replace(/[^a-z0-9]+/g, "-").slice(0, 40);
    const action = { standard: key, key, description, act };
    action.key = this.#changed[name] || key;
    this.#actions.set(name, action);
    return () => this.#actions.delete(name);
  }

  showHelp() {
    this.#list();
    if (!this.#dialog.open) this.#dialog.showModal();
  }

  stop() {
    document.removeEventListener("keydown", this.#listener);
  }

  #press(event) {
    if (this.#waiting) {
      this.#change(event);
      return;
    }
    const target = event.target instanceof Element ? event.target : document.body;
    const key = keyOf(event);
    if (document.querySelector("dialog[open]")) return;
    if (target.closest(FIELDS) && !isRange(target)) return;
    if (isRange(target) && event.key.startsWith("Arrow")) return;
    if (target.closest(PRESSED) && [" ", "Enter"].includes(event.key)) return;
    for (const action of this.#actions.values()) {
      if (action.key !== key) continue;
      event.preventDefault();
      action.act(event);
      return;
    }
  }

  #change(event) {
    event.preventDefault();
    event.stopPropagation();
    if (["Shift", "Control", "Alt", "Meta"].includes(event.key)) return;
    const name = this.#waiting;
    this.#waiting = null;
    if (event.key !== "Escape") {
      const key = keyOf(event);
      const own = this.#actions.get(name);
      for (const [other, action] of this.#actions) {
        if (action.key === key && other !== name) this.#changed[other] = own.key;
      }
      this.#changed[name] = key;
      this.#keep();
    }
    this.#list();
  }

  #apply() {
    for (const [name, action] of this.#actions) {
      const own = this.#changed[name];
      action.key = typeof own === "string" && own ? own : action.standard;
    }
  }

  #keep() {
    for (const [name, action] of this.#actions) {
      if (this.#changed[name] === action.standard) delete this.#changed[name];
    }
    this.#apply();
    this.#list();
    askJson("PUT", "/me/keys", { keys: this.#changed }).catch((error) =>
      toast(`The keys are not kept: ${error.message}`, "bad"),
    );
  }

  #list() {
    const body = this.#dialog.querySelector("tbody");
    body.replaceChildren(
      ...[...this.#actions].map(([name, action]) => {
        const row = document.createElement("tr");
        const told = document.createElement("td");
        told.textContent = action.description;
        const cell = document.createElement("td");
        const button = document.createElement("button");
        button.type = "button";
        button.className = "quiet key";
        button.textContent = nameOf(action.key);
        button.setAttribute(
          "aria-label",
          `${action.description}: ${nameOf(action.key)}. Change this key`,
        );
        button.addEventListener("click", () => {
          this.#waiting = name;
          button.textContent = "press a key";
        });
        cell.append(button);
        row.append(told, cell);
        return row;
      }),
    );
  }
}

function isRange(target) {
  return target instanceof HTMLInputElement && target.type === "range";
}
