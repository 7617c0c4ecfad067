"use strict";

/** The list of problems: sorted by one method's count or by the difference, filtered by id and prompt. */
class ProblemList {
  static SCORES = {
    right: "right samples", distinct: "different right answers", unreadable: "samples without an answer",
    tokens: "tokens of a sample", cut: "samples cut off",
  };

  constructor(table, choose) {
    this.table = table;
    this.choose = choose;
    this.items = []; // indices of the problems listed, in their order
    this.column = 0;
    this.direction = 0;
    find("filter").addEventListener("input", () => this.draw());
    find("filter").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && this.items.length) this.choose(this.items[0]);
    });
    find("score").addEventListener("change", () => this.draw());
    table.addEventListener("keydown", (event) => this.move(event));
  }

  show(block, shown) {
    const names = Object.keys(block.scores);
    if (this.block !== block) fill(find("score"), names.map((name) => ProblemList.SCORES[name] || name), 0);
    Object.assign(this, { block, shown, names });
    this.draw();
  }

  /** Id of a problem, the counts of both methods, and right minus left. */
  values(item) {
    const counts = this.block.scores[this.names[Number(find("score").value)]];
    const [left, right] = this.shown.arms.map((arm) => counts[arm][this.shown.seed][item]);
    return [this.block.items[item][0], left, right, Number((right - left).toFixed(1))];
  }

  draw() {
    const words = find("filter").value.toLowerCase().trim();
    const matches = ([id, prompt]) => !words || id.toLowerCase().includes(words) || prompt.toLowerCase().includes(words);
    const all = this.block.items.map((_, item) => item);
    this.items = all.filter((item) => matches(this.block.items[item]));
    if (this.direction) {
      const value = new Map(this.items.map((item) => [item, this.values(item)[this.column]]));
      this.items.sort((a, b) => compare(value.get(a), value.get(b), this.direction) || a - b);
    }
    const body = make("tbody");
    body.append(...this.items.map((item) => this.row(item)));
    const focused = document.activeElement.closest("#problems .pick");
    this.table.replaceChildren(this.heads(), body);
    find("listed").textContent = words ? this.items.length + " of " + several(all.length, "problem") : several(all.length, "problem");
    this.mark(this.shown.item);
    if (focused) this.table.querySelector('.pick[tabindex="0"]')?.focus();
  }

  heads() {
    const row = make("tr");
    const names = [["Problem", ""], ["\u25cf", "left"], ["\u25c6", "right"], ["\u00b1", "right minus left"]];
    names.forEach(([label, meaning], column) => {
      const sign = make("span", ["", "one", "two", ""][column], label);
      const words = meaning ? [sign, make("span", "sr", meaning)] : [sign];
      if (meaning) sign.setAttribute("aria-hidden", "true");
      const cell = sortHead(words, column === this.column ? this.direction : 0, () => this.sort(column));
      if (meaning) cell.title = meaning + (column < 3 ? ": " + this.block.arms[this.shown.arms[column - 1]] : "");
      row.append(cell);
    });
    const head = make("thead");
    head.append(row);
    return head;
  }

  sort(column) {
    const first = column ? -1 : 1;
    this.direction = this.column === column && this.direction ? -this.direction : first;
    this.column = column;
    this.draw();
    this.table.querySelector("th[aria-sort] button").focus();
  }

  row(item) {
    const [id, left, right, difference] = this.values(item);
    const row = make("tr");
    const head = make("th");
    head.scope = "row";
    const button = make("button", "pick");
    button.type = "button";
    button.dataset.item = item;
    button.append(isolated("", id));
    button.addEventListener("click", () => this.choose(item));
    head.append(button);
    const sign = difference > 0 ? "+" + difference : difference < 0 ? "\u2212" + -difference : "0";
    row.append(head, make("td", "", String(left)), make("td", "", String(right)), make("td", difference ? "more" : "same", sign));
    return row;
  }

  /** Marks the problem that is shown. The tab key stops only once in the list. */
  mark(item) {
    this.shown.item = item;
    const buttons = [...this.table.querySelectorAll(".pick")];
    const current = buttons.find((button) => Number(button.dataset.item) === item);
    for (const button of buttons) {
      button.tabIndex = button === (current || buttons[0]) ? 0 : -1;
      button.closest("tr").classList.toggle("current", button === current);
      button.removeAttribute("aria-current");
    }
    if (!current) return;
    current.setAttribute("aria-current", "true");
    if (buttons.includes(document.activeElement)) current.focus();
    const box = this.table.parentElement;
    const [row, frame] = [current.closest("tr").getBoundingClientRect(), box.getBoundingClientRect()];
    const top = frame.top + this.table.tHead.offsetHeight;
    if (row.top < top) box.scrollTop -= top - row.top;
    if (row.bottom > frame.bottom) box.scrollTop += row.bottom - frame.bottom;
  }

  /** Shows the problem `by` places further down the list; wraps around at its ends. */
  step(by) {
    if (!this.items.length) return;
    const at = this.items.indexOf(this.shown.item);
    const to = at < 0 ? 0 : (at + by + this.items.length) % this.items.length;
    this.choose(this.items[to]);
  }

  move(event) {
    const buttons = [...this.table.querySelectorAll(".pick")];
    const at = buttons.indexOf(event.target);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    if (!buttons[to]) return;
    for (const button of buttons) button.tabIndex = -1;
    buttons[to].tabIndex = 0;
    buttons[to].focus();
  }
}
