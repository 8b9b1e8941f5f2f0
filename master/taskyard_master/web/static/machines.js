// Workers by host, and the log.
import { el, number, bytes, clock, table, state, slot, poll, pager, searcher, jobHref, age } from "./dom.js";
import { share } from "./charts.js";

const HOSTS = [["Host"], ["Workers", "n"], ["Slots busy"], ["Completed", "n"], ["Memory", "n"]];
const WORKERS = [["Worker"], ["Host"], ["State"], ["Slots", "n"], ["Runs now", "wrap"], ["Held", "n"], ["Completed", "n"], ["Failed", "n"], ["Memory", "n"], ["Seen", "n"], ["Version"]];

export function workers(main) {
  let search = "", host = "", offset = 0, at = 0;
  main.append(el("h1", {}, "Workers"));
  const hosts = slot(main);
  const each = el("section", { hidden: true }, el("h2", {}, "Each worker"), el("div", { class: "actions" }, searcher("Worker, host or state", (text) => { search = text; offset = 0; source.load(); })));
  main.append(each);
  const list = slot(each), more = slot(each);
  const pick = (name) => { host = host === name ? "" : name; offset = 0; source.load(); };
  const turn = (to) => { offset = Math.max(0, to); source.load(); };
  const source = poll(1000, () => `/api/workers?${new URLSearchParams({ search, host, offset })}`, (data) => {
    hosts([data.hosts, host], () => table(host ? `Hosts; below are the workers of ${host}` : "Hosts", HOSTS, data.hosts.map((h) => [
      el("button", { class: "plain", "aria-pressed": String(h.host === host), onclick: () => pick(h.host) }, h.host), number(h.workers), el("div", { class: "share" }, share(h.busy, h.slots), `${number(h.busy)} of ${number(h.slots)}`), number(h.completed), bytes(h.memory)]),
      "no workers yet: taskyard scale 2"));
    each.hidden = !data.in_all;
    list([data.workers, data.found, Math.floor(at)], () => table(`${number(data.found)} of ${number(data.in_all)} workers, busy first`, WORKERS, data.workers.map((w) => [
      el("a", { href: `#/log/${encodeURIComponent(w.id)}` }, w.id), w.host, state(w.state), w.slots, runs(w, data.names), number(w.leased), number(w.completed), number(w.failed), w.memory ? bytes(w.memory) : "–", age(at - w.seen), w.version]),
      "none is like that"));
    more([data.offset, data.found], () => pager(data, turn));
  });
  function runs(worker, names) {
    if (!worker.running.length) return "–";
    return el("ul", {}, worker.running.map((r) => el("li", {}, el("a", { href: jobHref(r.job) }, names[r.job]?.[0] || r.job), ` task ${r.index}`, el("span", { class: "quiet" }, ` ${age(Math.max(0, at - r.since))}`))));
  }
  return { show(yard) { at = yard.at; source.show(); }, close: source.close };
}

export function logPage(main, ofWorker = "", ofJob = "") {
  main.append(el("h1", {}, "Log"));
  const field = (label, value) => el("input", { type: "search", placeholder: label, "aria-label": `Only lines about this ${label}`, size: 16, value, onchange: again });
  const worker = field("worker", ofWorker), job = field("job", ofJob);
  const lines = el("div", { class: "log", role: "log", "aria-live": "off", tabindex: "0", "aria-label": "Log of the master and of tasks" });
  main.append(el("form", { class: "actions", onsubmit: (event) => { event.preventDefault(); again(); } }, worker, job, el("button", {}, "Filter")),
    lines, el("p", { class: "quiet small" }, "The latest lines of the master, and of what tasks print: up to 20 lines of a worker every two seconds. All of it: taskyard logs -f --job JOB"));
  let after = 0;
  const source = poll(1000, () => `/api/log?${new URLSearchParams({ after, worker: worker.value, job: job.value })}`, (data) => {
    const end = lines.scrollHeight - lines.scrollTop - lines.clientHeight < 30;
    for (const line of data.lines) {
      if (line.n <= after) continue;
      lines.append(el("p", { class: line.level }, el("time", {}, clock(line.at)), before(line), line.text));
    }
    after = Math.max(after, data.last);
    if (data.last < after) again(); // the master is a new one
    lines.classList.toggle("none", !lines.children.length);
    while (lines.children.length > 1000) lines.firstChild.remove();
    if (end) lines.scrollTop = lines.scrollHeight;
  });
  function before(line) {
    if (line.level === "print") return el("span", { class: "quiet" }, ` [${line.task}] `);
    return line.level === "info" ? " " : ` ${line.level}: `;
  }
  function again() { after = 0; lines.replaceChildren(); source.load(); }
  return source;
}
