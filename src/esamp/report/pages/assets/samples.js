"use strict";
// Shows the samples of one problem for two arms. Texts come from models: they are inserted as text nodes only, and the
// page's Content-Security-Policy forbids every other way.
(() => {
  const GRADES = { all: "All", correct: "Correct", wrong: "Wrong" };
  const ORDER = ["kl", "novelty", "surprisal"]; // the change by exploring comes first
  const LABELS = { kl: "Change by exploring (KL)", novelty: "Novelty", surprisal: "Surprisal" };
  Object.assign(METRICS.kl, {
    name: "Change (KL)",
    meaning: "How much exploring changed the choice of this token: KL divergence between the explored distribution and " +
      "the model\u2019s own. 0 is plain sampling.",
  });
  Object.assign(METRICS.novelty, { name: "Novelty" });

  const data = JSON.parse(find("data").textContent);
  const colouring = new Colouring(rangesOf(data.problems));
  const tokens = new Tokens(colouring, find("arms"), find("tip"));
  const measured = ORDER.filter((metric) => colouring.has(metric));
  const graded = data.problems.some((problem) => problem.arms.flat().some((sample) => sample.correct !== null));
  const shown = { problem: data.opens, arms: data.arms.length > 1 ? [0, 1] : [0], metric: measured[0] || "kl", grade: "all" };
  const columns = [];

  const samplesOf = (side) => data.problems[shown.problem].arms[shown.arms[side]];

  function sampleItem(sample, number) {
    const item = make("li", "sample");
    const head = make("p", "head");
    head.append(make("span", "number", "#" + number));
    if (graded) {
      const word = sample.correct === null ? "not graded" : sample.correct ? "\u2713 correct" : "\u2717 wrong";
      const grade = sample.correct === null ? "ungraded" : sample.correct ? "correct" : "wrong";
      head.append(make("span", "grade " + grade, word));
    }
    if (sample.answer) head.append(make("bdi", "answer", sample.answer));
    if (sample.reason) head.append(make("bdi", "reason", sample.reason));
    item.append(head, ...tokens.elements(sample, number));
    return item;
  }

  function tally(samples, remark) {
    const known = samples.filter((sample) => sample.correct !== null);
    const correct = known.filter((sample) => sample.correct);
    const answers = new Set(correct.map((sample) => sample.answer).filter(Boolean)).size;
    let text = known.length ? correct.length + " of " + known.length + " correct" : several(samples.length, "sample");
    if (answers) text += ", " + several(answers, "distinct correct answer");
    if (remark) text = remark;
    const seen = !measured.length || samples.some((sample) => sample[shown.metric].some((value) => value !== null));
    return seen || !samples.length ? text : text + ". " + METRICS[shown.metric].name + " was not measured here";
  }

  function showArm(side) {
    const { list, none } = columns[side];
    const kept = samplesOf(side)
      .map((sample, index) => ({ sample, number: index + 1 }))
      .filter(({ sample }) => shown.grade === "all" || sample.correct === (shown.grade === "correct"));
    list.replaceChildren(...kept.map(({ sample, number }) => sampleItem(sample, number)));
    list.hidden = kept.length === 0;
    none.hidden = kept.length > 0;
    none.textContent = "No " + (shown.grade === "all" ? "" : shown.grade + " ") + "samples in this arm.";
  }

  function showTallies() {
    const remarks = data.problems[shown.problem].remarks;
    columns.forEach((column, side) => {
      column.tally.textContent = tally(samplesOf(side), remarks[shown.arms[side]]) + ".";
    });
    const parts = columns.map((column, side) => data.arms[shown.arms[side]] + ": " + column.tally.textContent);
    find("status").textContent = find("problem-head").textContent + ". " + parts.join(" ");
  }

  function showArms() {
    tokens.clear();
    columns.forEach((_, side) => showArm(side));
    showTallies();
  }

  function showProblem(index) {
    const count = data.problems.length;
    shown.problem = (index + count) % count;
    const problem = data.problems[shown.problem];
    find("problem").value = String(shown.problem);
    const name = problem.id === String(shown.problem + 1) || count === 1 ? "" : " (" + problem.id + ")";
    const place = count === 1 ? "" : " " + (shown.problem + 1) + " of " + count;
    find("problem-head").textContent = data.noun + place + name;
    find("prompt").textContent = problem.prompt;
    find("reference").textContent = problem.reference;
    find("reference-line").hidden = problem.reference === "";
    showArms();
  }

  function showMetric(metric) {
    shown.metric = metric;
    find("meaning").textContent = METRICS[metric].meaning + " Without a colour: not measured.";
    find("scale-name").textContent = METRICS[metric].name + (METRICS[metric].unit && "," + METRICS[metric].unit);
    find("scale").replaceChildren(...colouring.legend(metric));
    tokens.recolour(metric);
    showTallies();
  }

  function addColumn(side) {
    const name = data.arms.length === 1 ? "Arm" : side ? "Right arm" : "Left arm";
    const field = make("div", "field");
    const label = make("label", "", name);
    const select = make("select");
    label.htmlFor = select.id = "arm-" + side;
    data.arms.forEach((arm, index) => select.append(new Option(arm, index, false, index === shown.arms[side])));
    select.addEventListener("change", () => {
      shown.arms[side] = Number(select.value);
      showArms();
    });
    field.append(label, select);
    const column = { tally: make("p", "tally"), list: make("ol", "samples"), none: make("p", "empty") };
    const box = make("section", "arm");
    box.setAttribute("aria-label", name);
    box.append(field, column.tally, column.list, column.none);
    columns.push(column);
    find("arms").append(box);
  }

  function onKey(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    if (event.key === "Escape") return tokens.point(null);
    const span = Tokens.at(event.target);
    if (span) {
      if (tokens.move(span, event.key)) event.preventDefault();
      return;
    }
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step && data.problems.length > 1 && !event.target.closest("select, input, .scroll")) showProblem(shown.problem + step);
  }

  function addControls() {
    data.problems.forEach((problem, index) => {
      const start = Array.from(problem.prompt.replace(/\s+/g, " ").trim()).slice(0, 80).join("");
      find("problem").append(new Option(index + 1 + ". " + start, index));
    });
    find("problem").addEventListener("change", (event) => showProblem(Number(event.target.value)));
    for (const [id, step] of [["previous", -1], ["next", 1]]) {
      find(id).addEventListener("click", () => showProblem(shown.problem + step));
    }
    // Hide controls that have nothing to choose from.
    for (const id of ["picker", "problem-keys"]) find(id).hidden = data.problems.length < 2;
    find("colouring").hidden = measured.length < 2;
    find("legend").hidden = !measured.length;
    find("filter").hidden = !graded;
    find("arms").classList.toggle("prose", !graded);
    const labels = Object.fromEntries(measured.map((metric) => [metric, LABELS[metric]]));
    radios(find("metrics"), "metric", labels, shown.metric, showMetric);
    radios(find("grades"), "grade", GRADES, shown.grade, (grade) => {
      shown.grade = grade;
      showArms();
    });
    document.addEventListener("keydown", onKey);
  }

  if (!data.problems.length || !data.arms.length) {
    find("nothing").hidden = false;
    return;
  }
  find("view").hidden = false;
  addControls();
  shown.arms.forEach((_, side) => addColumn(side));
  showProblem(shown.problem);
  showMetric(shown.metric);
})();
