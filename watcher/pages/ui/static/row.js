// A job as a row of the list, and where it stands.

import { el, said } from "./dom.js";
import { ago, failures, lastError, many, mark, progress } from "./words.js";

export const keyOf = (job) => `${job.target}/${job.job_id}`;
const began = (job) => Date.parse(job.created_at ?? job.first_seen_at ?? 0) || 0;
const named = (job) => (job.name ?? "").toLowerCase();

// As the server orders them, so that a row that changed finds its place.
function rank(job) {
  if (job.phase === "failed") return 0;
  if (job.phase === "active") return job.abnormal_count > 0 || job.failures.length ? 1 : 2;
  return job.phase === "unknown" ? 3 : 4;
}
export const ORDERS = {
  attention: (a, b) => rank(a) - rank(b) || began(b) - began(a),
  newest: (a, b) => began(b) - began(a),
  name: (a, b) => !named(a) - !named(b) || (named(a) < named(b) ? -1 : +(named(a) > named(b))),
};

export function drawRow(job) {
  const href = `/jobs/${encodeURIComponent(job.target)}/${encodeURIComponent(job.job_id)}`;
  const node = el(
    "li",
    { class: "job", "data-phase": job.phase },
    el("div", { class: "state" }, mark(job.phase)),
    el(
      "div",
      { class: "who" },
      el("h2", {}, el("a", { href }, said(job.name || job.job_id))),
      el(
        "p",
        { class: "ids" },
        said(job.target),
        " · ",
        el("code", {}, job.job_id),
        job.type ? [" · ", said(job.type)] : null,
        job.replica ? [" · replica ", el("code", {}, job.replica)] : null,
      ),
      job.failures.length
        ? failures(job.failures, (server) => `${href}?q=${encodeURIComponent(server)}`)
        : job.abnormal_count > 0
          ? el(
              "p",
              { class: "message" },
              `the cloud counts ${many(job.abnormal_count, "abnormal node")} and names no task`,
            )
          : null,
      lastError(job),
    ),
    progress(job.tasks),
    el(
      "dl",
      { class: "ages" },
      el("div", {}, el("dt", {}, "created"), el("dd", {}, ago(job.created_at, "unknown"))),
      job.finished_at
        ? el("div", {}, el("dt", {}, "finished"), el("dd", {}, ago(job.finished_at)))
        : el("div", {}, el("dt", {}, "answered"), el("dd", {}, ago(job.last_success_at))),
    ),
  );
  return node;
}
