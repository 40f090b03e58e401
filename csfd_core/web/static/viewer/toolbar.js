// Buttons and keys of the viewer: each says what it does and whether it is on.

export function addKeys(viewer) {
  const add = (key, description, act) => viewer.keys.add(key, description, act);
  add("ArrowUp", "Slice before", () => viewer.scroll(-1));
  add("ArrowDown", "Slice after", () => viewer.scroll(1));
  add("PageUp", "Ten slices before", () => viewer.scroll(-10));
  add("PageDown", "Ten slices after", () => viewer.scroll(10));
  add("Home", "First slice", () => viewer.scrollTo(0));
  add("End", "Last slice", () => viewer.scrollTo(1));
  add("ArrowLeft", "Previous level", () => viewer.nextLevel(-1));
  add("ArrowRight", "Next level", () => viewer.nextLevel(1));
  add("f", "Next finding", () => viewer.nextFinding());
  add("1", "Bone window", () => viewer.setWindow("bone"));
  add("2", "Wide bone window", () => viewer.setWindow("wide"));
  add("3", "Soft tissue window", () => viewer.setWindow("soft"));
  add("4", "Brain window", () => viewer.setWindow("brain"));
  add("5", "Lung window", () => viewer.setWindow("lung"));
  add("0", "Reset the window", () => viewer.setWindow("bone"));
  add("i", "Invert", () => viewer.invert());
  add("m", "Mask", () => viewer.toggle("mask"));
  add("h", "Heatmap", () => viewer.toggle("heat"));
  add("l", "Names of the levels", () => viewer.toggle("labels"));
  add("c", "Crosshair", () => viewer.toggle("cross"));
  add("a", "Enlarge the axial plane", () => viewer.enlarge("axial"));
  add("s", "Enlarge the sagittal plane", () => viewer.enlarge("sagittal"));
  add("d", "Enlarge the coronal plane", () => viewer.enlarge("coronal"));
  add(" ", "Reset window, zoom and place", () => viewer.reset());
  add("Escape", "Stop drawing a box", () => viewer.stopBox());
  add("?", "List of the keys", () => viewer.keys.showHelp());
}

export class Toolbar {
  #root;
  #viewer;

  constructor(root, viewer) {
    this.#root = root;
    this.#viewer = viewer;
    const press = {
      window: (name) => viewer.setWindow(name),
      show: (name) => viewer.toggle(name),
      enlarge: (name) => viewer.enlarge(name),
      level: (step) => viewer.nextLevel(Number(step)),
      do: (name) =>
        ({
          invert: () => viewer.invert(),
          reset: () => viewer.reset(),
          finding: () => viewer.nextFinding(),
          keys: () => viewer.keys.showHelp(),
        })[name](),
    };
    for (const [kind, act] of Object.entries(press)) {
      for (const button of root.querySelectorAll(`button[data-${kind}]`)) {
        button.addEventListener("click", () => act(button.dataset[kind]));
      }
    }
    this.#change("opacity", (value) => viewer.setOpacity(Number(value) / 100));
    this.#change("slab", (value) => viewer.setSlab({ mm: Number(value) }));
    this.#change("mode", (value) => viewer.setSlab({ mode: value }));
    this.#enable('[data-show="mask"]', viewer.facts.has_mask);
    this.#enable('[data-show="labels"]', viewer.facts.levels.length > 0);
    this.#enable('[data-show="heat"]', viewer.facts.has_heat);
    this.#enable("[data-level]", viewer.facts.levels.length > 0);
    this.#enable('[data-do="finding"]', viewer.findings.length > 0);
  }

  #enable(selector, isThere) {
    for (const button of this.#root.querySelectorAll(selector)) {
      button.disabled = !isThere;
    }
  }

  #change(name, act) {
    const field = this.#root.querySelector(`[data-field="${name}"]`);
    let isPointed = false;
    field.addEventListener("pointerdown", () => {
      isPointed = true;
    });
    field.addEventListener("keydown", () => {
      isPointed = false;
    });
    field.addEventListener("input", () => act(field.value));
    // So that the next key is the viewer's; who uses the keyboard stays in the field.
    field.addEventListener("change", () => isPointed && field.blur());
  }

  update() {
    const viewer = this.#viewer;
    this.#mark("window", (name) => viewer.window.preset === name);
    this.#mark("show", (name) => viewer.shows[name]);
    const { enlarged } = this.#root.querySelector(".panes").dataset;
    this.#mark("enlarge", (name) => enlarged === name);
    this.#mark("do", (name) => name === "invert" && viewer.isInverted, "invert");
  }

  #mark(kind, isOn, only = null) {
    for (const button of this.#root.querySelectorAll(`button[data-${kind}]`)) {
      if (only && button.dataset[kind] !== only) continue;
      const pressed = String(Boolean(isOn(button.dataset[kind])));
      if (button.getAttribute("aria-pressed") !== pressed) {
        button.setAttribute("aria-pressed", pressed);
      }
    }
  }
}
