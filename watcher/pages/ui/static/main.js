// Which page an address is.

import { byId } from "./dom.js";
import { showJob } from "./job.js";
import { showList } from "./list.js";
import { keepTimes } from "./words.js";
import { showWatcher } from "./watcher.js";

// A part of an address as text; one that is none is shown as it stands.
function plain(part = "") {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function show() {
  const [, room, target, jobId] = location.pathname.split("/");
  const main = byId("main");
  if (room === "jobs") showJob(main, plain(target), plain(jobId));
  else if (room === "watcher") showWatcher(main);
  else showList(main);
  for (const link of document.querySelectorAll("nav a")) {
    const here = link.pathname === (room === "watcher" ? "/watcher" : "/");
    if (here) link.setAttribute("aria-current", "page");
  }
}

// Back and forward: the address says all there is to know.
addEventListener("popstate", () => location.reload());
addEventListener("keydown", (event) => {
  const box = document.querySelector("input[type=search]");
  if (event.key === "/" && box && event.target !== box && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    box.focus();
    box.select();
  }
});
keepTimes();
show();
