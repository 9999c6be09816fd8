// What the journal has of a job, newest first; what happened alike at one moment is one line.

import { ask } from "./api.js";
import { el, fill, said } from "./dom.js";
import { PHASES, clock, exact, many, number, taskPhase } from "./words.js";

const WINDOW = 200;
const FIRST = 12;
const MOST_EVENTS = 5000;

export function timeline(target, jobId) {
  const list = el("ol", { class: "timeline" });
  const path = `/api/v1/events?job=${encodeURIComponent(jobId)}&limit=1000`;

  async function read() {
    const events = [];
    for (let after = 0, whole = false; !whole;) {
      if (events.length >= MOST_EVENTS) return { events, whole };
      const page = await ask(`${path}&after=${after}`);
      events.push(...page.events.filter((event) => event.target === target));
      whole = page.events.length < 1000;
      after = page.next;
    }
    return { events, whole: true };
  }

  let all = false;
  const more = (count) =>
    count > 0
      ? el(
          "li",
          {},
          el(
            "button",
            {
              type: "button",
              class: "button",
              onclick: () => {
                all = true;
                draw();
              },
            },
            `Show ${many(count, "earlier line")}`,
          ),
        )
      : null;

  async function draw() {
    try {
      const { events, whole } = await read();
      const groups = folded(events).reverse().slice(0, WINDOW);
      const lines = groups.slice(0, all ? WINDOW : FIRST).map(drawn);
      const rest = `Only the first ${number(MOST_EVENTS)} events are shown; the others are in the JSON.`;
      fill(list, lines, more(groups.length - lines.length), whole ? null : el("li", {}, rest));
      if (!events.length)
        fill(list, el("li", { class: "quiet" }, "Nothing is in the journal of this job."));
    } catch {
      fill(list, el("li", {}, "The journal cannot be read now."));
    }
  }
  return { list, draw };
}

// Words alike but for what holds a number.
const shape = (message) =>
  (message ?? "").replace(/[\w.:/-]+/g, (word) => (/\d/.test(word) ? "#" : word));

function folded(events) {
  const groups = [];
  const open = new Map();
  for (const event of events) {
    const moment = event.observed_at?.slice(0, 19);
    const key = JSON.stringify([event.event, event.from, event.to, moment, shape(event.message)]);
    if (event.event.startsWith("task.") && open.has(key)) {
      open.get(key).push(event);
      continue;
    }
    const group = [event];
    open.set(key, group);
    groups.push(group);
  }
  return groups;
}

function drawn(group) {
  const [first] = group,
    count = group.length;
  const names = group
    .slice(0, 3)
    .map((event) => event.server_name ?? event.task_id)
    .filter(Boolean);
  const phase =
    first.event.startsWith("task.") && first.event !== "task.vanished"
      ? taskPhase(first.to)
      : first.phase;
  const what =
    {
      "job.first_seen": () => ["first seen: ", said(first.status ?? "no status yet")],
      "job.transition": () => [
        "the job's status: ",
        said(first.from ?? "none"),
        " → ",
        said(first.to ?? "none"),
      ],
      "job.abnormal_count": () => [`abnormal nodes: ${first.from ?? 0} → ${first.to ?? 0}`],
      "job.finished": () => ["finished: ", first.phase],
      "task.vanished": () => [`${many(count, "task")} no longer listed`],
      "task.transition": () => [
        `${many(count, "task")} `,
        first.from ? [said(first.from), " → "] : "",
        said(first.to),
      ],
    }[first.event] ?? (() => [first.event]);
  return el(
    "li",
    { "data-phase": phase },
    el(
      "p",
      { class: "when" },
      el(
        "time",
        { datetime: first.observed_at, title: exact(first.observed_at) },
        clock(first.observed_at),
      ),
      first.not_before ? el("span", { class: "quiet" }, ` after ${clock(first.not_before)}`) : null,
    ),
    el(
      "div",
      {},
      el(
        "p",
        {},
        el("span", { class: "glyph", "aria-hidden": "true" }, `${(PHASES[phase] ?? "·")[0]} `),
        what(),
      ),
      names.length
        ? el(
            "p",
            { class: "servers" },
            names.map((name, place) => [place ? ", " : "", said(name)]),
            count > names.length ? ` and ${number(count - names.length)} more` : "",
          )
        : null,
      first.message && first.event === "task.transition"
        ? el("p", { class: "message" }, said(first.message))
        : null,
    ),
  );
}
