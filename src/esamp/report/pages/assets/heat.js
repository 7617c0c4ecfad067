"use strict";

/** What tokens can be coloured by. */
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

/** Colour scales over the whole page, so that a colour means the same in every problem and arm. */
class Heat {
  static STEPS = 7;

  constructor(problems) {
    this.tops = {};
    for (const metric of Object.keys(METRICS)) {
      const values = [];
      for (const problem of problems) {
        for (const sample of problem.arms.flat()) {
          for (const value of sample[metric]) if (value !== null) values.push(value);
        }
      }
      values.sort((a, b) => a - b);
      // The 98th percentile: one outlier must not bleach the rest.
      this.tops[metric] = values.length ? values[Math.floor(0.98 * (values.length - 1))] : null;
    }
  }

  measured(metric) {
    return this.tops[metric] !== null;
  }

  /** Class of the colour of a value, or "" for one that was not measured. */
  colour(metric, value) {
    if (value === null || value === undefined) return "";
    const share = this.tops[metric] > 0 ? value / this.tops[metric] : 0;
    return "h" + Math.max(0, Math.min(Heat.STEPS - 1, Math.floor(share * Heat.STEPS)));
  }

  /** Labels of the steps: each one's lower bound. */
  bounds(metric) {
    if (!this.measured(metric)) return [];
    const bound = (step) => Number(((this.tops[metric] * step) / Heat.STEPS).toPrecision(2)).toString();
    return Array.from({ length: Heat.STEPS }, (_, step) => bound(step) + (step === Heat.STEPS - 1 ? " +" : ""));
  }

  static words(metric, value) {
    if (value === null || value === undefined) return "not measured";
    const size = value === 0 ? -1 : Math.floor(Math.log10(Math.abs(value)));
    const decimals = Math.max(0, Math.min(METRICS[metric].digits, 3 - size)); // four digits are known, no more
    return value.toFixed(decimals) + METRICS[metric].unit;
  }
}
