// What the page asks of the watcher: JSON, and one stream a tab that sleeps while hidden.

import { byId } from "./dom.js";

export async function ask(path) {
  const answer = await fetch(path, { headers: { Accept: "application/json" } });
  const body = await answer.json();
  if (!answer.ok)
    throw Object.assign(new Error(body.error ?? answer.statusText), { status: answer.status });
  return body;
}

export function live(state, text) {
  const node = byId("live");
  if (node.dataset.state === state && node.textContent === text) return;
  node.dataset.state = state;
  node.textContent = text;
}

// Follows the rows that change. `reload` gives the version from which to go on.
export function follow(query, heard, reload) {
  let source = null,
    since = null,
    retry = null,
    over = false;
  const close = () => {
    source?.close();
    source = null;
    clearTimeout(retry);
  };
  const begin = async () => {
    close();
    try {
      since = await reload();
      open();
    } catch (error) {
      live("broken", { 400: "refused", 404: "not watched" }[error.status] ?? "not answering");
      retry = setTimeout(begin, 3000);
    }
  };
  const open = () => {
    close();
    if (over || document.hidden) return;
    const words = new URLSearchParams(query);
    words.set("since", since);
    source = new EventSource(`/api/v1/stream?${words}`);
    source.onopen = () => live("live", "live");
    source.onerror = () => {
      live("broken", "reconnecting");
      if (source?.readyState === EventSource.CLOSED) retry = setTimeout(begin, 5000);
    };
    for (const name of ["job", "gone", "counts"]) {
      source.addEventListener(name, (event) => {
        if (event.lastEventId) since = event.lastEventId;
        heard(name, JSON.parse(event.data));
      });
    }
    source.addEventListener("reset", begin);
  };
  const seen = () => {
    if (!document.hidden) return since === null ? begin() : open();
    close();
    live("paused", "paused while hidden");
  };
  document.addEventListener("visibilitychange", seen);
  begin();
  return () => {
    over = true;
    close();
    document.removeEventListener("visibilitychange", seen);
  };
}

// Does something now and then again while somebody looks.
export function regularly(seconds, work) {
  let timer = null;
  const turn = async () => {
    clearTimeout(timer);
    if (!document.hidden) await work().catch(() => {});
    timer = setTimeout(turn, seconds * 1000);
  };
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) turn();
  });
  turn();
}
