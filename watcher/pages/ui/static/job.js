// One job: what is known of it, its tasks at one glance and in rows, and what happened.

import { ask, follow, live } from "./api.js";
import { byId, el, fill, said } from "./dom.js";
import { taskGrid } from "./grid.js";
import { timeline } from "./timeline.js";
import {
  PHASES,
  ago,
  clock,
  exact,
  failures,
  lastError,
  many,
  mark,
  number,
  progress,
  setClock,
  taskPhase,
} from "./words.js";

const WINDOW = 200;
const FIRST = ["failed", "unknown", "active"];
const taskRank = (task) => {
  const place = FIRST.indexOf(taskPhase(task.status));
  return place < 0 ? FIRST.length : place;
};

export function showJob(main, target, jobId) {
  const path = `/api/v1/jobs/${encodeURIComponent(target)}/${encodeURIComponent(jobId)}`;
  const asked = new URLSearchParams(location.search);
  const get = (name) => asked.get(name) ?? "";
  let job = null,
    shown = WINDOW,
    ordered = [];

  const head = el("section", { class: "head" });
  const failed = el("section", { "aria-labelledby": "failed-title", hidden: true });
  const facts = el("section", { class: "facts-box" });
  const grid = taskGrid(({ server_name: name }) => {
    if (!name) return;
    box.value = name;
    set({ q: name });
  });
  const chips = el("div", { class: "chips", role: "group", "aria-label": "Show tasks that are" });
  const box = el("input", {
    type: "search",
    value: get("q"),
    placeholder: "server or message",
    "aria-label": "Search in the tasks of this job",
    autocomplete: "off",
    spellcheck: "false",
    maxlength: "200",
  });
  const tasks = el("div", { class: "table-box" });
  const happened = timeline(target, jobId);
  fill(
    main,
    head,
    failed,
    el(
      "section",
      { "aria-labelledby": "tasks-title" },
      el("h2", { id: "tasks-title" }, "Tasks"),
      grid.figure,
    ),
    el(
      "section",
      { "aria-labelledby": "timeline-title" },
      el("h2", { id: "timeline-title" }, "What happened"),
      happened.list,
    ),
    el(
      "section",
      { "aria-labelledby": "servers-title" },
      el("h2", { id: "servers-title" }, "Server by server"),
      el(
        "div",
        { class: "tools" },
        chips,
        el(
          "form",
          { role: "search", class: "search", onsubmit: (event) => event.preventDefault() },
          box,
        ),
      ),
      tasks,
    ),
    facts,
  );

  const set = (changes) => {
    for (const [name, value] of Object.entries(changes))
      value ? asked.set(name, value) : asked.delete(name);
    history.replaceState(null, "", asked.size ? `?${asked}` : location.pathname);
    shown = WINDOW;
    drawTasks();
  };
  let wait = null;
  box.addEventListener("input", () => {
    clearTimeout(wait);
    wait = setTimeout(() => set({ q: box.value.trim() }), 150);
  });

  function drawHead() {
    document.title = `${PHASES[job.phase][0]} ${job.name || job.job_id} · devserver-watcher`;
    fill(
      head,
      el(
        "p",
        { class: "crumbs" },
        el("a", { href: "/" }, "Jobs"),
        " › ",
        el("a", { href: `/?target=${encodeURIComponent(target)}` }, said(target)),
      ),
      el(
        "h1",
        {
          class: (job.name ?? "").length > 60 ? "long" : null,
          "data-state": { failed: "bad", succeeded: "good" }[job.phase] ?? null,
        },
        said(job.name || job.job_id),
      ),
      el(
        "p",
        { class: "ids" },
        mark(job.phase),
        job.type ? [" · ", said(job.type)] : null,
        " · ",
        el("code", {}, job.job_id),
        " · answered ",
        ago(job.last_success_at),
        job.next_poll_at ? [" · next look ", ago(job.next_poll_at)] : null,
      ),
      lastError(job, ` (${many(job.failures, "look")} running)`),
      progress(job.task_counts),
    );
    failed.hidden = !job.folded_failures.length && !(job.abnormal_count > 0);
    fill(
      failed,
      el("h2", { id: "failed-title" }, "What failed, and why"),
      job.folded_failures.length
        ? failures(job.folded_failures, (server) => `?q=${encodeURIComponent(server)}`)
        : el(
            "p",
            { class: "message" },
            `the cloud counts ${many(job.abnormal_count ?? 0, "abnormal node")} and names no task`,
          ),
    );
    failed.querySelectorAll("a").forEach((link) =>
      link.addEventListener("click", (event) => {
        event.preventDefault();
        box.value = new URL(link.href).searchParams.get("q");
        set({ q: box.value });
        box.scrollIntoView({ block: "center" });
      }),
    );
  }

  function drawFacts() {
    const fact = (name, value) =>
      value === null || value === undefined || value === ""
        ? null
        : el(
            "div",
            {},
            el("dt", {}, name),
            el("dd", {}, value instanceof Node ? value : said(value)),
          );
    const items = (job.items ?? [])
      .map(
        (item) =>
          `${item.type ?? "?"} ${Object.entries(item.spec)
            .map(([key, value]) => `${key}=${value}`)
            .join(" ")}`,
      )
      .join("; ");
    fill(
      facts,
      el("h2", {}, "Facts"),
      el(
        "dl",
        { class: "facts" },
        [
          fact("status", job.status),
          fact("abnormal count", job.abnormal_count),
          fact("description", job.description),
          fact("template", job.template_id),
          fact("user", job.user_name),
          fact("items", items),
          fact("project", job.project_id),
          fact("watched by replica", job.replica),
          fact("created", exact(job.created_at)),
          fact("updated", exact(job.updated_at)),
          fact("first seen", exact(job.first_seen_at)),
          fact("finished", exact(job.finished_at)),
        ].filter(Boolean),
      ),
      el(
        "p",
        {},
        el("a", { href: path }, "this job as JSON"),
        " · ",
        el(
          "a",
          { href: `/api/v1/events?job=${encodeURIComponent(jobId)}&limit=1000` },
          "its events as JSON",
        ),
      ),
    );
  }

  function drawTasks() {
    const status = get("status"),
      q = get("q").toLowerCase();
    const has = (text) => text?.toLowerCase().includes(q);
    const found = ordered.filter(
      (task) =>
        (!status || task.status === status) &&
        (!q || has(task.server_name) || has(task.server_id) || has(task.message) || has(task.id)),
    );
    const chip = (word, label, count) =>
      el(
        "button",
        {
          type: "button",
          class: "chip",
          "aria-pressed": status === word ? "true" : "false",
          "data-phase": word ? taskPhase(word) : null,
          onclick: () => set({ status: word }),
        },
        word
          ? el("span", { class: "glyph", "aria-hidden": "true" }, PHASES[taskPhase(word)][0])
          : null,
        said(label),
        " ",
        el("b", {}, number(count)),
      );
    fill(
      chips,
      chip("", "all", ordered.length),
      ...Object.entries(job.task_counts)
        .sort((a, b) => taskRank({ status: a[0] }) - taskRank({ status: b[0] }))
        .map(([word, count]) => chip(word, word, count)),
    );
    const row = (task) =>
      el(
        "tr",
        { "data-phase": taskPhase(task.status) },
        el("td", {}, mark(taskPhase(task.status), task.status)),
        el(
          "th",
          { scope: "row" },
          said(task.server_name ?? task.server_id ?? task.id),
          task.missing_answers >= 2 ? el("span", { class: "quiet" }, " no longer listed") : null,
        ),
        el("td", { class: "message" }, task.message ? said(task.message) : ""),
        el(
          "td",
          {},
          task.updated_at
            ? el(
                "time",
                { datetime: task.updated_at, title: exact(task.updated_at) },
                clock(task.updated_at),
              )
            : "",
        ),
      );
    fill(
      tasks,
      found.length
        ? el(
            "table",
            {},
            el("caption", { class: "hidden" }, "Tasks of this job, failed first"),
            el(
              "thead",
              {},
              el(
                "tr",
                {},
                ["status", "server", "message", "changed (UTC)"].map((word) =>
                  el("th", { scope: "col" }, word),
                ),
              ),
            ),
            el("tbody", {}, found.slice(0, shown).map(row)),
          )
        : el(
            "p",
            { class: "empty" },
            ordered.length ? "No task matches." : "No tasks have been told yet.",
          ),
      found.length > shown
        ? el(
            "button",
            {
              type: "button",
              class: "button",
              onclick: () => {
                shown += WINDOW;
                drawTasks();
              },
            },
            `Show ${number(Math.min(WINDOW, found.length - shown))} more of ${number(found.length)}`,
          )
        : "",
    );
  }

  let told = "";
  async function load() {
    try {
      job = await ask(path);
    } catch (error) {
      if (error.status === 404 && !job) missing();
      throw error;
    }
    if (!head.isConnected) return location.reload(); // it was missing, and came
    const text = JSON.stringify({
      ...job,
      version: 0,
      last_poll_at: 0,
      next_poll_at: 0,
      last_success_at: 0,
    });
    drawHead();
    if (text !== told) {
      told = text;
      ordered = job.tasks
        .map((task, place) => [taskRank(task), place, task])
        .sort((a, b) => a[0] - b[0] || a[1] - b[1])
        .map((each) => each[2]);
      drawFacts();
      grid.draw(ordered);
      drawTasks();
      happened.draw();
    }
    return job.version;
  }

  function missing() {
    document.title = "not watched · devserver-watcher";
    fill(
      main,
      el(
        "section",
        { class: "head" },
        el("h1", {}, "This job is not watched"),
        el(
          "p",
          {},
          el("code", {}, said(jobId)),
          " of ",
          said(target),
          " is not on the list, or has left it: a finished job leaves after finished.retention.",
        ),
        el(
          "p",
          {},
          el("a", { class: "button", href: "/" }, "All jobs"),
          " ",
          el(
            "a",
            { class: "button", href: `/api/v1/events?job=${encodeURIComponent(jobId)}&limit=1000` },
            "What the journal has of it",
          ),
        ),
      ),
    );
  }

  let pending = null;
  const heard = (name, data) => {
    if (name === "counts" || data.job_id !== jobId || data.target !== target) return;
    if (name === "gone") return live("paused", "no longer watched");
    // The larger the job, the more seldom it is asked for whole.
    pending ??= setTimeout(
      () => {
        pending = null;
        load().catch(() => {});
      },
      300 + (job?.tasks.length ?? 0),
    );
  };
  setInterval(() => {
    if (!document.hidden && job && !job.finished_at)
      ask(`${path}?limit=1`)
        .then(({ tasks: _, ...now }) => {
          job = { ...job, ...now };
          drawHead();
        })
        .catch(() => {});
  }, 10000);
  follow({ target, q: jobId }, heard, load);
  ask("/api/v1/watcher")
    .then((watcher) => {
      setClock(watcher.now);
      byId("version").textContent = `version ${watcher.version}`;
    })
    .catch(() => {});
}
