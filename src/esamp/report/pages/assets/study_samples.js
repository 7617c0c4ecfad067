"use strict";

/** The two columns of samples: filter, order, and how much of each sample is shown. */
class Samples {
  static GRADES = { all: "all", right: "right", wrong: "wrong", none: "no answer", cut: "cut off" };
  static PLAIN = ["correct", "no answer"]; // reasons that repeat the grade
  static BATCH = 40; // samples of a column shown at first, and with each click on the button
  static TOKENS = 160; // tokens of a long sample shown at first
  static LETTERS = 700; // characters shown at first if the tokens are not stored

  constructor(box, tokens, onLook) {
    this.box = box;
    this.tokens = tokens;
    this.onLook = onLook; // called with the sample that is hovered or focused
    this.columns = [0, 1].map((side) => this.column(side));
    this.grade = "all";
    this.order = 0;
    this.orders = [
      ["as drawn", (sample) => sample.index, 1],
      ["longest first", (sample) => sample.count, -1],
      ["shortest first", (sample) => sample.count, 1],
      ["right first", (sample) => ["right", "wrong", "none", null].indexOf(sample.grade), 1],
      ["wrong first", (sample) => ["wrong", "none", "right", null].indexOf(sample.grade), 1],
      ["highest mean colour", (sample) => this.mean(sample), -1],
      ["lowest mean colour", (sample) => this.mean(sample), 1],
    ];
  }

  static words(sample) {
    const grade = { right: "\u2713 right", wrong: "\u2717 wrong", none: "\u2205 no answer" }[sample.grade] || "not graded";
    return sample.cut ? grade + ", cut off" : grade;
  }

  static text(sample) {
    return sample.pieces ? sample.pieces.join("") : sample.text || "";
  }

  column(side) {
    const name = make("h4", ["one", "two"][side]);
    const column = { name, tally: make("p", "tally"), list: make("ol", "samples"), none: make("p", "empty"), more: make("button", "more") };
    name.id = "arm-" + side;
    column.more.type = "button";
    column.more.addEventListener("click", () => {
      const from = column.list.children.length;
      this.add(side, from, from + Samples.BATCH);
      column.list.children[from].focus();
    });
    const box = make("section", "arm");
    box.setAttribute("aria-labelledby", name.id);
    box.append(name, column.tally, column.list, column.more, column.none);
    this.box.append(box);
    return column;
  }

  /** Mean of the chosen metric over the measured tokens of a sample; null if there are none. */
  mean(sample) {
    const values = this.traceOf(sample).filter((value) => value !== null);
    return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
  }

  traceOf(sample) {
    const place = this.block.metrics.findIndex(([name]) => name === this.tokens.metric);
    return (sample.traces && sample.traces[place]) || [];
  }

  visible(sample) {
    return this.grade === "all" || (this.grade === "cut" ? sample.cut : sample.grade === this.grade);
  }

  show(block, shown, chunk) {
    Object.assign(this, { block, shown, chunk });
    const focused = this.focused();
    this.tokens.clear();
    Tokens.LONG = find("whole").checked ? Infinity : Samples.TOKENS;
    this.columns.forEach((_, side) => this.showColumn(side));
    if (focused) this.restoreFocus(focused);
  }

  /** The sample that has the focus, and the index of the focused token in it. */
  focused() {
    const item = document.activeElement.closest(".sample");
    const column = item && this.columns.find(({ list }) => list.contains(item));
    if (!column) return null;
    const span = Tokens.at(document.activeElement);
    return { sample: column.kept[[...column.list.children].indexOf(item)], at: span ? Number(span.dataset.at) : null };
  }

  /** Returns the focus to the sample and token that had it before the columns were drawn again, if they still exist. */
  restoreFocus({ sample, at }) {
    for (const { list, kept } of this.columns) {
      const item = list.children[kept.indexOf(sample)];
      if (!item) continue;
      (item.querySelectorAll(".token")[at] || item).focus({ preventScroll: true });
      return;
    }
  }

  showColumn(side) {
    const column = this.columns[side];
    const samples = this.chunk.arms[this.shown.arms[side]];
    const [, value, direction] = this.orders[this.order];
    column.kept = samples.filter((sample) => this.visible(sample))
      .sort((a, b) => compare(value(a), value(b), direction) || a.index - b.index);
    column.name.replaceChildren(make("span", "sign", ["\u25cf", "\u25c6"][side]), isolated("", this.block.arms[this.shown.arms[side]]));
    column.name.firstChild.setAttribute("aria-hidden", "true");
    column.tally.textContent = this.tally(samples);
    column.list.replaceChildren();
    column.list.hidden = !column.kept.length;
    column.none.hidden = column.kept.length > 0;
    column.none.textContent = this.grade === "all" ? "No samples." : "None of these samples: " + Samples.GRADES[this.grade] + ".";
    this.add(side, 0, Samples.BATCH);
  }

  tally(samples) {
    const count = (grade) => samples.filter((sample) => sample.grade === grade).length;
    const cut = samples.filter((sample) => sample.cut).length;
    const parts = [several(samples.length, "sample")];
    if (this.block.graded) {
      const answers = new Set(samples.filter((sample) => sample.grade === "right" && sample.canonical).map((sample) => sample.canonical)).size;
      parts[0] = count("right") + " of " + samples.length + " right";
      if (answers) parts.push(several(answers, "different right answer"));
      if (count("none")) parts.push(count("none") + " without an answer");
    }
    if (cut) parts.push(cut + " cut off");
    const unmeasured = samples.length && this.tokens.metric && this.block.metrics.length && samples.every((sample) => this.mean(sample) === null);
    return parts.join(", ") + "." + (unmeasured ? " " + METRICS[this.tokens.metric].name + " was not measured here." : "");
  }

  add(side, from, to) {
    const { list, kept, more } = this.columns[side];
    list.append(...kept.slice(from, to).map((sample) => this.item(sample)));
    const rest = kept.length - list.children.length;
    more.hidden = rest <= 0;
    more.textContent = "Show " + Math.min(rest, Samples.BATCH) + " more of " + several(rest, "sample");
  }

  item(sample) {
    const item = make("li", "sample");
    item.tabIndex = -1;
    item.addEventListener("pointerenter", () => this.onLook(sample));
    item.addEventListener("focusin", () => this.onLook(sample));
    const head = make("p", "head");
    head.append(make("span", "number", "#" + (sample.index + 1)));
    if (sample.grade) {
      const words = { right: "\u2713 right", wrong: "\u2717 wrong", none: "\u2205 no answer" }[sample.grade];
      head.append(make("span", "grade " + sample.grade, words));
    }
    if (sample.cut) head.append(make("span", "cut", "\u2702 cut off"));
    if (sample.answer) head.append(isolated("answer", sample.answer));
    if (sample.reason && !Samples.PLAIN.includes(sample.reason)) head.append(isolated("reason", sample.reason));
    head.append(make("span", "count", several(sample.count, "token") + this.meanWords(sample)));
    item.append(head);
    if (!this.block.private) item.append(...this.body(sample));
    return item;
  }

  meanWords(sample) {
    const mean = this.mean(sample);
    const metric = METRICS[this.tokens.metric];
    return mean === null ? "" : ", mean " + metric.name.split(" ")[0].toLowerCase() + " " + mean.toFixed(2);
  }

  body(sample) {
    if (!sample.pieces) return this.plain(sample);
    const traced = { tokens: sample.pieces, "": [] };
    for (const name of Object.keys(METRICS)) traced[name] = [];
    this.block.metrics.forEach(([name], place) => { traced[name] = sample.traces[place]; });
    const usual = Tokens.LONG;
    if (sample.pieces.length <= 1.25 * usual) Tokens.LONG = Infinity; // not worth a button for a few more tokens
    const elements = this.tokens.elements(traced, sample.index + 1);
    Tokens.LONG = usual;
    return elements;
  }

  plain(sample) {
    const text = make("p", "tokens");
    text.dir = "auto";
    const letters = Array.from(sample.text);
    const short = Tokens.LONG === Infinity || letters.length <= 1.25 * Samples.LETTERS;
    text.textContent = short ? sample.text : letters.slice(0, Samples.LETTERS).join("") + "\u2026";
    if (short) return [text];
    const more = make("button", "more", "Show all of it");
    more.type = "button";
    more.setAttribute("aria-expanded", "false");
    more.addEventListener("click", () => {
      const open = more.getAttribute("aria-expanded") === "false";
      more.setAttribute("aria-expanded", String(open));
      more.textContent = open ? "Show less" : "Show all of it";
      text.textContent = open ? sample.text : letters.slice(0, Samples.LETTERS).join("") + "\u2026";
    });
    return [text, more];
  }

  /** Scrolls to a sample and focuses it. */
  open(side, sample) {
    const { list, kept } = this.columns[side];
    const at = kept.indexOf(sample);
    if (at < 0) return;
    if (at >= list.children.length) this.add(side, list.children.length, at + 1);
    list.children[at].focus({ preventScroll: true });
    list.children[at].scrollIntoView({ block: "center" });
  }
}
