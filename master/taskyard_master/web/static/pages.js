// The pages. Each is made once, with close() for when it is left, and show(yard) for each second.
import { el, number, rate, seconds, bytes, clock, table, state } from "./dom.js";
import { rateChart, progress, timeline } from "./charts.js";

const JOB_COLUMNS = [["Job"], ["Function"], ["State"], ["Progress"], ["Done", "n"], ["Running", "n"], ["Waiting", "n"], ["Failed", "n"], ["Note", "wrap"]];
const done = (job) => job.completed + job.dead + job.cancelled;
const jobLink = (job) => el("a", { href: `#/jobs/${encodeURIComponent(job.id)}` }, job.name || job.id);
const jobRow = (job) => [
  jobLink(job), job.function || "any", state(job.state), progress(job),
  `${number(done(job))} of ${number(job.total)}`, number(job.leased), number(job.ready + job.delayed + job.suspect), number(job.dead), job.note || job.error || "",
];

// Redraw a part only when its content changed, and never under the keyboard's focus or a selection.
function slot(parent) {
  const node = el("div");
  parent.append(node);
  let last = "";
  return (key, make) => {
    const text = JSON.stringify(key);
    if (text === last) return;
    const selection = document.getSelection();
    if (selection && !selection.isCollapsed && node.contains(selection.anchorNode)) return;
    last = text;
    const focused = node.contains(document.activeElement) ? [...node.querySelectorAll("a, button, summary, [tabindex]")].indexOf(document.activeElement) : -1;
    const scrolled = [...node.querySelectorAll(".scroll")].map((part) => part.scrollLeft);
    const opened = [...node.querySelectorAll("details")].map((part) => part.open);
    node.replaceChildren(...[make()].flat());
    node.querySelectorAll(".scroll").forEach((part, i) => { part.scrollLeft = scrolled[i] ?? 0; });
    node.querySelectorAll("details").forEach((part, i) => { part.open = opened[i] ?? false; });
    if (focused >= 0) node.querySelectorAll("a, button, summary, [tabindex]")[focused]?.focus();
  };
}

function figures(pairs) {
  return el("dl", { class: "figures" }, pairs.map(([name, value, bad]) => el("div", {}, el("dt", {}, name), el("dd", { class: bad ? "bad" : null }, value))));
}

export function overview(main) {
  main.append(el("h1", {}, "Overview"));
  const top = slot(main), charts = slot(main), list = slot(main), about = slot(main);
  return {
    show(yard) {
      top([yard.completed, yard.leased, yard.backlog, yard.dead, yard.busy, yard.slots, yard.workers_in_all, Math.round(yard.eta ?? -1), yard.rate], () => figures([
        ["completed", number(yard.completed)], ["rate", rate(yard.rate)], ["running", number(yard.leased)], ["waiting", number(yard.backlog)],
        ["time left", yard.eta === null ? "–" : seconds(yard.eta)], ["failed for good", number(yard.dead), yard.dead > 0],
        ["slots busy", `${number(yard.busy)} of ${number(yard.slots)}`], ["workers", number(yard.workers_in_all)]]));
      charts(yard.samples.at(-1), () => [rateChart(yard.samples, 1, "Tasks completed a second"), rateChart(yard.samples, 4, "Waiting", number)]);
      const recent = yard.jobs.slice(0, 8);
      list(recent, () => [el("h2", {}, "Jobs"), table(`The latest of ${number(yard.jobs_in_all)}`, JOB_COLUMNS, recent.map(jobRow), "no jobs yet: taskyard submit MODULE:FUNCTION --range 0:10")]);
      const m = yard.master;
      about([m.journal_bytes, m.memory, m.connections], () => el("p", { class: "quiet" },
        `master ${m.address}, taskyard ${m.version}, Python ${m.python}, started ${clock(m.started)}; journal ${bytes(m.journal_bytes)}, memory ${bytes(m.memory)}, ${number(m.connections)} connections`));
    },
  };
}

export function jobs(main) {
  main.append(el("h1", {}, "Jobs"));
  const list = slot(main);
  return { show: (yard) => list(yard.jobs, () => table(`${number(yard.jobs.length)} of ${number(yard.jobs_in_all)} jobs, unfinished first`, JOB_COLUMNS, yard.jobs.map(jobRow), "no jobs yet")) };
}

export function jobPage(main, id) {
  const title = slot(main), acts = slot(main), counts = slot(main), failed = slot(main), slow = slot(main);
  const said = el("p", { role: "status", class: "quiet" });
  main.append(said);
  let asked = 0, closed = false;
  title(id, () => [el("p", {}, el("a", { href: "#/jobs" }, "All jobs")), el("h1", {}, `Job ${id}`)]);
  async function load() {
    const response = await fetch(`/api/jobs/${encodeURIComponent(id)}`);
    if (closed) return;
    const data = await response.json();
    if (!response.ok) { said.textContent = data.error; return; }
    const job = data.job;
    title([job.id, job.name], () => [el("p", {}, el("a", { href: "#/jobs" }, "All jobs")), el("h1", {}, job.name ? `${job.name} (${job.id})` : `Job ${job.id}`)]);
    const unfinished = job.total - done(job);
    acts([job.state, job.dead > 0, unfinished > 0], () => el("div", { class: "actions" }, state(job.state), el("span", { class: "quiet" }, job.function || "each task names its function"),
      unfinished || job.state === "open" ? el("button", { class: "danger", onclick: () => act("cancel", `Cancel job ${job.name || job.id}? What is unfinished ends, for good.`) }, "Cancel job") : null,
      job.dead ? el("button", { onclick: () => act("requeue", `Run the ${number(job.dead)} failed tasks again?`) }, "Requeue failed tasks") : null));
    counts(job, () => [figures([["completed", number(job.completed)], ["of", number(job.total)], ["running", number(job.leased)], ["ready", number(job.ready)], ["delayed", number(job.delayed + job.suspect)],
      ["failed for good", number(job.dead), job.dead > 0], ["tried again", number(job.retries)], ["worker time", seconds(job.seconds)]]), job.note ? el("p", {}, job.note) : el("span"), progress(job)]);
    failed(data.failed, () => data.failed.length ? [el("h2", {}, "Failed tasks"), table(`${data.failed.length} of ${number(job.dead)}`, [["Task", "n"], ["Why", "wrap"], ["Attempts", "n"], ["Worker"]],
      data.failed.map((f) => [f.index, el("div", {}, `${f.type || f.reason}: ${f.message}`, f.traceback ? el("details", {}, el("summary", {}, "traceback"), el("pre", {}, f.traceback)) : null), f.attempts, f.worker]))] : []);
    slow(data.slowest, () => data.slowest.length ? [el("h2", {}, "Slowest of the recent tasks"), table("Seconds a task; a row may stand for several quick ones", [["Task", "n"], ["Seconds", "n"], ["State"], ["Worker"]],
      data.slowest.map((r) => [r.tasks > 1 ? `${r.first}–${r.first + r.tasks - 1}` : r.first, seconds(r.seconds / r.tasks), state(r.state), r.worker]))] : []);
  }
  async function act(verb, question) {
    if (!await ask(question)) return;
    const response = await fetch(`/api/jobs/${encodeURIComponent(id)}/${verb}`, { method: "POST" });
    const data = await response.json();
    said.textContent = response.ok ? (verb === "cancel" ? "the job is cancelled" : `${number(data.tasks)} tasks run again`) : data.error;
    load();
  }
  return { show() { if (Date.now() - asked > 1900) { asked = Date.now(); load().catch(() => {}); } }, close() { closed = true; } };
}

function ask(question) {
  const dialog = document.getElementById("ask");
  document.getElementById("ask-text").textContent = question;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

export function workers(main) {
  main.append(el("h1", {}, "Workers"));
  const hosts = slot(main), list = slot(main);
  const columns = [["Worker"], ["Host"], ["State"], ["Slots", "n"], ["Runs now", "wrap"], ["Held", "n"], ["Completed", "n"], ["Failed", "n"], ["Memory", "n"], ["Last seen", "n"], ["Version"]];
  return {
    show(yard) {
      hosts(yard.hosts, () => figures(Object.entries(yard.hosts).map(([host, count]) => [host, `${number(count)} worker${count === 1 ? "" : "s"}`])));
      list([yard.workers, Math.floor(yard.at)], () => table(`${number(yard.workers.length)} of ${number(yard.workers_in_all)} workers, busy first`, columns, yard.workers.map((w) => [
        w.id, w.host, state(w.state), w.slots,
        w.running.map((r) => `${r.job}/${r.index} for ${seconds(Math.max(0, yard.at - r.since))}`).join(", ") || "–",
        number(w.leased), number(w.completed), number(w.failed), w.memory ? bytes(w.memory) : "–", seconds(Math.max(0, yard.at - w.seen)), w.version]),
        "no workers yet: taskyard scale 2"));
    },
  };
}

export function timelinePage(main) {
  main.append(el("h1", {}, "Timeline"));
  const window_ = el("select", { "aria-label": "How far back" }, [[30, "30 seconds"], [120, "2 minutes"], [600, "10 minutes"]].map(([s, text]) => el("option", { value: s }, text)));
  const pause = el("button", { "aria-pressed": "false", onclick: () => { paused = !paused; pause.setAttribute("aria-pressed", paused); pause.textContent = paused ? "Go on" : "Hold still"; } }, "Hold still");
  main.append(el("div", { class: "actions" }, window_, pause, el("span", { class: "quiet" }, "green: completed, orange: will be tried again, red: failed for good")));
  const figure = el("figure");
  main.append(figure);
  let runs = [], noted = 0, paused = false, busy = false;
  return {
    async show(yard) {
      if (paused || busy) return;
      busy = true;
      try {
        const data = await (await fetch(`/api/timeline?after=${noted}`)).json();
        if (data.noted < noted) runs = [];
        noted = data.noted;
        runs = [...runs, ...data.runs].slice(-4000);
        const to = yard.at, from = to - Number(window_.value);
        const recent = runs.filter((run) => run.started + run.seconds >= from);
        const names = [...new Set([...recent.map((run) => run.worker)])].sort().slice(0, 40);
        figure.replaceChildren(el("figcaption", {}, el("span", {}, `${names.length} workers`), el("span", {}, `${number(recent.reduce((sum, run) => sum + run.tasks, 0))} tasks`)),
          names.length ? timeline(recent, from, to, names) : el("p", { class: "empty" }, "nothing ran in this time"));
      } finally { busy = false; }
    },
  };
}

export function logPage(main) {
  main.append(el("h1", {}, "Log"));
  const worker = el("input", { placeholder: "worker", "aria-label": "Only this worker", size: 16 });
  const job = el("input", { placeholder: "job", "aria-label": "Only this job", size: 16 });
  const lines = el("div", { class: "log", role: "log", "aria-live": "off", tabindex: "0", "aria-label": "Log of the master" });
  main.append(el("form", { class: "actions", onsubmit: (event) => { event.preventDefault(); again(); } }, worker, job, el("button", {}, "Filter")),
    lines, el("p", { class: "quiet" }, "What the master says. What tasks print stays with their workers: taskyard logs -f --job JOB"));
  let after = 0, busy = false;
  function again() { after = 0; lines.replaceChildren(); }
  return {
    async show() {
      if (busy) return;
      busy = true;
      try {
        const query = new URLSearchParams({ after, worker: worker.value, job: job.value });
        const data = await (await fetch(`/api/log?${query}`)).json();
        const end = lines.scrollHeight - lines.scrollTop - lines.clientHeight < 30;
        for (const line of data.lines) {
          lines.append(el("p", { class: line.level }, `${clock(line.at)} ${line.text}`));
          after = line.n;
        }
        while (lines.children.length > 1000) lines.firstChild.remove();
        if (end) lines.scrollTop = lines.scrollHeight;
      } finally { busy = false; }
    },
  };
}
