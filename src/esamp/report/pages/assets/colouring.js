"use strict";

/** Measurements by which tokens can be coloured. */
const METRICS = {
  novelty: {
    name: "Novelty \u2016e\u2016",
    unit: "",
    digits: 3,
    meaning: "Length of the steering error e: how far the model\u2019s state lies from what was predicted for it " +
      "from this group\u2019s texts. A large value means an unusual state, not by itself a new idea.",
  },
  kl: {
    name: "KL",
    unit: " nats",
    digits: 4,
    meaning: "KL(steered \u2016 reference): how much steering changed the distribution this token was drawn from.",
  },
  surprisal: {
    name: "Surprisal",
    unit: " nats",
    digits: 3,
    meaning: "\u2212log p of the token under the model without steering: how unlikely it was.",
  },
};

/** Colours of measured values. They are the same on the whole page, so that problems and arms can be compared. */
class Colouring {
  static STEPS = 7;

  /** `ranges` has [metric, low, high] for each metric: the values at which its colours begin and end. */
  constructor(ranges) {
    this.ranges = new Map(ranges.map(([metric, low, high]) => [metric, [low, high]]));
  }

  has(metric) {
    return this.ranges.has(metric);
  }

  /** CSS class for the colour of a value, or "" for one that was not measured. */
  colour(metric, value) {
    if (value === null || value === undefined || !this.has(metric)) return "";
    const [low, high] = this.ranges.get(metric);
    const share = high > low ? (value - low) / (high - low) : 0;
    return "colour-" + Math.max(0, Math.min(Colouring.STEPS - 1, Math.floor(share * Colouring.STEPS)));
  }

  /** Items of the legend: each colour with its lower bound. */
  legend(metric) {
    if (!this.has(metric)) return [];
    const [low, high] = this.ranges.get(metric);
    return Array.from({ length: Colouring.STEPS }, (_, step) => {
      const bound = Number((low + ((high - low) * step) / Colouring.STEPS).toPrecision(2));
      const item = make("li", "colour-" + step);
      item.append(make("i"), make("span", "", bound + (step === Colouring.STEPS - 1 ? " +" : "")));
      return item;
    });
  }

  /** A value with its unit. */
  static words(metric, value) {
    if (value === null || value === undefined) return "not measured";
    const size = value === 0 ? -1 : Math.floor(Math.log10(Math.abs(value)));
    const decimals = Math.max(0, Math.min(METRICS[metric].digits, 3 - size)); // values are stored with four digits
    return value.toFixed(decimals) + METRICS[metric].unit;
  }
}

/** [metric, 0, 98th percentile] for each measured metric: a single outlier must not make all other colours pale. */
function rangesOf(problems) {
  const ranges = [];
  for (const metric of Object.keys(METRICS)) {
    const values = [];
    for (const problem of problems) {
      for (const sample of problem.arms.flat()) {
        for (const value of sample[metric]) if (value !== null) values.push(value);
      }
    }
    values.sort((a, b) => a - b);
    if (values.length) ranges.push([metric, 0, values[Math.floor(0.98 * (values.length - 1))]]);
  }
  return ranges;
}
