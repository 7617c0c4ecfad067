"use strict";

const find = (id) => document.getElementById(id);
const several = (count, noun) => count.toLocaleString("en") + " " + noun + (count === 1 ? "" : "s");

/** A line of text that keeps to its own direction, whatever characters are in it. */
const isolated = (name, text) => make("bdi", name, text);

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

/** Where the colours of each per-token measurement begin and end, the same in all problems and methods. */
class Scale {
  constructor(metrics) {
    this.ends = new Map(metrics.map(([name, low, high]) => [name, [low, high]]));
    for (const name of Object.keys(METRICS)) if (!this.ends.has(name)) delete METRICS[name];
    for (const [name] of metrics) {
      if (!Object.hasOwn(METRICS, name)) METRICS[name] = { name, unit: "", digits: 3, meaning: "" };
    }
  }

  /** Class of the colour of a value, or "" for one that was not measured. */
  colour(metric, value) {
    if (value === null || value === undefined || !this.ends.has(metric)) return "";
    const [low, high] = this.ends.get(metric);
    const share = high > low ? (value - low) / (high - low) : 0;
    return "h" + Math.max(0, Math.min(Heat.STEPS - 1, Math.floor(share * Heat.STEPS)));
  }

  /** Labels of the steps: each one's lower bound. */
  bounds(metric) {
    const [low, high] = this.ends.get(metric);
    return Array.from({ length: Heat.STEPS }, (_, step) => {
      const bound = Number((low + ((high - low) * step) / Heat.STEPS).toPrecision(2));
      return bound + (step === Heat.STEPS - 1 ? " +" : "");
    });
  }
}

/** The samples of a problem and seed: packed in blocks of their own, and only the last few are kept unpacked. */
class Chunks {
  static KEPT = 8;

  constructor() {
    this.kept = new Map();
  }

  get(block, item, seed) {
    const name = ["chunk", block, item, seed].join("-");
    const found = this.kept.get(name) || Chunks.unpacked(find(name).textContent);
    this.kept.delete(name);
    this.kept.set(name, found); // the last used one last
    if (this.kept.size > Chunks.KEPT) this.kept.delete(this.kept.keys().next().value);
    return found;
  }

  static unpacked(text) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).json();
  }
}

/** Options of a select; `chosen` is the place of the one to begin with. */
function fill(select, labels, chosen) {
  select.replaceChildren(...labels.map((label, place) => new Option(label, place, false, place === chosen)));
}

/** Radio buttons with `labels` by value. */
function radios(box, name, labels, chosen, choose) {
  box.replaceChildren(...Object.entries(labels).map(([value, label]) => {
    const input = make("input");
    Object.assign(input, { type: "radio", name, value, checked: value === chosen });
    input.addEventListener("change", () => choose(value));
    const holder = make("label");
    holder.append(input, make("span", "", label));
    return holder;
  }));
}

/** A head of a column that sorts by it, by mouse and keyboard. */
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

/** Order of two values; what is missing comes last in either direction. */
function compare(a, b, direction) {
  const missing = (a === null) - (b === null);
  if (missing || a === null) return missing;
  return direction * (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b);
}
