// What things are called, and how numbers and times are told.

import { el, said } from "./dom.js";

export const PHASES = {
  failed: ["✕", "failed"],
  active: ["◐", "active"],
  unknown: ["?", "unknown"],
  succeeded: ["✓", "succeeded"],
  deleted: ["–", "deleted"],
  gone: ["∅", "gone"],
  skipped: ["↷", "skipped"],
};

const TASK_PHASES = {
  PROCESSING: "active",
  SUCCESS: "succeeded",
  FAILED: "failed",
  DELETE: "deleted",
  DELETED: "deleted",
  SKIPPED: "skipped",
};
export const taskPhase = (status) =>
  Object.hasOwn(TASK_PHASES, status) ? TASK_PHASES[status] : "unknown";

// In a bar what failed comes first, so that one of thousands is still seen.
export const BAR = ["failed", "unknown", "succeeded", "skipped", "deleted", "active"];

export const number = (value) => Number(value).toLocaleString("en");
export const many = (count, one, more = one + "s") =>
  `${number(count)} ${count === 1 ? one : more}`;

// What kept the last look at a job from an answer, where something did.
export function lastError(job, more = "") {
  if (!job.last_error) return null;
  const { reason, error_msg: message } = job.last_error;
  return el(
    "p",
    { class: "error" },
    "△ the last look failed: ",
    said(message ? `${reason} – ${message}` : reason),
    more,
  );
}

export function mark(phase, text) {
  const [glyph, word] = PHASES[phase] ?? PHASES.unknown;
  return el(
    "span",
    { class: "mark", "data-phase": phase },
    el("span", { class: "glyph", "aria-hidden": "true" }, glyph),
    text ?? word,
  );
}

export function byPhase(statuses) {
  const counts = {};
  for (const [status, count] of Object.entries(statuses)) {
    const phase = taskPhase(status);
    counts[phase] = (counts[phase] ?? 0) + count;
  }
  return counts;
}

// A bar of a job's tasks, and the same in words.
export function progress(statuses) {
  const counts = byPhase(statuses);
  const all = Object.values(counts).reduce((sum, count) => sum + count, 0);
  if (!all)
    return el("div", { class: "progress" }, el("p", { class: "quiet" }, "no tasks"));
  const done = all - (counts.active ?? 0) - (counts.unknown ?? 0);
  const bar = el("div", { class: "bar", "aria-hidden": "true" });
  for (const phase of BAR) {
    if (!counts[phase]) continue;
    const part = el("span", { "data-phase": phase });
    part.style.flexGrow = counts[phase];
    bar.append(part);
  }
  const words = el(
    "p",
    { class: "counts" },
    el("b", {}, `${number(done)} of ${number(all)}`),
    " done",
  );
  if (counts.failed)
    words.append(" · ", el("span", { class: "bad" }, `${number(counts.failed)} failed`));
  if (counts.unknown) words.append(` · ${number(counts.unknown)} unknown`);
  return el("div", { class: "progress" }, bar, words);
}

// Failures that say the same, with the first of their servers.
export function failures(groups, href) {
  return el(
    "ul",
    { class: "failures" },
    groups.map((group) =>
      el(
        "li",
        {},
        el("span", { class: "times" }, `${number(group.count)} ×`),
        el(
          "div",
          {},
          el(
            "p",
            { class: "message" },
            group.message ? said(group.message) : "no message was given",
          ),
          el(
            "p",
            { class: "servers" },
            group.servers.map((server, place) => [
              place ? ", " : "",
              href ? el("a", { href: href(server) }, said(server)) : said(server),
            ]),
            group.count > group.servers.length
              ? ` and ${number(group.count - group.servers.length)} more`
              : "",
          ),
        ),
      ),
    ),
  );
}

// Times: told as an age that keeps moving, the moment itself on demand.

let ahead = 0; // milliseconds that the watcher's clock is ahead of this one
export function setClock(now) {
  ahead = Date.parse(now) - Date.now();
}
export const nowMs = () => Date.now() + ahead;

export function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 100) return `${s} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  if (s < 172800) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} d`;
}

const told = (node) => {
  const seconds = (nowMs() - Date.parse(node.dateTime)) / 1000;
  return seconds < -1 ? `in ${span(-seconds)}` : `${span(seconds)} ago`;
};
export function ago(moment, none = "never") {
  if (!moment) return el("span", { class: "quiet" }, none);
  const node = el("time", { datetime: moment, class: "ago", title: exact(moment) });
  node.textContent = told(node);
  return node;
}
export function keepTimes() {
  setInterval(() => {
    if (document.hidden) return;
    for (const node of document.querySelectorAll("time.ago")) {
      const text = told(node);
      if (node.textContent !== text) node.textContent = text;
    }
  }, 1000);
}
export const exact = (moment) => (moment ? moment.slice(0, 19).replace("T", " ") + " UTC" : "");
export const clock = (moment) => (moment ? moment.slice(11, 19) : "?");
