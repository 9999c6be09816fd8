// The list of jobs: what failed first; its filters are the address.

import { ask, follow, live, regularly } from "./api.js";
import { byId, el, fill, keepFocus, said, swap } from "./dom.js";
import { ORDERS, drawRow, keyOf } from "./row.js";
import { card, freshness, troubles } from "./trouble.js";
import { PHASES, many, number, setClock } from "./words.js";

const WINDOW = 200;
const CHIPS = ["failed", "active", "unknown", "succeeded", "deleted", "gone"];
const SORTS = { attention: "what needs attention", newest: "newest first", name: "by name" };
const REFRESH = 15;

export function showList(main) {
  const asked = new URLSearchParams(location.search);
  const get = (name) => asked.get(name) ?? "";
  const order = ORDERS[get("sort")] ?? ORDERS.attention;
  const rows = new Map();
  let total = 0,
    next = null,
    stop = null,
    dirty = false,
    wait = null,
    counted = null,
    stale = false; // whether something keeps answers from coming

  const title = el("h1", { "aria-live": "polite" }, "Jobs");
  const fresh = el("div", { class: "freshness" });
  const alarms = el("ul", { class: "troubles", "aria-label": "What keeps answers from coming" });
  const chips = el("div", { class: "chips", role: "group", "aria-label": "Show jobs that are" });
  const box = el("input", {
    type: "search",
    name: "q",
    value: get("q"),
    placeholder: "id, name, type, server, message",
    "aria-label": "Search in all jobs",
    autocomplete: "off",
    spellcheck: "false",
    maxlength: "200",
  });
  const sorts = el(
    "select",
    { "aria-label": "Order" },
    Object.entries(SORTS).map(([value, text]) =>
      el("option", { value, selected: (get("sort") || "attention") === value }, text),
    ),
  );
  const targets = el("select", { "aria-label": "Target", hidden: true });
  const list = el("ol", { class: "jobs", "aria-label": "Jobs" });
  const foot = el("div", { class: "pager" });
  fill(
    main,
    el("section", { class: "head" }, title, fresh, alarms),
    el(
      "div",
      { class: "tools" },
      chips,
      el(
        "form",
        { role: "search", class: "search", onsubmit: (event) => event.preventDefault() },
        box,
        targets,
        sorts,
      ),
    ),
    list,
    foot,
  );

  const filters = () => {
    const words = new URLSearchParams();
    for (const name of ["target", "phase", "q"]) if (get(name)) words.set(name, get(name));
    return words;
  };
  const set = (changes, replace = false) => {
    for (const [name, value] of Object.entries({ cursor: "", ...changes })) {
      if (value) asked.set(name, value);
      else asked.delete(name);
    }
    const address = asked.size ? `/?${asked}` : "/";
    if (replace) history.replaceState(null, "", address);
    else history.pushState(null, "", address);
    start();
  };
  box.addEventListener("input", () => {
    clearTimeout(wait);
    wait = setTimeout(() => set({ q: box.value.trim() }, true), 250);
  });
  sorts.addEventListener("change", () =>
    location.assign(at({ sort: sorts.value === "attention" ? "" : sorts.value })),
  );
  targets.addEventListener("change", () => set({ target: targets.value }));
  const at = (changes) => {
    const words = new URLSearchParams(asked);
    for (const [name, value] of Object.entries({ cursor: "", ...changes }))
      value ? words.set(name, value) : words.delete(name);
    return words.size ? `/?${words}` : "/";
  };

  function drawCounts(body) {
    counted = body;
    const { counts, failing } = body;
    const all = Object.values(counts).reduce((sum, count) => sum + count, 0);
    const chosen = get("phase");
    const chip = (phase, label, count) =>
      el(
        "a",
        {
          class: "chip",
          href: at({ phase }),
          "aria-current": chosen === phase ? "true" : null,
          "data-phase": phase || null,
          onclick: (event) => {
            if (event.metaKey || event.ctrlKey) return;
            event.preventDefault();
            set({ phase });
          },
        },
        phase ? el("span", { class: "glyph", "aria-hidden": "true" }, PHASES[phase][0]) : null,
        label,
        " ",
        el("b", {}, number(count)),
      );
    fill(
      chips,
      chip("", "all", all),
      ...CHIPS.filter(
        (phase) => counts[phase] || phase === chosen || phase === "failed" || phase === "active",
      ).map((phase) => chip(phase, phase, counts[phase] ?? 0)),
    );
    const told = !all
      ? "Nothing is watched yet"
      : counts.failed
        ? `${number(counts.failed)} of ${many(all, "job")} failed${failing ? `, ${number(failing)} more ${failing === 1 ? "is" : "are"} failing` : ""}`
        : failing
          ? `${number(failing)} of ${many(all, "job")} ${failing === 1 ? "has" : "have"} failures`
          : counts.active
            ? `${many(counts.active, "job")} running, none failed`
            : `${many(all, "job")}, none failed`;
    const text = all && stale ? `${told}, as last answered` : told;
    if (title.textContent !== text) title.textContent = text;
    title.dataset.state = !all
      ? ""
      : counts.failed || failing
        ? "bad"
        : stale
          ? "stale"
          : "good";
    document.title =
      counts.failed + failing
        ? `✕ ${number(counts.failed + failing)} with failures · devserver-watcher`
        : "devserver-watcher";
  }

  function put(job, isNew) {
    const key = keyOf(job),
      known = rows.get(key);
    const same =
      known &&
      JSON.stringify({ ...known.job, next_poll_at: 0, last_poll_at: 0 }) ===
        JSON.stringify({ ...job, next_poll_at: 0, last_poll_at: 0 });
    if (same) return;
    const node = drawRow(job);
    if (isNew) node.classList.add("moved");
    if (known) swap(known.node, node);
    rows.set(key, { job, node });
    dirty = true;
  }

  // Whether a job that is not in the window belongs there: never on a later page, and where
  // the window is full only before its last row.
  let last = null;
  const comesIn = (job) =>
    !get("cursor") && (rows.size < WINDOW || !last || compare(job, last) < 0);
  const compare = (a, b) => order(a, b) || (keyOf(a) < keyOf(b) ? -1 : 1);

  function place() {
    if (!dirty) return;
    dirty = false;
    const sorted = [...rows.values()].sort((a, b) => compare(a.job, b.job));
    for (const { job, node } of sorted.splice(WINDOW)) {
      rows.delete(keyOf(job));
      node.remove();
    }
    last = sorted.at(-1)?.job ?? null;
    keepFocus(list, () => {
      sorted.forEach(({ node }, index) => {
        if (list.children[index] !== node) list.insertBefore(node, list.children[index] ?? null);
      });
      return list;
    });
    drawFoot();
  }

  function drawFoot() {
    const filtered = get("q") || get("phase") || get("target");
    const empty = rows.size
      ? null
      : filtered
        ? el("p", { class: "empty" }, "No job matches. ", el("a", { href: "/" }, "Show all jobs"))
        : beginning();
    fill(
      foot,
      ...[
        empty,
        rows.size && total > rows.size
          ? el("p", {}, `${number(rows.size)} of ${number(total)} jobs are shown.`)
          : null,
        get("cursor") ? el("a", { class: "button", href: at({ cursor: "" }) }, "First page") : null,
        next ? el("a", { class: "button", href: at({ cursor: next }) }, `Next ${WINDOW}`) : null,
      ].filter(Boolean),
    );
  }

  const beginning = () =>
    el(
      "div",
      { class: "empty begin" },
      el("p", {}, "A job shows up here as soon as it is watched. Give its id in one of three ways:"),
      el(
        "dl",
        {},
        [
          ["in the configuration", "targets: {prod: {jobs: [JOB_ID]}}"],
          ["in a job file, a line", "echo JOB_ID >> /etc/devserver-watcher/jobs.d/mine.txt"],
          ["over HTTP", `POST /api/v1/jobs {"target": "prod", "job_id": "JOB_ID"}`],
        ].map(([how, code]) => el("div", {}, el("dt", {}, how), el("dd", {}, el("code", {}, code)))),
      ),
    );

  async function load() {
    const words = filters();
    for (const name of ["sort", "cursor"]) if (get(name)) words.set(name, get(name));
    words.set("limit", WINDOW);
    const mine = String(words);
    load.latest = mine;
    const body = await ask(`/api/v1/jobs?${words}`).catch((error) => {
      if (error.status === 400) refuse(error.message);
      throw error;
    });
    if (load.latest !== mine) return body.version;
    total = body.total;
    next = body.next;
    const kept = new Set(body.jobs.map(keyOf));
    for (const [key, { node }] of rows)
      if (!kept.has(key)) {
        node.remove();
        rows.delete(key);
      }
    for (const job of body.jobs) put(job, false);
    dirty = true;
    place();
    drawCounts(body);
    list.setAttribute("aria-busy", "false");
    return body.version;
  }

  function refuse(message) {
    fill(
      foot,
      el(
        "p",
        { class: "empty" },
        "This address asks for something that there is not: ",
        said(message),
        ". ",
        el("a", { href: "/" }, "Show all jobs"),
      ),
    );
  }

  function worry(found) {
    fill(alarms, ...found.map(card));
    if (stale === (stale = found.some((one) => one.grave)) || !counted) return;
    drawCounts(counted);
  }

  let frame = null;
  function heard(name, data) {
    if (name === "counts") {
      drawCounts(data);
      const phases = get("phase") ? get("phase").split(",") : Object.keys(data.counts);
      if (!get("q")) total = phases.reduce((sum, phase) => sum + (data.counts[phase] ?? 0), 0);
      dirty = true;
    }
    if (name === "gone") {
      rows.get(keyOf(data))?.node.remove();
      rows.delete(keyOf(data));
      dirty = true;
    }
    if (name === "job" && (rows.has(keyOf(data)) || comesIn(data))) put(data, true);
    frame ??= requestAnimationFrame(() => {
      frame = null;
      place();
    });
  }

  function start() {
    stop?.();
    stop = follow(filters(), heard, load);
  }
  start();

  regularly(REFRESH, load);
  regularly(5, async () => {
    try {
      const watcher = await ask("/api/v1/watcher");
      setClock(watcher.now);
      fill(fresh, freshness(watcher));
      worry(troubles(watcher));
      byId("version").textContent = `version ${watcher.version}`;
      if (watcher.targets.length > 1 || get("target")) {
        targets.hidden = false;
        fill(
          targets,
          el("option", { value: "" }, "all targets"),
          ...watcher.targets.map(({ name }) =>
            el("option", { value: name, selected: name === get("target") }, name),
          ),
        );
      }
    } catch {
      live("broken", "not answering");
      worry([
        {
          grave: true,
          text: "The watcher does not answer: what you see is as it was",
          help: "Look whether it runs: systemctl status devserver-watcher, or the state of its Pod. This page goes on by itself once it answers.",
        },
      ]);
    }
  });
}
