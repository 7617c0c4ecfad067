"use strict";
// The page of a study: keeps the reader's choices and updates the parts of the page. Texts come from models: they are
// inserted as text nodes only, and the page's Content-Security-Policy forbids every other way.
(() => {
  const blocks = JSON.parse(find("data").textContent);
  const shown = { block: 0, item: 0, seed: 0, arms: [0, 0] };
  const chunks = new Chunks();
  const ranges = blocks.flatMap((block) => block.metrics);
  keepMetrics(ranges.map(([name]) => name));
  const colouring = new Colouring(ranges);
  const tokens = new Tokens(colouring, find("arms"), find("tip"));
  const map = new SampleMap(find("map"), (side, sample) => samples.open(side, sample));
  const samples = new Samples(find("arms"), tokens, (sample) => map.lightSample(sample));
  const table = new SummaryTable(find("summary"), find("all-measures"));
  const list = new ProblemList(find("problems"), (item) => showItem(item));
  let requests = 0; // number of chunks requested: a chunk that arrives after a newer request is not shown
  let chunk = null;

  const block = () => blocks[shown.block];

  function showBlock(place) {
    shown.block = place;
    chunk = null;
    const { arms, seeds, baseline, beside, metrics } = block();
    const first = Math.max(arms.indexOf(baseline), 0);
    Object.assign(shown, { item: 0, seed: 0, arms: [first, beside] });
    find("block").value = String(place);
    find("verdict").textContent = block().verdict;
    find("verdict").hidden = !block().verdict;
    find("facts").textContent = block().facts;
    find("seed-field").hidden = seeds.length < 2;
    fill(find("left"), arms, shown.arms[0]);
    fill(find("right"), arms, shown.arms[1]);
    fill(find("seed"), seeds.map(String), 0);
    samples.grade = "all";
    table.show(block());
    addGrades();
    addMetrics(metrics);
    list.show(block(), shown);
  }

  function addGrades() {
    const labels = block().graded ? Samples.GRADES : { all: Samples.GRADES.all, cut: Samples.GRADES.cut };
    radios(find("grades"), "grade", labels, samples.grade, (grade) => {
      samples.grade = grade;
      showSamples();
    });
    const kept = samples.orders.map(([label], place) => [label, place])
      .filter(([label]) => (block().graded || !/right|wrong/.test(label)) && (block().metrics.length || !/colour/.test(label)));
    find("order").replaceChildren(...kept.map(([label, place]) => new Option(label, place, false, place === 0)));
    samples.order = 0;
  }

  function addMetrics(metrics) {
    find("metric-field").hidden = find("legend").hidden = !metrics.length;
    find("meaning").textContent = block().untraced;
    find("whole-field").hidden = block().private;
    if (!metrics.length) return;
    const names = { ...Object.fromEntries(metrics.map(([name]) => [name, METRICS[name].name])), "": "Nothing" };
    const usual = metrics.some(([name]) => name === "novelty") ? "novelty" : metrics[0][0];
    radios(find("metrics"), "metric", names, usual, (metric) => showMetric(metric));
    showMetric(usual, false);
  }

  function showMetric(metric, again = true) {
    const none = !metric;
    find("meaning").textContent = none ? "Tokens are not coloured." : METRICS[metric].meaning + " Tokens without a colour were not measured.";
    find("legend").hidden = none;
    tokens.metric = metric;
    if (!none) {
      find("scale-name").textContent = METRICS[metric].name + (METRICS[metric].unit && "," + METRICS[metric].unit);
      find("scale").replaceChildren(...colouring.legend(metric));
    }
    if (again) showSamples();
  }

  function showItem(item) {
    const [id, prompt, known] = block().items[item];
    list.mark(item);
    find("problem-head").replaceChildren(isolated("", id));
    find("prompt").textContent = prompt;
    find("prompt").hidden = !prompt;
    find("known").hidden = !known;
    find("known-data").textContent = known;
    return showChunk();
  }

  async function showChunk() {
    const request = ++requests;
    find("detail").setAttribute("aria-busy", "true");
    try {
      const found = await chunks.get(shown.block, shown.item, shown.seed);
      if (request !== requests) return;
      chunk = found;
      showSamples();
      remember();
    } catch (error) {
      find("failed").hidden = false;
      find("failed").textContent = "These samples cannot be unpacked: the file is damaged or the browser too old. " + error;
    }
    find("detail").setAttribute("aria-busy", "false");
  }

  function showSamples() {
    if (!chunk) return;
    samples.show(block(), shown, chunk);
    map.show(block(), shown, chunk, (sample) => samples.visible(sample));
    const tallies = samples.columns.map((column) => column.name.lastChild.textContent + ": " + column.tally.textContent);
    find("status").textContent = find("problem-head").textContent + ". " + tallies.join(" ");
  }

  function showArms(arms) {
    shown.arms = arms;
    find("left").value = String(arms[0]);
    find("right").value = String(arms[1]);
    list.draw();
    showSamples();
    remember();
  }

  /** Writes what is shown into the address, so that it can be bookmarked and shared. */
  function remember() {
    const { arms, items, seeds } = block();
    const view = { block: block().title, problem: items[shown.item][0], seed: seeds[shown.seed], left: arms[shown.arms[0]], right: arms[shown.arms[1]] };
    try {
      history.replaceState(null, "", "#" + new URLSearchParams(view));
    } catch {
      return; // some browsers limit the number of changes; the address is then out of date
    }
  }

  /** Shows what the address names, as far as it is on the page. */
  function recall() {
    const view = new URLSearchParams(location.hash.slice(1));
    showBlock(Math.max(blocks.findIndex((each) => each.title === view.get("block")), 0));
    const { arms, items, seeds } = block();
    const orElse = (index, otherwise) => (index < 0 ? otherwise : index);
    shown.seed = orElse(seeds.findIndex((seed) => String(seed) === view.get("seed")), 0);
    find("seed").value = String(shown.seed);
    showArms(shown.arms.map((arm, side) => orElse(arms.indexOf(view.get(["left", "right"][side])), arm)));
    return showItem(orElse(items.findIndex(([id]) => id === view.get("problem")), 0));
  }

  function nextRadio(name) {
    const inputs = [...document.querySelectorAll('input[name="' + name + '"]')];
    if (inputs.length) inputs[(inputs.findIndex((input) => input.checked) + 1) % inputs.length].click();
  }

  const KEYS = {
    j: () => list.step(1),
    k: () => list.step(-1),
    s: () => find("swap").click(),
    f: () => nextRadio("grade"),
    c: () => nextRadio("metric"),
    o: () => find("whole").click(),
    m: () => find("map").querySelector('[tabindex="0"]')?.focus(),
    "/": () => find("filter").focus(),
  };

  function onKey(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "Escape") return tokens.point(null);
    const span = Tokens.at(event.target);
    if (span && tokens.move(span, event.key)) return event.preventDefault();
    const typing = event.target.closest("select, input[type=search]");
    if (typing || !find("letters").checked || !Object.hasOwn(KEYS, event.key)) return;
    event.preventDefault();
    KEYS[event.key]();
  }

  function addControls() {
    fill(find("block"), blocks.map((each) => each.title), 0);
    find("block-field").hidden = blocks.length < 2;
    find("block").addEventListener("change", () => {
      showBlock(Number(find("block").value));
      showItem(0);
    });
    for (const id of ["left", "right"]) find(id).addEventListener("change", () => showArms([Number(find("left").value), Number(find("right").value)]));
    find("swap").addEventListener("click", () => showArms([shown.arms[1], shown.arms[0]]));
    find("seed").addEventListener("change", () => {
      shown.seed = Number(find("seed").value);
      list.draw();
      showChunk();
    });
    find("previous").addEventListener("click", () => list.step(-1));
    find("next").addEventListener("click", () => list.step(1));
    find("order").addEventListener("change", () => {
      samples.order = Number(find("order").value);
      showSamples();
    });
    find("whole").addEventListener("change", showSamples);
    document.addEventListener("keydown", onKey);
    window.addEventListener("hashchange", () => { if (location.hash.includes("problem=")) recall(); });
  }

  addControls();
  recall();
})();
