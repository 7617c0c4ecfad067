"use strict";

/** The table of all methods: estimates with their intervals, sorted by any column. */
class SummaryTable {
  constructor(box, all) {
    this.box = box;
    this.all = all;
    all.addEventListener("change", () => this.draw());
  }

  show(block) {
    this.block = block;
    this.column = -1; // -1: the column of names
    this.direction = 0; // 0: in the study's order
    const main = block.measures.filter((measure) => measure[3]).length;
    find("all-field").hidden = main === 0 || main === block.measures.length;
    this.main = main > 0;
    find("columns").replaceChildren(...block.measures.flatMap(([name, meaning]) => [make("dt", "", name), make("dd", "", meaning)]));
    const sure = block.cells.some((row) => row.some((cell) => cell[3]));
    find("table-note").textContent =
      "Means over problems and seeds with 95 % bootstrap intervals over problems." +
      (sure ? " * differs from " + block.baseline + " beyond chance (paired permutation test, p < 0.05 after Holm\u2019s correction over the methods)." : "");
    this.draw();
  }

  columns() {
    const places = this.block.measures.map((_, place) => place);
    return this.main && !this.all.checked ? places.filter((place) => this.block.measures[place][3]) : places;
  }

  sort(column) {
    const first = column < 0 ? 1 : -1; // numbers start with the largest
    this.direction = this.column === column && this.direction ? -this.direction : first;
    this.column = column;
    this.draw();
    [...this.box.querySelectorAll("th[aria-sort] button")].forEach((button) => button.focus());
  }

  rows() {
    const { arms, cells } = this.block;
    const value = (arm) => (this.column < 0 ? arms[arm] : cells[arm][this.column][0]);
    const rows = arms.map((_, arm) => arm);
    return this.direction ? rows.sort((a, b) => compare(value(a), value(b), this.direction) || a - b) : rows;
  }

  draw() {
    const { arms, measures, cells, baseline } = this.block;
    const table = make("table");
    const head = make("tr");
    const columns = this.columns();
    const direction = (column) => (column === this.column ? this.direction : 0);
    head.append(sortHead([make("span", "", "Method")], direction(-1), () => this.sort(-1)));
    for (const column of columns) {
      const [name, meaning, percent] = measures[column];
      const cell = sortHead([make("span", "", name + (percent ? " %" : ""))], direction(column), () => this.sort(column));
      cell.title = meaning;
      head.append(cell);
    }
    const body = make("tbody");
    for (const arm of this.rows()) {
      const row = make("tr");
      const name = make("th");
      name.scope = "row";
      name.append(isolated("", arms[arm]));
      if (arms[arm] === baseline) name.append(make("span", "badge", "baseline"));
      row.append(name, ...columns.map((column) => this.cell(column, cells[arm][column])));
      body.append(row);
    }
    const top = make("thead");
    top.append(head);
    table.append(top, body);
    this.box.replaceChildren(table);
  }

  cell(column, [estimate, low, high, sure]) {
    const cell = make("td");
    if (estimate === null) return cell;
    const [, , percent, , decimals] = this.block.measures[column];
    const digits = percent ? decimals : Math.abs(estimate) >= 100 ? 0 : 2;
    const words = (value) => (percent ? 100 * value : value).toFixed(digits);
    cell.append(make("span", "estimate", words(estimate) + (sure ? "*" : "")));
    if (low !== null) cell.append(" ", make("span", "interval", "[" + words(low) + ", " + words(high) + "]"), this.line(column, estimate, low, high));
    return cell;
  }

  /** The interval as a line, on the scale of its column. */
  line(column, estimate, low, high) {
    const bounds = this.block.cells.map((row) => row[column]).filter((cell) => cell[1] !== null);
    const least = Math.min(...bounds.map((cell) => cell[1]));
    const most = Math.max(...bounds.map((cell) => cell[2]));
    const at = (value) => (most > least ? 4 + (92 * (value - least)) / (most - least) : 50);
    const picture = draw("svg", { class: "line", viewBox: "0 0 100 10", width: 100, height: 10, "aria-hidden": "true" });
    picture.append(
      draw("line", { x1: 0, x2: 100, y1: 5, y2: 5, class: "rail" }),
      draw("line", { x1: at(low), x2: at(high), y1: 5, y2: 5 }),
      draw("circle", { cx: at(estimate), cy: 5, r: 3.5 }),
    );
    return picture;
  }
}
