// Two plain SVG charts: numbers over time, and how much of something is done.
import { svg, el, rate } from "./dom.js";

const SPAN = 180; // seconds

export function rateChart(samples, index, title, label = rate) {
  const width = 600, height = 120;
  const values = samples.map((sample) => sample[index]);
  const top = Math.max(1, ...values);
  const x = (i) => width - (values.length - 1 - i) * (width / (SPAN - 1));
  const y = (value) => height - 3 - (value / top) * (height - 10);
  const line = values.map((value, i) => `${x(i).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
  const area = values.length ? `${x(0).toFixed(1)},${height} ${line} ${width},${height}` : "";
  const now = values.at(-1) ?? 0;
  const grid = [0, 0.5, 1].map((part) => svg("line", { class: "grid", x1: 0, x2: width, y1: y(part * top), y2: y(part * top) }));
  return el("figure", {},
    el("figcaption", {}, el("span", {}, title), el("strong", {}, label(now))),
    el("div", { class: "plot" },
      svg("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": `${title}: now ${label(now)}, at most ${label(values.length ? top : 0)} in three minutes` },
        grid, svg("polygon", { class: "area", points: area }), svg("polyline", { class: "stroke", points: line, "vector-effect": "non-scaling-stroke" })),
      el("span", { class: "top", "aria-hidden": "true" }, label(values.length ? top : 0))),
    el("div", { class: "axis", "aria-hidden": "true" }, el("span", {}, "3 min ago"), el("span", {}, "2"), el("span", {}, "1"), el("span", {}, "now")));
}

function bar(parts, label) {
  const bars = [svg("rect", { class: "f-rest", x: 0, y: 0, width: 100, height: 10 })];
  let left = 0;
  for (const [name, width] of parts) {
    if (width > 0) bars.push(svg("rect", { class: `f-${name}`, x: left.toFixed(3), y: 0, width: width.toFixed(3), height: 10 }));
    left += width;
  }
  return svg("svg", { class: "bar", viewBox: "0 0 100 10", preserveAspectRatio: "none", role: "img", "aria-label": label }, bars);
}
export function progress(job) {
  const all = Math.max(1, job.total), over = job.completed + job.dead + job.cancelled;
  const parts = [["completed", job.completed], ["dead", job.dead], ["cancelled", job.cancelled], ["leased", job.leased], ["delayed", job.delayed + job.suspect]];
  return bar(parts.map(([name, count]) => [name, (count / all) * 100]), `${Math.floor((over / all) * 100)} % over`);
}
export const share = (part, all) => bar([["leased", (part / Math.max(1, all)) * 100]], `${part} of ${all}`);
