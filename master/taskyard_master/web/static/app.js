// The dashboard: one stream of what the yard looks like each second, and pages that show parts of it.
import { overview, jobs, jobPage } from "./pages.js";
import { workers, logPage } from "./machines.js";
import { timelinePage } from "./timeline.js";

const main = document.getElementById("main");
const link = document.getElementById("link");
const SECONDS = 180; // of the charts
const PAGES = {
  "": [overview, "Overview"], jobs: [jobs, "Jobs"], workers: [workers, "Workers"],
  timeline: [timelinePage, "Timeline"], log: [logPage, "Log"],
};

let yard = null; // the latest of the stream
let page = null; // what is shown: { show(yard), close() }
let held = false; // a person is in the middle of something: do not redraw under them

function open() {
  const [name, ...rest] = location.hash.replace(/^#\/?/, "").split("/").map(decode);
  page?.close?.();
  main.replaceChildren();
  const [make, title] = name === "jobs" && rest[0] ? [jobPage, `Job ${rest[0]}`] : PAGES[name] ?? PAGES[""];
  page = make(main, ...rest);
  for (const a of document.querySelectorAll("nav a")) {
    if (a.getAttribute("href") === `#/${name}`) a.setAttribute("aria-current", "page");
    else a.removeAttribute("aria-current");
  }
  document.title = `${title} · taskyard`;
  if (yard) page.show(yard);
}
function decode(part) {
  try { return decodeURIComponent(part); } catch { return part; }
}

function take(next) {
  // A frame has the latest samples only; those before are kept here, unless the master is a new one.
  if (yard && yard.master.boot === next.master.boot) {
    const first = next.samples[0]?.[0] ?? Infinity;
    next.samples = [...yard.samples.filter((sample) => sample[0] < first), ...next.samples].slice(-SECONDS);
  }
  yard = next;
}

function listen() {
  const source = new EventSource("/api/events");
  source.onopen = () => say("up", "live");
  source.onmessage = (message) => {
    take(JSON.parse(message.data));
    say("up", "live");
    if (!held && !document.hidden) page.show(yard);
  };
  source.onerror = () => {
    say("down", "no answer, trying again");
    if (source.readyState === EventSource.CLOSED) {
      source.close();
      setTimeout(listen, 2000);
    }
  };
}
function say(kind, text) {
  if (link.textContent === text) return;
  link.className = kind;
  link.textContent = text;
}

main.addEventListener("pointerdown", () => { held = true; });
for (const end of ["pointerup", "pointercancel"]) addEventListener(end, () => { held = false; });
addEventListener("visibilitychange", () => { if (!document.hidden && yard) page.show(yard); });
addEventListener("hashchange", () => {
  open();
  scrollTo(0, 0);
  main.focus({ preventScroll: true });
});
open();
listen();
