// The dashboard: one stream of what the yard looks like each second, and pages that show parts of it.
import { el } from "./dom.js";
import { overview, jobs, jobPage, workers, timelinePage, logPage } from "./pages.js";

const main = document.getElementById("main");
const link = document.getElementById("link");
const PAGES = { "": overview, jobs, workers, timeline: timelinePage, log: logPage };

let yard = null; // the latest of the stream
let page = null; // what is shown: { show(yard), close() }
let held = false; // a person is in the middle of something: do not redraw under them

function open() {
  const [name, ...rest] = location.hash.replace(/^#\/?/, "").split("/");
  page?.close?.();
  main.replaceChildren();
  const make = name === "jobs" && rest[0] ? jobPage : PAGES[name] ?? overview;
  page = make(main, decodeURIComponent(rest[0] ?? ""));
  for (const a of document.querySelectorAll("nav a")) {
    if (a.getAttribute("href") === `#/${name}`) a.setAttribute("aria-current", "page");
    else a.removeAttribute("aria-current");
  }
  const title = a11yTitle(name, rest[0]);
  document.title = `${title} · taskyard`;
  if (yard) page.show(yard);
}
const a11yTitle = (name, id) => id ? `Job ${id}` : { jobs: "Jobs", workers: "Workers", timeline: "Timeline", log: "Log" }[name] ?? "Overview";

function listen() {
  const source = new EventSource("/api/events");
  source.onopen = () => say("up", "live");
  source.onmessage = (message) => {
    yard = JSON.parse(message.data);
    if (!link.classList.contains("up")) say("up", "live");
    if (!held && !document.hidden) page.show(yard);
  };
  source.onerror = () => {
    say("down", "the master does not answer; trying again");
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
addEventListener("pointerup", () => { held = false; });
addEventListener("hashchange", () => { open(); main.focus(); });
if (!main.children.length) main.append(el("p", { class: "quiet" }, "connecting to the master"));
open();
listen();
