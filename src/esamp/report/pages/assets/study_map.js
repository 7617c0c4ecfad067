"use strict";

/** The map of a problem's samples. The tab key stops once on it, arrow keys move between points, Enter opens the sample. */
class SampleMap {
  static WIDTH = 520;
  static HEIGHT = 340;
  static MARGIN = 22;

  constructor(picture, open) {
    this.picture = picture;
    this.open = open;
    this.points = []; // { element, side, sample, x, y }
    picture.addEventListener("keydown", (event) => this.onKey(event));
    // Not on the picture itself: the tab key stops on an SVG that listens for focus.
    picture.parentElement.addEventListener("focusin", (event) => this.showText(this.of(event.target)));
    picture.addEventListener("pointerover", (event) => this.showText(this.of(event.target)));
    picture.addEventListener("click", (event) => {
      const point = this.of(event.target);
      if (point) this.open(point.side, point.sample);
    });
    find("others").addEventListener("change", () => this.draw());
  }

  of(node) {
    const element = node.closest(".point");
    return this.points.find((point) => point.element === element);
  }

  show(block, shown, chunk, visible) {
    Object.assign(this, { block, shown, chunk, visible });
    const available = Boolean(chunk.shares);
    find("mapped").hidden = !available;
    find("map-missing").textContent = available ? "" : block.unmapped || "No map: it takes three samples with embeddings.";
    find("map-missing").hidden = available;
    find("map-head").parentElement.hidden = block.private;
    find("others-field").hidden = block.arms.length <= new Set(shown.arms).size;
    if (!available) return;
    const focused = this.of(document.activeElement);
    this.draw();
    if (focused) this.points.find((point) => point.sample === focused.sample)?.element.focus({ preventScroll: true });
  }

  draw() {
    const { chunk, shown, block } = this;
    const [one, two] = chunk.shares.map((share) => Math.round(100 * share));
    find("map-axes").textContent =
      "Sentence embeddings on their two main directions, " + one + " % of the variance across and " + two + " % up, fitted to all methods\u2019 samples of this problem and seed. " +
      "Two dimensions lose " + (100 - one - two) + " % of it: what is close here may be far apart.";
    const ends = this.ends(chunk.arms.flat().filter((sample) => sample.at));
    const dots = [];
    if (find("others").checked) {
      chunk.arms.forEach((samples, arm) => {
        if (shown.arms.includes(arm)) return;
        for (const sample of samples) {
          if (!sample.at) continue;
          const [x, y] = this.place(ends, sample.at);
          dots.push(draw("circle", { class: "other", cx: x, cy: y, r: 2.5 }));
        }
      });
    }
    this.points = [...new Set(shown.arms)].flatMap((arm, side) =>
      chunk.arms[arm].filter((sample) => sample.at && this.visible(sample)).map((sample) => this.point(ends, arm, side, sample)));
    this.points.sort((a, b) => a.x - b.x || a.y - b.y || a.side - b.side || a.sample.index - b.sample.index);
    if (this.points.length) this.points[0].element.setAttribute("tabindex", "0");
    this.picture.replaceChildren(...this.frame(ends, one, two), ...dots, ...this.points.map((point) => point.element));
    find("signs").replaceChildren(...[...new Set(shown.arms)].map((arm, side) => {
      const line = make("li");
      const sign = draw("svg", { viewBox: "-8 -8 16 16", width: 16, height: 16, "aria-hidden": "true", class: ["one", "two"][side] });
      sign.append(SampleMap.shape(side, 0, 0, "right"));
      line.append(sign, isolated("", block.arms[arm]));
      return line;
    }));
    if (block.graded) find("signs").append(make("li", "fills", "Filled is right, hollow is not."));
    find("point").replaceChildren(make("p", "hint", "Point at a sample, or step through them with the arrow keys, to read it here."));
  }

  ends(samples) {
    const { WIDTH, HEIGHT, MARGIN } = SampleMap;
    const [across, up] = [0, 1].map((axis) => {
      const values = samples.map((sample) => sample.at[axis]);
      const [low, high] = [Math.min(...values), Math.max(...values)];
      return { middle: (low + high) / 2, width: high - low };
    });
    // One scale for both axes, so that distances on the picture are distances on the plane.
    const scales = [(WIDTH - 2 * MARGIN) / across.width, (HEIGHT - 2 * MARGIN - 14) / up.width].filter(Number.isFinite);
    return { middle: [across.middle, up.middle], scale: scales.length ? Math.min(...scales) : 0 };
  }

  place({ middle, scale }, [x, y]) {
    const { WIDTH, HEIGHT } = SampleMap;
    return [WIDTH / 2 + scale * (x - middle[0]), HEIGHT / 2 - 7 - scale * (y - middle[1])]
      .map((value) => Number(value.toFixed(1)));
  }

  frame(ends, one, two) {
    const { WIDTH, HEIGHT } = SampleMap;
    const [x, y] = this.place(ends, [0, 0]);
    const label = (attributes, text) => {
      const words = draw("text", attributes);
      words.textContent = text;
      return words;
    };
    return [
      draw("line", { class: "axis", x1: x, x2: x, y1: 4, y2: HEIGHT - 18 }),
      draw("line", { class: "axis", x1: 4, x2: WIDTH - 4, y1: y, y2: y }),
      label({ x: WIDTH - 6, y: HEIGHT - 5, "text-anchor": "end" }, "\u2192 " + one + " % of the variance"),
      label({ x: 6, y: HEIGHT - 5 }, "\u2191 " + two + " %"),
    ];
  }

  static shape(side, x, y, grade) {
    const fill = grade === null || grade === "right" ? "filled" : "hollow";
    if (side === 0) return draw("circle", { class: fill, cx: x, cy: y, r: 5.5 });
    return draw("path", { class: fill, d: "M" + x + " " + (y - 7) + "l7 7l-7 7l-7 -7z" });
  }

  point(ends, arm, side, sample) {
    const [x, y] = this.place(ends, sample.at);
    const element = draw("g", { class: "point " + ["one", "two"][side], tabindex: "-1", role: "button" });
    element.setAttribute("aria-label", this.block.arms[arm] + ", sample " + (sample.index + 1) + ", " + Samples.words(sample) + (sample.answer ? ", " + sample.answer : ""));
    element.append(draw("circle", { class: "target", cx: x, cy: y, r: 11 }), SampleMap.shape(side, x, y, sample.grade));
    return { element, arm, side, sample, x, y };
  }

  /** Shows the text of a point's sample beside the map. */
  showText(point) {
    if (!point) return;
    this.light(point);
    const { sample, arm } = point;
    const head = make("p", "head");
    head.append(isolated("number", this.block.arms[arm] + " #" + (sample.index + 1)), make("span", "grade " + (sample.grade || ""), Samples.words(sample)));
    const text = isolated("text", Samples.text(sample).trim().slice(0, 280));
    find("point").replaceChildren(head, text);
  }

  light(point) {
    for (const each of this.points) each.element.classList.toggle("lit", each === point);
  }

  /** Highlights the point of the sample that is focused or hovered in the list. */
  lightSample(sample) {
    this.light(this.points.find((point) => point.sample === sample));
  }

  onKey(event) {
    const point = this.of(event.target);
    if (!point) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.open(point.side, point.sample);
      return;
    }
    const upwards = [...this.points].sort((a, b) => a.y - b.y || a.x - b.x || a.side - b.side || a.sample.index - b.sample.index);
    const last = this.points.length - 1;
    const to = {
      ArrowRight: () => this.points[this.points.indexOf(point) + 1],
      ArrowLeft: () => this.points[this.points.indexOf(point) - 1],
      ArrowDown: () => upwards[upwards.indexOf(point) + 1],
      ArrowUp: () => upwards[upwards.indexOf(point) - 1],
      Home: () => this.points[0],
      End: () => this.points[last],
    }[event.key];
    if (!to) return;
    event.preventDefault();
    const next = to();
    if (!next) return;
    point.element.setAttribute("tabindex", "-1");
    next.element.setAttribute("tabindex", "0");
    next.element.focus();
  }
}
