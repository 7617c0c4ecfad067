"use strict";

const find = (id) => document.getElementById(id);
const several = (count, noun) => count.toLocaleString("en") + " " + noun + (count === 1 ? "" : "s");

/** An element whose text, if any, is set as text and never parsed. */
function make(tag, name, text) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  return element;
}

/** A line of text with a direction of its own, whatever characters it contains. */
const isolated = (name, text) => make("bdi", name, text);

/** Fills `box` with radio buttons; `labels` holds their labels by value. */
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
