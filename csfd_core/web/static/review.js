// The reader's panel: answers, boxes, comment, signature, and what others have signed.
// Everything from outside goes into the page as text.

import { askJson, toast } from "./api.js";
import { NOTHING, changesOf, contentOf, isSameDraft } from "./review_content.js";
import { Draft } from "./review_draft.js";
import {
  boxLine,
  historyLine,
  listenToAnswers,
  newestOfOthers,
  showAnswer,
  showOthers,
  showPrediction,
  showSummary,
} from "./review_shown.js";
import { dayAndClock, join, outcomeInWords, savedInWords, told } from "./review_words.js";

const KEYS = { y: "fractured", n: "whole", u: "not_assessable" };

export async function openReview(root, viewer, { studyUid, version }) {
  const review = new Review(root, viewer, studyUid, version);
  await review.open();
  return review;
}

class Review {
  #root;
  #viewer;
  #path;
  #version;
  #levels;
  #boxes = [];
  #draft;
  #facts = null;
  #chosen = null;
  #stopDrawing = null;
  #isSigning = false;
  #hasDraft = false;
  #doesFileWait = null; // null: not known, as nothing was signed here

  constructor(root, viewer, studyUid, version) {
    this.#root = root;
    this.#viewer = viewer;
    this.#path = `/studies/${studyUid}`;
    this.#version = version;
    this.#levels = Object.fromEntries(this.#rows().map((row) => [row.dataset.level, null]));
    this.#draft = new Draft(
      studyUid,
      root.dataset.user,
      () => this.#form(),
      (savedAt, problem) => this.#tellSaved(savedAt, problem),
    );
  }

  async open() {
    this.#listen();
    this.#choose(this.#viewer.level ?? this.#rows()[0].dataset.level);
    await this.#load();
    this.#start();
    this.#show();
  }

  // Facts

  async #load() {
    this.#facts = await askJson("GET", `${this.#path}/review`);
    this.#hasDraft = this.#facts.draft !== null;
    this.#showFacts();
    if (this.#facts.blind) return;
    try {
      const note = await askJson("GET", `${this.#path}/prediction`);
      showPrediction(this.#place("overall"), this.#rows(), note);
    } catch (error) {
      if (error.status !== 404) throw error;
    }
  }

  // Begins from the draft, else from what this reader has signed last.
  #start() {
    const { draft } = this.#facts;
    const start = draft ?? this.#own();
    if (start) this.#take(start);
    if (draft) this.#tellSaved(draft.saved_at, null);
    const kept = this.#draft.unsaved;
    if (!kept || isSameDraft(kept, this.#form())) return;
    this.#place("offered").textContent =
      `This browser has kept changes of ${dayAndClock(kept.at)} that were not saved.`;
    this.#place("offer").hidden = false;
  }

  // What this reader has signed last of this version; null: nothing.
  #own() {
    const { reviews, version } = this.#facts ?? { reviews: [] };
    return reviews.filter((one) => one.is_mine && one.version === version).at(-1) ?? null;
  }

  // What differs from what is signed, in words.
  #changes() {
    return changesOf(this.#own() ?? NOTHING, this.#form());
  }

  #isSigned() {
    return this.#own() !== null && this.#changes().length === 0;
  }

  #take({ version, levels, boxes, comment }) {
    for (const name of Object.keys(this.#levels)) this.#levels[name] = levels[name] ?? null;
    const isOld = version !== this.#version;
    this.#boxes = isOld ? [] : contentOf({ levels, boxes }).boxes;
    if (isOld && boxes.length) {
      toast("This draft is of an earlier version: draw its boxes again.", "warn");
    }
    if (comment !== undefined) this.#place("comment").value = comment;
  }

  #form() {
    return {
      version: this.#version,
      levels: { ...this.#levels },
      boxes: this.#boxes,
      comment: this.#place("comment").value,
    };
  }

  // What the reader does

  #listen() {
    const acts = {
      take: () => this.#takeOffered(),
      leave: () => this.#leaveOffered(),
      rest: () => this.#answerRest(),
      box: () => this.#toggleBox(),
      sign: () => this.#askToSign(),
      clear: () => this.#askToClear(),
      drop: () => this.#clear(),
      keep: () => this.#root.querySelector("dialog.discarding").close(),
      confirm: () => this.#sign(),
      back: () => this.#dialog().close(),
    };
    for (const [name, act] of Object.entries(acts)) {
      this.#button(name).addEventListener("click", act);
    }
    for (const row of this.#rows()) this.#listenTo(row);
    this.#place("comment").addEventListener("input", () => {
      this.#draft.change();
      this.#hasDraft = true;
      this.#showStanding();
    });
    // The page's keys leave Enter to fields and buttons.
    this.#root.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
      if (this.#root.querySelector("dialog[open]")) return;
      event.preventDefault();
      this.#askToSign();
    });
    this.#viewer.on("level", (name) => this.#choose(name));
    const { keys } = this.#viewer;
    for (const [key, answer] of Object.entries(KEYS)) {
      keys.add(key, `Chosen level: ${told(answer)}`, () => this.#answer(this.#chosen, answer));
    }
    keys.add("r", "All others: not fractured", () => this.#answerRest());
    keys.add("b", "Draw a box on the chosen level", () => this.#toggleBox());
    keys.add("Ctrl+Enter", "Sign the review", () => this.#askToSign());
  }

  #listenTo(row) {
    const name = row.dataset.level;
    row.querySelector('[data-do="go"]').addEventListener("click", () => {
      this.#choose(name);
      this.#viewer.goToLevel(name);
      this.#viewer.reveal();
    });
    listenToAnswers(row, (answer, isMove) => this.#answer(name, answer, isMove));
  }

  #choose(name) {
    if (!(name in this.#levels)) return;
    this.#chosen = name;
    for (const row of this.#rows()) {
      row.classList.toggle("chosen", row.dataset.level === name);
    }
  }

  // The same answer again takes it back; arrows only move.
  #answer(name, answer, isMove = false) {
    this.#choose(name);
    const isSame = this.#levels[name] === answer && !isMove;
    this.#levels[name] = isSame ? null : answer;
    const own = this.#boxes.filter((box) => box.level === name);
    if (own.length && this.#levels[name] !== "fractured") {
      this.#boxes = this.#boxes.filter((box) => box.level !== name);
      toast(`The boxes of ${name} were removed: it is not fractured any more.`);
    }
    this.#changed();
  }

  #answerRest() {
    const open = Object.keys(this.#levels).filter((name) => !this.#levels[name]);
    if (!open.length) {
      toast("Every level is answered already.");
      return;
    }
    for (const name of open) this.#levels[name] = "whole";
    toast(`Marked not fractured: ${join(open)}.`);
    this.#changed();
  }

  #toggleBox() {
    if (this.#stopDrawing) {
      this.#stopDrawing();
      return;
    }
    const level = this.#chosen;
    this.#tellDrawing(`Draw around the fracture of ${level} on the axial plane.`);
    this.#stopDrawing = this.#viewer.beginBox((box) => {
      this.#stopDrawing = null;
      this.#tellDrawing("");
      if (!box) return;
      this.#boxes.push({ level, ...box });
      if (this.#levels[level] !== "fractured") {
        toast(`${level} is marked fractured, as there is a box in it.`);
      }
      this.#levels[level] = "fractured";
      this.#changed();
    });
  }

  #tellDrawing(text) {
    this.#place("drawing").textContent = text;
    this.#button("box").setAttribute("aria-pressed", String(text !== ""));
  }

  #takeOffered() {
    const kept = this.#draft.unsaved;
    this.#place("offer").hidden = true;
    if (!kept) return;
    this.#take(kept);
    this.#changed();
  }

  #leaveOffered() {
    this.#place("offer").hidden = true;
    this.#draft.forgetHere();
  }

  // A single answer is soon given again; more than that, or a comment, is not.
  #askToClear() {
    const changes = this.#changes();
    if (changes.length < 2 && !changes.includes("the comment")) {
      this.#clear();
      return;
    }
    this.#place("lost").textContent = `What you changed is lost: ${join(changes)}.`;
    this.#root.querySelector("dialog.discarding").showModal();
  }

  async #clear() {
    this.#root.querySelector("dialog.discarding").close();
    try {
      await this.#draft.drop();
      this.#place("saved").textContent = "";
      this.#facts = { ...this.#facts, draft: null };
      this.#hasDraft = false;
      for (const name of Object.keys(this.#levels)) this.#levels[name] = null;
      this.#boxes = [];
      this.#place("comment").value = "";
      this.#start();
      this.#show();
    } catch (error) {
      this.#draft.resume();
      toast(error.message, "bad");
    }
  }

  #askToSign() {
    if (this.#isSigning || this.#root.querySelector("dialog[open]")) return;
    if (this.#isSigned()) {
      toast("This is signed already. Change something to sign again.");
      return;
    }
    if (!Object.values(this.#levels).some(Boolean)) {
      toast("Say of at least one level what you see.", "warn");
      return;
    }
    showSummary(this.#dialog(), this.#levels, this.#boxes);
    this.#dialog().showModal();
    this.#button("confirm").focus();
  }

  async #sign() {
    if (this.#isSigning) return;
    this.#isSigning = true;
    this.#dialog().close();
    const wasBlind = this.#facts?.blind;
    try {
      await this.#draft.stop();
      const signed = await askJson("POST", `${this.#path}/sign`, this.#form());
      this.#draft.forgetHere();
      this.#place("saved").textContent = "";
      this.#place("offer").hidden = true;
      if (wasBlind) {
        location.reload(); // with what the model says, in the images as well
        return;
      }
      this.#doesFileWait = signed.label_file_waits;
      window.dispatchEvent(new CustomEvent("csfd:signed"));
      toast("Signed.", "good");
      await this.#load();
      this.#show();
    } catch (error) {
      this.#draft.resume();
      this.#draft.change(); // what was about to be saved
      toast(error.message, "bad");
    } finally {
      this.#draft.resume();
      this.#isSigning = false;
    }
  }

  #changed() {
    this.#hasDraft = true;
    this.#show();
    this.#draft.change();
  }

  // What is shown

  #show() {
    for (const row of this.#rows()) showAnswer(row, this.#levels[row.dataset.level]);
    const lines = this.#boxes.map((box, index) =>
      boxLine(box, () => this.#goTo(box), () => {
        this.#boxes.splice(index, 1);
        this.#changed();
      }),
    );
    this.#place("boxes").replaceChildren(...lines);
    this.#viewer.setBoxes(this.#boxes);
    this.#showStanding();
  }

  // What became of what was signed, and what can be done now.
  #showStanding() {
    const own = this.#own();
    const isSigned = this.#isSigned();
    this.#button("sign").disabled = isSigned;
    this.#button("clear").disabled = !this.#hasDraft;
    const line = this.#place("outcome");
    line.hidden = own === null;
    if (own === null) return;
    const { use } = this.#root.dataset;
    const outcome = outcomeInWords(own, this.#facts.reviews, use, this.#doesFileWait);
    const text = isSigned ? outcome : `${outcome} What you changed since is not signed.`;
    if (line.textContent !== text) line.textContent = text; // said aloud once
  }

  #goTo(box) {
    this.#choose(box.level);
    const depth = this.#viewer.facts?.shape_zyx[0] ?? 1;
    this.#viewer.scrollTo(box.slice_index / Math.max(1, depth - 1), "axial");
    this.#viewer.reveal();
  }

  #showFacts() {
    const { blind, has_signed, differ, reviews, version } = this.#facts;
    this.#place("blind").hidden = !blind;
    this.#place("standing").textContent = has_signed ? "signed by you" : "not signed by you";
    const disagreement = this.#place("differ");
    disagreement.hidden = !differ.length;
    disagreement.textContent = `Readers differ on ${join(differ)}.`;
    showOthers(this.#rows(), newestOfOthers(reviews, version), differ);
    this.#place("signed").hidden = !reviews.length;
    this.#place("count").textContent = String(reviews.length);
    const lines = [...reviews].reverse().map((one) => historyLine(one, version));
    this.#place("history").replaceChildren(...lines);
  }

  #tellSaved(savedAt, problem) {
    const place = this.#place("saved");
    place.classList.toggle("bad", problem !== null);
    place.textContent = savedInWords(savedAt, problem);
  }

  #rows() {
    return [...this.#root.querySelectorAll(".level")];
  }

  #place(name) {
    return this.#root.querySelector(`[data-place="${name}"]`);
  }

  #button(name) {
    return this.#root.querySelector(`[data-do="${name}"]`);
  }

  #dialog() {
    return this.#root.querySelector("dialog.signing");
  }
}
