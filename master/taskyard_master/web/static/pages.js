// Overview, jobs, and one job. Each page is made once, with show(yard) for each second and close() at its end.
import { el, number, rate, seconds, bytes, clock, table, state, figures, slot, poll, pager, searcher, jobHref } from "./dom.js";
import { rateChart, progress } from "./charts.js";

const COLUMNS = [["Job"], ["Function"], ["State"], ["Progress"], ["Done", "n"], ["Running", "n"], ["Waiting", "n"], ["Failed", "n"], ["Rate", "n"], ["Left", "n"], ["Note", "wrap"]];
const done = (job) => job.completed + job.dead + job.cancelled;

// What a person calls it: a job that is closed only takes no more tasks.
function stateOf(job) {
  if (job.unfinished) return job.leased ? state("running") : state("waiting");
  if (job.state !== "closed") return state(job.state);
  return job.dead ? state("dead", job.completed ? "failed in part" : "failed") : state("completed", "done");
}
function part(job) {
  const over = done(job), share = job.total ? Math.floor((over / job.total) * 100) : 0;
  return `${number(over)} of ${number(job.total)} tasks are over, ${share} %${job.state === "open" ? "; more may come" : ""}`;
}
const row = (job) => [
  el("a", { href: jobHref(job.id) }, job.name || job.id), job.function || "any", stateOf(job), progress(job),
  `${number(done(job))} of ${number(job.total)}`, number(job.leased), number(job.ready + job.delayed + job.suspect), el("span", { class: job.dead ? "bad" : null }, number(job.dead)),
  job.unfinished ? rate(job.rate) : "–", job.unfinished ? seconds(job.eta) : "–", job.note || job.error || "",
];

export function overview(main) {
  main.append(el("h1", {}, "Overview"));
  const top = slot(main), charts = slot(main), list = slot(main), about = slot(main);
  return {
    show(yard) {
      const missing = yard.worker_states.missing ?? 0;
      top([yard.completed, yard.leased, yard.backlog, yard.dead, yard.busy, yard.slots, yard.worker_states, Math.round(yard.eta ?? -1), yard.rate], () => figures([
        ["completed", number(yard.completed)], ["rate", rate(yard.rate)], ["running", number(yard.leased)], ["waiting", number(yard.backlog)],
        ["time left", seconds(yard.eta)], ["failed for good", number(yard.dead), yard.dead > 0],
        ["slots busy", number(yard.busy), false, number(yard.slots)], [missing ? `workers, ${number(missing)} missing` : "workers", number(yard.workers), missing > 0]]));
      charts(yard.samples.at(-1), () => el("div", { class: "charts" }, rateChart(yard.samples, 1, "Tasks completed a second"), rateChart(yard.samples, 4, "Tasks waiting", number)));
      const more = yard.jobs_in_all > yard.jobs.length;
      list([yard.jobs, yard.jobs_in_all], () => [el("h2", {}, "Jobs"), table(more ? `The latest ${yard.jobs.length} of ${number(yard.jobs_in_all)}` : "All jobs", COLUMNS, yard.jobs.map(row), "no jobs yet: taskyard submit MODULE:FUNCTION --range 0:10")]);
      const m = yard.master;
      about([m.journal_bytes >> 16, m.memory >> 20, m.connections, m.started], () => el("p", { class: "quiet small" },
        `master ${m.address}, taskyard ${m.version}, Python ${m.python}, started ${clock(m.started)}; journal ${bytes(m.journal_bytes)}, memory ${bytes(m.memory)}, ${number(m.connections)} connections`));
    },
  };
}

export function jobs(main) {
  let search = "", wanted = "", offset = 0;
  main.append(el("h1", {}, "Jobs"));
  const choose = el("select", { "aria-label": "Only jobs that are", onchange: () => { wanted = choose.value; offset = 0; source.load(); } },
    [["", "all jobs"], ["unfinished", "unfinished"], ["failed", "with failed tasks"], ["cancelled", "cancelled"], ["incomplete", "incomplete"]].map(([value, text]) => el("option", { value }, text)));
  main.append(el("div", { class: "actions" }, searcher("Name, id or function", (text) => { search = text; offset = 0; source.load(); }), choose));
  const list = slot(main), more = slot(main);
  const turn = (to) => { offset = Math.max(0, to); source.load(); };
  const source = poll(1000, () => `/api/jobs?${new URLSearchParams({ search, state: wanted, offset })}`, (data) => {
    list([data.jobs, data.found], () => table(`${number(data.found)} of ${number(data.in_all)} jobs, unfinished first`, COLUMNS, data.jobs.map(row), data.in_all ? "none is like that" : "no jobs yet"));
    more([data.offset, data.found], () => pager(data, turn));
  });
  return source;
}

export function jobPage(main, id) {
  const title = slot(main), acts = slot(main);
  const said = el("p", { role: "status", class: "quiet" });
  main.append(said);
  const counts = slot(main), failed = slot(main), slow = slot(main);
  const back = () => el("p", { class: "back" }, el("a", { href: "#/jobs" }, "All jobs"));
  title(id, () => [back(), el("h1", {}, `Job ${id}`)]);
  const source = poll(1000, () => `/api/jobs/${encodeURIComponent(id)}`, (data, ok) => {
    if (!ok) { said.textContent = data.error; return; }
    const job = data.job, name = job.name || job.id;
    title([job.id, job.name], () => [back(), el("h1", {}, name, job.name ? el("span", { class: "quiet" }, ` ${job.id}`) : null)]);
    acts([job.state, job.dead, job.unfinished > 0, job.leased > 0], () => el("div", { class: "actions" }, stateOf(job), el("span", { class: "quiet" }, job.function || "each task names its function"),
      job.unfinished || job.state === "open" ? el("button", { class: "danger", onclick: () => act("cancel", `Cancel job ${name}? What is unfinished ends, for good.`, "Cancel job") }, "Cancel job") : null,
      job.dead ? el("button", { onclick: () => act("requeue", `Run the ${number(job.dead)} failed tasks of ${name} again?`, "Run again") }, "Requeue failed tasks") : null,
      el("a", { href: `#/log//${encodeURIComponent(job.id)}` }, "Log")));
    counts(job, () => [el("div", { class: "wide" }, progress(job), el("p", { class: "quiet small" }, part(job))), figures([["completed", number(job.completed)], ["running", number(job.leased)], ["ready", number(job.ready)], ["delayed", number(job.delayed + job.suspect)],
      ["failed for good", number(job.dead), job.dead > 0], ["tried again", number(job.retries)], ["rate", rate(job.rate)], ["time left", job.unfinished ? seconds(job.eta) : "–"], ["worker time", seconds(job.seconds)]]), job.note ? el("p", {}, job.note) : el("span")]);
    failed([data.failed, job.dead], () => data.failed.length ? [el("h2", {}, "Failed tasks"), table(`${number(data.failed.length)} of ${number(job.dead)}`, [["Task", "n"], ["Why", "wrap"], ["Attempts", "n"], ["Worker"], ["Host"]],
      data.failed.map((f) => [f.index, el("div", {}, `${f.type || f.reason}: ${f.message}`, f.traceback ? el("details", {}, el("summary", {}, "traceback"), el("pre", { tabindex: "0" }, f.traceback)) : null), f.attempts, f.worker, f.host]))] : []);
    slow(data.slowest, () => data.slowest.length ? [el("h2", {}, "Slowest of the recent tasks"), table("Time a task; a row may stand for several quick ones", [["Task", "n"], ["Took", "n"], ["State"], ["Worker"]],
      data.slowest.map((r) => [r.tasks > 1 ? `${r.first} to ${r.first + r.tasks - 1}` : r.first, seconds(r.seconds / r.tasks), state(r.state), r.worker]))] : []);
  });
  async function act(verb, question, yes) {
    if (!await ask(question, yes)) return;
    try {
      const response = await fetch(`/api/jobs/${encodeURIComponent(id)}/${verb}`, { method: "POST" });
      const data = await response.json();
      said.textContent = response.ok ? (verb === "cancel" ? "the job is cancelled" : `${number(data.tasks)} tasks run again`) : data.error;
    } catch { said.textContent = "the master did not answer: it may or may not have been done"; }
    source.load();
  }
  return source;
}

function ask(question, yes) {
  const dialog = document.getElementById("ask");
  document.getElementById("ask-text").textContent = question;
  dialog.querySelector("button[value=yes]").textContent = yes;
  dialog.returnValue = "no";
  dialog.showModal();
  // The event comes some time after the closing: the question before this one may have been asked until now.
  return new Promise((resolve) => { dialog.onclose = () => { if (!dialog.open) resolve(dialog.returnValue === "yes"); }; });
}
