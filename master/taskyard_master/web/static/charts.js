// Two plain SVG charts: a rate over time, and slots with what they ran.
import { svg, el, rate, seconds } from "./dom.js";

export function rateChart(samples, index, title, label = rate) {
  const width = 600, height = 120, span = 180;
  const values = samples.map((sample) => sample[index]);
  const top = Math.max(1, ...values);
  const x = (i) => width - (values.length - 1 - i) * (width / (span - 1));
  const y = (value) => height - 4 - (value / top) * (height - 22);
  const points = values.map((value, i) => `${x(i).toFixed(1)},${y(value).toFixed(1)}`);
  const line = points.join(" ");
  const area = points.length ? `${x(0).toFixed(1)},${height} ${line} ${width},${height}` : "";
  const now = values.length ? values[values.length - 1] : 0;
  return el("figure", {},
    el("figcaption", {}, el("span", {}, title), el("span", {}, `now ${label(now)}, most ${label(values.length ? top : 0)}`)),
    svg("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", height, role: "img", "aria-label": `${title}: now ${label(now)}` },
      svg("line", { class: "grid", x1: 0, x2: width, y1: y(top), y2: y(top) }),
      svg("line", { class: "grid", x1: 0, x2: width, y1: height - 4, y2: height - 4 }),
      svg("polygon", { class: "area", points: area }), svg("polyline", { class: "stroke", points: line, "vector-effect": "non-scaling-stroke" })));
}

export function progress(job) {
  const parts = [["completed", job.completed], ["dead", job.dead], ["leased", job.leased], ["delayed", job.delayed + job.suspect], ["cancelled", job.cancelled]];
  const total = Math.max(1, job.total);
  const bars = [svg("rect", { class: "f-rest", x: 0, y: 0, width: 100, height: 10 })];
  let left = 0;
  for (const [name, count] of parts) {
    const width = (count / total) * 100;
    if (width) bars.push(svg("rect", { class: `f-${name}`, x: left, y: 0, width, height: 10 }));
    left += width;
  }
  const done = Math.floor(((job.completed + job.dead + job.cancelled) / total) * 100);
  return svg("svg", { class: "bar", viewBox: "0 0 100 10", preserveAspectRatio: "none", role: "img", "aria-label": `${job.total ? done : 0} % over` }, bars);
}

export function timeline(runs, from, to, names) {
  const row = 18, gap = 4, left = 0, width = 1000;
  const height = Math.max(1, names.length) * (row + gap) + 20;
  const x = (at) => left + ((at - from) / (to - from)) * (width - left);
  const shapes = [];
  for (let i = 0; i <= 6; i += 1) {
    const at = from + ((to - from) * i) / 6;
    shapes.push(svg("line", { class: "grid", x1: x(at), x2: x(at), y1: 0, y2: height - 16 }));
    shapes.push(svg("text", { x: Math.min(x(at), width - 46), y: height - 4 }, `−${seconds(to - at)}`));
  }
  for (const run of runs) {
    const line = names.indexOf(run.worker);
    const end = run.started + run.seconds;
    if (line < 0 || end < from) continue;
    const start = Math.max(from, run.started);
    const shape = svg("rect", { class: `f-${run.state}`, x: x(start).toFixed(2), y: line * (row + gap), width: Math.max(1, x(end) - x(start)).toFixed(2), height: row, rx: 2 });
    shape.append(svg("title", {}, `${run.worker}: job ${run.job}, ${run.tasks > 1 ? `tasks ${run.first} to ${run.first + run.tasks - 1}` : `task ${run.first}`}, ${run.state}, ${seconds(run.seconds)}`));
    shapes.push(shape);
  }
  names.forEach((name, line) => shapes.push(svg("text", { x: 4, y: line * (row + gap) + 13 }, name)));
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": `What ${names.length} workers ran in the last ${seconds(to - from)}` }, shapes);
}
