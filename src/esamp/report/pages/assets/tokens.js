"use strict";

/** The tokens of all samples shown: their colours, and a tip with the numbers of the token hovered or focused. */
class Tokens {
  static LONG = 1500; // tokens of a sample shown at first

  constructor(colouring, area, tip) {
    this.colouring = colouring;
    this.tip = tip;
    this.metric = "novelty";
    this.samples = new Map(); // element with a sample's text -> sample
    this.active = null; // the token whose tip is shown
    area.addEventListener("pointerover", (event) => this.point(Tokens.at(event.target)));
    area.addEventListener("pointerout", () => this.point(Tokens.at(document.activeElement)));
    area.addEventListener("focusin", (event) => this.focus(Tokens.at(event.target)));
    area.addEventListener("focusout", () => this.point(null));
    window.addEventListener("scroll", () => this.place(), { passive: true });
    window.addEventListener("resize", () => this.place());
  }

  /** The token element that contains a node, or null. */
  static at(node) {
    return node instanceof Element ? node.closest(".token") : null;
  }

  clear() {
    this.point(null);
    this.samples.clear();
  }

  /** The elements of a sample: its text, and a button that shows the rest if the text is long. */
  elements(sample, number) {
    const text = make("p", "tokens");
    text.dir = "auto";
    text.setAttribute("role", "group");
    text.setAttribute("aria-label", "Text of sample " + number + ", " + sample.tokens.length + " tokens");
    this.samples.set(text, sample);
    this.add(text, sample, 0, Math.min(Tokens.LONG, sample.tokens.length));
    const rest = sample.tokens.length - Tokens.LONG;
    if (rest <= 0) return [text];
    const more = make("button", "more", "Show " + rest + " more tokens");
    more.type = "button";
    more.addEventListener("click", () => {
      this.add(text, sample, Tokens.LONG, sample.tokens.length);
      text.children[Tokens.LONG].focus();
      more.remove();
    });
    return [text, more];
  }

  add(text, sample, from, to) {
    const batch = document.createDocumentFragment();
    for (let at = from; at < to; at++) {
      const span = make("span", "", sample.tokens[at]);
      span.dataset.at = at;
      span.tabIndex = at === 0 ? 0 : -1; // one tab stop per sample; arrow keys move inside it
      this.paint(span, sample);
      batch.append(span);
    }
    text.append(batch);
  }

  paint(span, sample) {
    const colour = this.colouring.colour(this.metric, sample[this.metric][Number(span.dataset.at)]);
    span.className = "token" + (span.textContent ? "" : " blank") + (colour && " " + colour);
  }

  recolour(metric) {
    this.metric = metric;
    for (const [text, sample] of this.samples) for (const span of text.children) this.paint(span, sample);
  }

  /** Moves the focus within a sample, if the key does that; returns whether it does. */
  move(span, key) {
    const spans = span.parentElement.children;
    const at = Number(span.dataset.at);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: spans.length - 1 }[key];
    if (to === undefined) return false;
    if (spans[to]) spans[to].focus();
    return true;
  }

  focus(span) {
    if (!span) return;
    for (const other of span.parentElement.querySelectorAll('[tabindex="0"]')) other.tabIndex = -1;
    span.tabIndex = 0;
    this.point(span);
  }

  /** Shows the tip of a token; null hides it. */
  point(span) {
    if (this.active) this.active.removeAttribute("aria-describedby");
    this.active = span;
    this.tip.hidden = !span;
    if (!span) return;
    const sample = this.samples.get(span.parentElement);
    const at = Number(span.dataset.at);
    const rows = [["Token", at + 1 + " of " + sample.tokens.length]];
    for (const metric of Object.keys(METRICS)) {
      if (sample[metric].length) rows.push([METRICS[metric].name, Colouring.words(metric, sample[metric][at])]);
    }
    const list = make("dl");
    for (const [name, value] of rows) list.append(make("dt", "", name), make("dd", "", value));
    this.tip.replaceChildren(make("p", "", Tokens.visible(sample.tokens[at])), list);
    span.setAttribute("aria-describedby", this.tip.id);
    this.place();
  }

  /** Puts the tip below its token, or above if there is no room; hides it while the token is scrolled out of view. */
  place() {
    if (!this.active) return;
    const box = this.active.getClientRects()[0] || this.active.getBoundingClientRect();
    this.tip.hidden = box.bottom < 0 || box.top > window.innerHeight;
    const { offsetWidth: width, offsetHeight: height } = this.tip;
    const top = box.bottom + 8 + height > window.innerHeight ? box.top - height - 8 : box.bottom + 8;
    const left = Math.min(box.left, document.documentElement.clientWidth - width - 8);
    this.tip.style.top = Math.max(8, top) + "px";
    this.tip.style.left = Math.max(8, left) + "px";
  }

  static visible(token) {
    return token.replace(/ /g, "\u2423").replace(/\r?\n/g, "\u21b5").replace(/\t/g, "\u21e5") || "(no text)";
  }
}
