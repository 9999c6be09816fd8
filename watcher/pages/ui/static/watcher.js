// The watcher itself: targets, store, sinks.

import { ask, live, regularly } from "./api.js";
import { byId, el, fill, said } from "./dom.js";
import { card, freshness, overdue, troubles } from "./trouble.js";
import { ago, exact, many, nowMs, number, setClock, span } from "./words.js";

const seconds = (value) =>
  value === null ? "–" : value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(1)} s`;

export function showWatcher(main) {
  document.title = "Watcher · devserver-watcher";
  const title = el("h1", {}, "Watcher");
  const fresh = el("div", { class: "freshness" });
  const alarms = el("ul", { class: "troubles", "aria-label": "What is wrong" });
  const targets = el("div", { class: "cards" });
  const replicas = el("section", { "aria-labelledby": "replicas-title", hidden: true });
  const own = el("div", { class: "cards" });
  fill(
    main,
    el("section", { class: "head" }, title, fresh, alarms),
    el(
      "section",
      { "aria-labelledby": "targets-title" },
      el("h2", { id: "targets-title" }, "Targets"),
      targets,
    ),
    replicas,
    el(
      "section",
      { "aria-labelledby": "own-title" },
      el("h2", { id: "own-title" }, "Store and sinks"),
      own,
    ),
  );
  let before = null;

  const fact = (name, value, bad = false) =>
    el("div", { class: bad ? "bad-fact" : null }, el("dt", {}, name), el("dd", {}, value));
  const rate = (target, now) => {
    const known = before?.targets.find(({ name }) => name === target.name);
    const passed = before ? (Date.parse(now) - Date.parse(before.now)) / 1000 : 0;
    return known && passed > 0 ? Math.max(0, (target.polls - known.polls) / passed) : null;
  };

  function drawTarget(target, now) {
    const sent = rate(target, now);
    const age = target.oldest_answer_at
      ? (nowMs() - Date.parse(target.oldest_answer_at)) / 1000
      : 0;
    const jobs = Object.entries(target.jobs)
      .filter(([, count]) => count)
      .map(([phase, count]) => `${number(count)} ${phase}`)
      .join(", ");
    return el(
      "article",
      { class: "card" },
      el(
        "h3",
        {},
        el("a", { href: `/?target=${encodeURIComponent(target.name)}` }, said(target.name)),
      ),
      el(
        "dl",
        { class: "facts" },
        fact("jobs", jobs || "none"),
        fact(
          "oldest answer",
          ago(target.oldest_answer_at, target.running ? "none yet" : "nothing runs"),
          age > overdue(target),
        ),
        fact(
          "failing",
          target.failing.length
            ? target.failing
                .map(
                  ({ reason, jobs: count }) => `${many(count, "job")} ${reason.replace("_", " ")}`,
                )
                .join(", ")
            : "no",
          target.failing.length > 0,
        ),
        fact("access key", target.key_locked ? "refused: held back" : "in use", target.key_locked),
        fact(
          "looks",
          `${sent === null ? "–" : sent.toFixed(1)} of ${number(target.requests_per_second)} a second, every ${span(target.interval_seconds)}, mode ${target.mode}`,
        ),
        fact("in flight", number(target.in_flight)),
        fact("mean request", seconds(target.request_seconds)),
        fact("mean lag", seconds(target.lag_seconds), target.lag_seconds > 5),
        fact(
          "clock",
          Math.abs(target.clock_skew_seconds) < 1
            ? "agrees"
            : `${target.clock_skew_seconds} s ahead`,
          Math.abs(target.clock_skew_seconds) > 60,
        ),
        fact(
          "looks so far",
          `${number(target.polls)}, ${number(target.poll_failures)} without an answer`,
        ),
      ),
    );
  }

  // Who watches what, where several share a store; what nobody watches stands first.
  function drawReplicas(replica) {
    const free = replica.units.filter((unit) => unit.state === "free");
    const names = new Set(replica.units.map((unit) => unit.replica).filter(Boolean));
    names.delete(replica.name);
    const units = (some) =>
      some.map(({ name, targets: used }) =>
        fact(said(name), el("span", {}, said(used.join(", ") || "no target")), some === free),
      );
    const box = (heading, some) =>
      el(
        "article",
        { class: "card" },
        el("h3", {}, heading),
        el("dl", { class: "facts" }, some.length ? units(some) : fact("units", "none")),
      );
    return [
      ...(free.length ? [box("watched by nobody", free)] : []),
      ...[replica.name, ...[...names].sort()].map((name) =>
        box(
          [el("code", {}, name.slice(0, 8)), name === replica.name ? " (this one)" : null],
          replica.units.filter((unit) => unit.replica === name),
        ),
      ),
    ];
  }

  function drawOwn(watcher) {
    const { store } = watcher;
    return [
      el(
        "article",
        { class: "card" },
        el("h3", {}, "Store"),
        el(
          "dl",
          { class: "facts" },
          fact("waiting to be stored", many(store.pending_jobs, "job")),
          fact(
            "present commit",
            store.commit_age_seconds ? span(store.commit_age_seconds) : "none",
            store.commit_age_seconds > 5,
          ),
        ),
      ),
      ...watcher.sinks.map((sink) =>
        el(
          "article",
          { class: "card" },
          el("h3", {}, said(sink.name)),
          el(
            "dl",
            { class: "facts" },
            fact("waiting", many(sink.backlog, "event"), sink.backlog > 1000),
            fact("delivered", number(sink.delivered)),
            fact("refused attempts", number(sink.failures)),
            fact("refused for good", many(sink.undeliverable, "event"), sink.undeliverable > 0),
            fact("given up", many(sink.dead_letters, "event"), sink.dead_letters > 0),
          ),
        ),
      ),
      el(
        "article",
        { class: "card" },
        el("h3", {}, "Process"),
        el(
          "dl",
          { class: "facts" },
          fact("version", watcher.version),
          fact("runs since", exact(watcher.started_at)),
          fact(
            "configuration",
            watcher.configuration.valid ? "in force" : "last one refused",
            !watcher.configuration.valid,
          ),
        ),
        el(
          "p",
          { class: "quiet" },
          "For more: ",
          el("code", {}, "watcher doctor"),
          ", ",
          el("a", { href: "/api/v1/watcher" }, "JSON"),
          ", ",
          el("a", { href: "/metrics" }, "metrics"),
        ),
      ),
    ];
  }

  regularly(3, async () => {
    try {
      const watcher = await ask("/api/v1/watcher");
      setClock(watcher.now);
      const found = troubles(watcher);
      title.textContent = found.length
        ? many(found.length, "thing needs a look", "things need a look")
        : "The watcher is well";
      title.dataset.state = found.length ? "bad" : "good";
      fill(fresh, freshness(watcher));
      fill(alarms, ...found.map(card));
      fill(targets, ...watcher.targets.map((target) => drawTarget(target, watcher.now)));
      replicas.hidden = !watcher.replica;
      if (watcher.replica)
        fill(
          replicas,
          el("h2", { id: "replicas-title" }, "Replicas"),
          el(
            "p",
            { class: "quiet" },
            `${number(watcher.replica.alive)} alive; units lost by this one: ${number(watcher.replica.losses)}. The targets above are its own.`,
          ),
          el("div", { class: "cards" }, ...drawReplicas(watcher.replica)),
        );
      fill(own, ...drawOwn(watcher));
      byId("version").textContent = `version ${watcher.version}`;
      before = watcher;
      live("live", "live");
    } catch (error) {
      live("broken", "not answering");
      fill(
        alarms,
        card({
          grave: true,
          text: "The watcher does not answer: what you see is as it was",
          help: "Look whether it runs: systemctl status devserver-watcher, or the state of its Pod.",
        }),
      );
    }
  });
}
