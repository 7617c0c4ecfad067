"use strict";

/** An SVG element. */
function draw(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

Object.assign(METRICS, {
  residual: { name: "Residual", unit: "", digits: 3, meaning: "\u2016h\u2212y\u2016: what the distiller\u2019s prediction of the state misses, before the gate." },
  entropy: { name: "Entropy", unit: " nats", digits: 3, meaning: "Entropy of the distribution without steering: how open this step was." },
  cosine: { name: "Cosine", unit: "", digits: 3, meaning: "cos(e, w): whether the steering error points to the token that was drawn." },
  explained: { name: "Explained", unit: "", digits: 3, meaning: "Share of this state\u2019s variance that the distiller explains; below zero it is worse than the mean." },
});

/** Leaves in METRICS exactly those that are measured on this page; unknown ones get their name as label. */
function keepMetrics(measured) {
  for (const name of Object.keys(METRICS)) if (!measured.includes(name)) delete METRICS[name];
  for (const name of measured) {
    if (!Object.hasOwn(METRICS, name)) METRICS[name] = { name, unit: "", digits: 3, meaning: "" };
  }
}

/** Chunks: the packed samples of one problem and seed each. Only the last few chunks used are kept unpacked. */
class Chunks {
  static KEPT = 8;

  constructor() {
    this.kept = new Map();
  }

  get(block, item, seed) {
    const name = ["chunk", block, item, seed].join("-");
    const found = this.kept.get(name) || Chunks.unpacked(find(name).textContent);
    this.kept.delete(name);
    this.kept.set(name, found); // moves it to the end: the first entry is the least recently used
    if (this.kept.size > Chunks.KEPT) this.kept.delete(this.kept.keys().next().value);
    return found;
  }

  static unpacked(text) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).json();
  }
}

/** Fills a select with options; `chosen` is the index of the selected one. */
function fill(select, labels, chosen) {
  select.replaceChildren(...labels.map((label, place) => new Option(label, place, false, place === chosen)));
}

/** A column head with a button that sorts by this column. */
function sortHead(label, direction, sort) {
  const head = make("th");
  head.scope = "col";
  if (direction) head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
  const button = make("button", "sort");
  button.type = "button";
  button.append(...label, make("span", "way", direction > 0 ? "\u25b2" : direction < 0 ? "\u25bc" : "\u2195"));
  button.lastChild.setAttribute("aria-hidden", "true");
  button.addEventListener("click", sort);
  head.append(button);
  return head;
}

/** Order of two values; null comes last in either direction. */
function compare(a, b, direction) {
  const missing = (a === null) - (b === null);
  if (missing || a === null) return missing;
  return direction * (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b);
}
