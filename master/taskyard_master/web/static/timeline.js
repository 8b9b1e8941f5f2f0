// What each worker ran, lately and now: a row for each task at a time, a colour for each function.
import { el, svg, number, plural, seconds, searcher } from "./dom.js";

const KEPT = 4000; // runs
const WORKERS = 30; // shown, those that ran most
const COLOURS = 6; // of functions; the rest share the last one
const ROW = 16, GAP = 2, GUTTER = 96;

export function timelinePage(main) {
  let runs = [], running = [], names = {}, slots = {}, noted = 0, paused = false, busy = false, closed = false, search = "", colours = [], latest = null;
  main.append(el("h1", {}, "Timeline"));
  const back = el("select", { "aria-label": "How far back", onchange: () => draw() }, [[30, "30 seconds"], [120, "2 minutes"], [600, "10 minutes"]].map(([value, text]) => el("option", { value }, text)));
  const pause = el("button", { "aria-pressed": "false", onclick: () => { paused = !paused; pause.setAttribute("aria-pressed", paused); } }, "Hold still");
  main.append(el("div", { class: "actions" }, back, pause, searcher("Worker", (text) => { search = text; draw(); })));
  const figure = el("figure");
  main.append(figure);
  const functionOf = (job) => names[job]?.[1] || names[job]?.[0] || job;
  const nameOf = (job) => names[job]?.[0] || job;

  function colour(job) {
    const name = functionOf(job);
    if (!colours.includes(name)) colours.push(name);
    return `c${Math.min(colours.indexOf(name), COLOURS - 1)}`;
  }

  function draw() {
    if (!latest) return;
    const to = latest, from = to - Number(back.value);
    const shown = runs.filter(([worker, , , , started, took]) => started + took >= from && worker.includes(search));
    const now = running.filter(([worker]) => worker.includes(search)).map(([worker, job, index, since]) => [worker, job, index, 1, since, Math.max(0, to - since), "running"]);
    const rows = new Map();
    for (const run of [...shown, ...now]) {
      if (!rows.has(run[0])) rows.set(run[0], []);
      rows.get(run[0]).push(run);
    }
    const most = [...rows.entries()].sort((a, b) => b[1].length - a[1].length).slice(0, WORKERS).sort((a, b) => a[0].localeCompare(b[0]));
    const tasks = shown.reduce((sum, run) => sum + run[3], 0);
    const used = [...new Set([...shown, ...now].map((run) => run[1]))].map((job) => [colour(job), functionOf(job)]);
    const legend = [...new Map(used.map(([key, text]) => [text, key])).entries()].slice(0, 8);
    figure.replaceChildren(
      el("figcaption", {}, el("span", {}, rows.size > WORKERS ? `the ${WORKERS} of ${number(rows.size)} workers that ran most` : plural(rows.size, "worker")), el("span", {}, plural(tasks, "task"))),
      most.length ? picture(most, from, to, Math.max(240, figure.clientWidth - 26)) : el("p", { class: "empty" }, "nothing ran in this time"),
      el("ul", { class: "legend" }, legend.map(([text, key]) => el("li", { class: key }, text)), [["retried", "will be tried again"], ["dead", "failed for good"], ["running", "runs now"]].map(([key, text]) => el("li", { class: key }, text))));
  }

  function picture(rows, from, to, width) {
    const gutter = width > 500 ? GUTTER : 66;
    const x = (at) => gutter + ((at - from) / (to - from)) * (width - gutter);
    const shapes = [], labels = [];
    let top = 0;
    for (const [worker, own] of rows) {
      const ends = new Array(slots[worker] ?? 1).fill(0); // of the lanes
      let used = 0;
      const narrow = {}; // what is thinner than a pixel is drawn once
      for (const [, job, first, count, started, took, state] of own.sort((a, b) => a[4] - b[4])) {
        let lane = ends.findIndex((end) => end <= started + 0.0005);
        if (lane < 0) lane = ends.indexOf(Math.min(...ends)); // when it began is known only roughly
        used = Math.max(used, lane + 1);
        ends[lane] = started + took;
        const left = x(Math.max(from, started)), right = x(Math.min(to, started + took));
        const key = `${lane} ${state} ${Math.round(left)}`;
        if (right - left < 1 && narrow[key]) continue;
        narrow[key] = right - left < 1;
        const shape = svg("rect", { class: `${state === "completed" || state === "running" ? colour(job) : state} ${state}`, x: left.toFixed(1), y: top + lane * (ROW + GAP), width: Math.max(1, right - left - 0.5).toFixed(1), height: ROW, rx: 2 });
        shape.append(svg("title", {}, `${nameOf(job)}, ${functionOf(job)}: ${count > 1 ? `tasks ${first} to ${first + count - 1}` : `task ${first}`}, ${state}, ${seconds(took)}, on ${worker}`));
        shapes.push(shape);
      }
      const label = svg("text", { x: 0, y: top + 12 }, worker.length * 7 > gutter ? `${worker.slice(0, Math.floor(gutter / 7) - 1)}…` : worker);
      label.append(svg("title", {}, worker));
      labels.push(label);
      top += Math.max(1, used) * (ROW + GAP) + 6;
    }
    const grid = [];
    const steps = width > 500 ? 6 : 3;
    for (let i = 0; i <= steps; i += 1) {
      const at = from + ((to - from) * i) / steps;
      grid.push(svg("line", { class: "grid", x1: x(at), x2: x(at), y1: 0, y2: top }));
      grid.push(svg("text", { x: x(at), y: top + 14, "text-anchor": i === steps ? "end" : "middle" }, i === steps ? "now" : `−${Math.round(to - at)} s`));
    }
    const says = rows.map(([worker, own]) => `${worker} ${own.reduce((sum, run) => sum + run[3], 0)}`).join(", ");
    return svg("svg", { class: "timeline", width, height: top + 20, role: "img", "aria-label": `Tasks of the last ${seconds(to - from)} by worker: ${says}` }, grid, shapes, labels);
  }

  return {
    async show(yard) {
      if (paused || busy) return;
      busy = true;
      try {
        const data = await (await fetch(`/api/timeline?after=${noted}`)).json();
        if (closed) return;
        if (data.noted < noted) { runs = []; noted = 0; return; } // the master is a new one
        noted = data.noted;
        runs = [...runs, ...data.runs].slice(-KEPT);
        const over = new Set(runs.slice(-500).filter((run) => run[3] === 1).map((run) => `${run[1]}/${run[2]}`));
        running = data.running.filter((run) => !over.has(`${run[1]}/${run[2]}`)); // workers tell it a little later
        slots = data.slots;
        Object.assign(names, data.names);
        latest = yard.at;
        draw();
      } catch { /* the stream says that the master does not answer */ } finally { busy = false; }
    },
    close() { closed = true; },
  };
}
