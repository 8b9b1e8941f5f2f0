// Small helpers: elements, numbers for people. No frameworks, no markup from strings: nothing can be injected.
const SVG = "http://www.w3.org/2000/svg";

export function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}
export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}
function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== null && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined).map((child) => child instanceof Node ? child : String(child)));
  return node;
}

const whole = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
export const number = (value) => value >= 1000000 ? short.format(value) : whole.format(Math.round(value));
export const rate = (value) => `${value >= 10 ? number(value) : value.toFixed(value ? 1 : 0)}/s`;
export const plural = (value, word) => `${number(value)} ${word}${value === 1 ? "" : "s"}`;
export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 0.001) return `${(value * 1e6).toFixed(0)} µs`;
  if (value < 1) return `${(value * 1000).toFixed(value < 0.1 ? 1 : 0)} ms`;
  if (value < 90) return `${value.toFixed(value < 10 ? 1 : 0)} s`;
  if (value < 5400) return `${Math.round(value / 60)} min`;
  if (value < 172800) return `${(value / 3600).toFixed(1)} h`;
  return `${Math.round(value / 86400)} days`;
}
// How long ago or for how long, to the second: it changes under the reader's eyes.
export const age = (value) => value < 1.5 ? "now" : seconds(Math.round(value));
export function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) { value /= 1024; unit += 1; }
  return `${value.toFixed(unit && value < 10 ? 1 : 0)} ${units[unit]}`;
}
export const clock = (at) => new Date(at * 1000).toLocaleTimeString([], { hour12: false });

export function table(caption, columns, rows, empty = "nothing here yet") {
  if (!rows.length) return el("div", { class: "scroll" }, el("p", { class: "empty" }, empty));
  const head = columns.map(([title, kind]) => el("th", { scope: "col", class: kind }, title));
  const body = rows.map((cells) => el("tr", {}, cells.map((cell, i) => el("td", { class: columns[i][1] }, cell))));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    el("table", {}, el("caption", {}, caption), el("thead", {}, el("tr", {}, head)), el("tbody", {}, body)));
}
export const state = (name, text = name) => el("span", { class: `state ${name}` }, text);
export function figures(pairs) {
  return el("dl", { class: "figures" }, pairs.map(([name, value, bad, of]) => el("div", {}, el("dt", {}, name), el("dd", { class: bad ? "bad" : null }, value, of ? el("small", {}, `/${of}`) : null))));
}
export const jobHref = (id) => `#/jobs/${encodeURIComponent(id)}`;

// Redraw a part only when its content changed, and never under a selection; focus and scroll stay.
export function slot(parent) {
  const node = el("div");
  parent.append(node);
  let last = "";
  return (key, make) => {
    const text = JSON.stringify(key);
    if (text === last) return;
    const selection = document.getSelection();
    if (selection && !selection.isCollapsed && node.contains(selection.anchorNode)) return;
    last = text;
    const stops = "a, button, summary, [tabindex]";
    const focused = node.contains(document.activeElement) ? [...node.querySelectorAll(stops)].indexOf(document.activeElement) : -1;
    const scrolled = [...node.querySelectorAll(".scroll")].map((part) => part.scrollLeft);
    const opened = [...node.querySelectorAll("details")].map((part) => part.open);
    node.replaceChildren(...[make()].flat());
    node.querySelectorAll(".scroll").forEach((part, i) => { part.scrollLeft = scrolled[i] ?? 0; });
    node.querySelectorAll("details").forEach((part, i) => { part.open = opened[i] ?? false; });
    if (focused >= 0) node.querySelectorAll(stops)[focused]?.focus({ preventScroll: true });
  };
}

// Something that is fetched every so often while its page is open. `load` may be called at any time.
export function poll(every, address, use) {
  let asked = 0, closed = false, turn = 0;
  async function load() {
    asked = Date.now();
    const mine = turn += 1;
    try {
      const response = await fetch(address());
      const data = await response.json();
      if (!closed && mine === turn) use(data, response.ok);
    } catch { /* the stream says that the master does not answer */ }
  }
  return { load, show: () => { if (Date.now() - asked > every - 100) load(); }, close: () => { closed = true; } };
}

// A search field, and the buttons that turn pages.
export function searcher(label, change) {
  let timer = 0;
  return el("input", { type: "search", "aria-label": label, placeholder: label, oninput: (event) => {
    clearTimeout(timer);
    timer = setTimeout(() => change(event.target.value), 150);
  } });
}
export function pager(data, turn) {
  if (data.found <= data.page) return [];
  const first = data.offset + 1, last = Math.min(data.found, data.offset + data.page);
  return el("nav", { class: "actions pager", "aria-label": "More of them" },
    el("button", { disabled: data.offset === 0, onclick: () => turn(data.offset - data.page) }, "Before"),
    el("span", {}, `${number(first)} to ${number(last)} of ${number(data.found)}`),
    el("button", { disabled: last >= data.found, onclick: () => turn(data.offset + data.page) }, "After"));
}
