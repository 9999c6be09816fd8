// What keeps answers from coming, in words and with what to do about it.

import { el, said } from "./dom.js";
import { ago, many, nowMs, number, span } from "./words.js";

const REASONS = {
  unreachable: [
    "cannot be reached",
    "Look at the network, DNS and proxy between this machine and the endpoint.",
  ],
  throttled: [
    "asks us to go slower",
    "The rate is halved and grows back by itself; lower poll.requests_per_second if it stays.",
  ],
  server_error: [
    "answers with errors of its own",
    "Nothing to do here: jobs are asked again as soon as it recovers.",
  ],
  rejected: [
    "refuses the requests",
    "Look at the credentials, their permissions, region and project.",
  ],
  malformed: [
    "gives answers that cannot be read",
    "Look at the endpoint and at proxies on the way.",
  ],
  not_found: [
    "does not know some of the jobs",
    "Such a job counts as gone after three answers; look at its id and project.",
  ],
};

export function troubles(watcher) {
  const found = [];
  for (const target of watcher.targets) {
    const tell = (grave, text, help, more) =>
      found.push({ grave, target: target.name, text, help, more });
    if (target.key_locked) {
      tell(
        true,
        "the access key was refused; nothing more is asked with it",
        "Put a right key in place: it is tried at once. Until then requests are held back so that the cloud does not lock the key.",
        target.failing.find(({ reason }) => reason === "rejected")?.message,
      );
    }
    for (const failing of target.failing) {
      if (target.key_locked && failing.reason === "rejected") continue;
      const [text, help] = REASONS[failing.reason] ?? [failing.reason, ""];
      tell(
        failing.reason !== "not_found",
        `the cloud ${text} (${many(failing.jobs, "job")})`,
        help,
        failing.message,
      );
    }
    const age = target.oldest_answer_at
      ? (nowMs() - Date.parse(target.oldest_answer_at)) / 1000
      : 0;
    if (!found.some((one) => one.target === target.name) && age > overdue(target)) {
      tell(
        false,
        `its oldest answer is ${span(age)} old`,
        "More jobs are due than its rate lets go: raise poll.requests_per_second or poll.interval.",
      );
    }
    if (Math.abs(target.clock_skew_seconds) > 60) {
      tell(
        false,
        `this machine's clock is ${span(Math.abs(target.clock_skew_seconds))} ${target.clock_skew_seconds > 0 ? "ahead" : "behind"}`,
        "Set the clock: requests signed at another time are refused.",
      );
    }
  }
  // Of targets that other replicas watch, as the store has them.
  for (const { target, reason, jobs, message } of watcher.replica?.failing ?? []) {
    const [text, help] = REASONS[reason] ?? [reason, ""];
    const grave = reason !== "not_found";
    found.push({
      grave,
      target,
      text: `the cloud ${text} (${many(jobs, "job")})`,
      help,
      more: message,
    });
  }
  const own = (grave, text, help) => found.push({ grave, text, help });
  if (!watcher.configuration.valid)
    own(
      true,
      "The configuration that was last read is not in force",
      "watcher check says which setting; the log says which file.",
    );
  if (watcher.store.commit_age_seconds > 5)
    own(
      true,
      `The store has not answered for ${span(watcher.store.commit_age_seconds)}`,
      "Look at the disk: full, slow or gone. Nothing is lost; what is not stored is not told.",
    );
  const free = (watcher.replica?.units ?? []).filter((unit) => unit.state === "free");
  if (free.length)
    own(
      false,
      `Nobody watches ${many(free.length, "access key")}: ${free.flatMap((unit) => unit.targets).join(", ")}`,
      "Another replica takes over within its lease. If it stays, look whether replicas run, and at lease.failing in their logs.",
    );
  for (const sink of watcher.sinks) {
    if (sink.backlog > 1000)
      own(
        false,
        `${number(sink.backlog)} events wait for the sink ${sink.name}`,
        "Look at its receiver and at sink.failing in the log.",
      );
    if (sink.undeliverable)
      own(
        false,
        `${many(sink.undeliverable, "event")} refused for good by the sink ${sink.name}`,
        "The log says why; they are in the journal still: watcher events.",
      );
    if (sink.dead_letters)
      own(
        true,
        `${many(sink.dead_letters, "event")} never reached the sink ${sink.name}`,
        "They are in the journal still: watcher events.",
      );
  }
  return found;
}

export const overdue = (target) =>
  30 +
  3 *
    (target.mode === "detail"
      ? target.interval_seconds
      : Math.max(target.interval_seconds, target.task_interval_seconds));

export function card(one) {
  return el(
    "li",
    { class: one.grave ? "trouble grave" : "trouble" },
    el(
      "p",
      { class: "what" },
      el("span", { "aria-hidden": "true" }, one.grave ? "▲ " : "△ "),
      one.target ? [said(one.target), ": "] : "",
      one.text,
    ),
    one.more ? el("p", { class: "message" }, said(one.more)) : null,
    el("p", { class: "help" }, one.help),
  );
}

// One sentence: how old the oldest answer is.
export function freshness(watcher) {
  const asked = watcher.targets.filter((target) => target.running > 0);
  const old = asked
    .filter((target) => target.oldest_answer_at)
    .sort((one, other) => (one.oldest_answer_at < other.oldest_answer_at ? -1 : 1))[0];
  const sentence = el("p", { class: "fresh" });
  if (!watcher.targets.length)
    sentence.append(
      watcher.replica ? "This replica watches no target." : "No target is configured.",
    );
  else if (!asked.length) sentence.append("No job runs: nothing is asked.");
  else if (!old) sentence.append("No answer has come yet.");
  else sentence.append("Oldest answer ", ago(old.oldest_answer_at), ", from ", said(old.name), ".");
  const silent = watcher.targets.reduce((sum, target) => sum + target.unanswered, 0);
  if (old && silent) sentence.append(` ${many(silent, "job")} not answered yet.`);
  return sentence;
}
