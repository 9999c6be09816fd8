// The tasks of a job as squares, in the order of the rows: five thousand at one glance.

import { el } from "./dom.js";
import { BAR, PHASES, byPhase, many, mark, number, taskPhase } from "./words.js";

const LEGEND = ["failed", "active", "succeeded", "skipped", "unknown"];
const dark = matchMedia("(prefers-color-scheme: dark)");

// Makes the figure; `picked` is told the task whose square was clicked.
export function taskGrid(picked) {
  const canvas = el("canvas", { role: "img" });
  const tip = el("p", { class: "tip", "aria-hidden": "true" });
  const legend = el(
    "figcaption",
    { class: "legend" },
    LEGEND.map((phase) => mark(phase)),
    tip,
  );
  const figure = el("figure", { class: "grid" }, canvas, legend);
  let tasks = [],
    side = 18,
    gap = 2,
    across = 1,
    drawn = "";

  function draw(given = tasks) {
    tasks = given;
    const looks = tasks.map((task) => PHASES[taskPhase(task.status)][0]).join("");
    const state = `${looks} ${figure.clientWidth} ${dark.matches} ${devicePixelRatio}`;
    if (state === drawn) return;
    drawn = state;
    const pen = measure();
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    const colours = Object.fromEntries([...BAR, "paper"].map((name) => [name, colour(name)]));
    tasks.forEach((task, place) => {
      const x = (place % across) * (side + gap);
      const y = Math.floor(place / across) * (side + gap);
      square(pen, side, taskPhase(task.status), colours, x, y);
    });
    canvas.setAttribute("aria-label", inWords(tasks));
  }

  // The more tasks, the smaller the squares.
  function measure() {
    const count = tasks.length;
    gap = count > 1500 ? 1 : 2;
    side = count > 6000 ? 5 : count > 1500 ? 8 : count > 300 ? 12 : 18;
    across = Math.max(1, Math.floor((figure.clientWidth + gap) / (side + gap)));
    const height = Math.max(1, Math.ceil(count / across) * (side + gap) - gap);
    const scale = devicePixelRatio || 1;
    canvas.width = figure.clientWidth * scale;
    canvas.height = height * scale;
    canvas.style.height = `${height}px`;
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    return pen;
  }

  const under = (event) => {
    const column = Math.floor(event.offsetX / (side + gap));
    const row = Math.floor(event.offsetY / (side + gap));
    return column < across ? tasks[row * across + column] : undefined;
  };
  canvas.addEventListener("pointermove", (event) => {
    const task = under(event);
    tip.textContent = task ? told(task) : "";
  });
  canvas.addEventListener("pointerleave", () => {
    tip.textContent = "";
  });
  canvas.addEventListener("click", (event) => {
    const task = under(event);
    if (task) picked(task);
  });
  addEventListener("resize", () => draw());
  dark.addEventListener("change", () => draw());
  return { figure, draw };
}

function told(task) {
  const name = task.server_name ?? task.server_id ?? task.id;
  return [PHASES[taskPhase(task.status)][0], name, task.status, task.message ?? ""].join("  ");
}

function inWords(tasks) {
  const statuses = {};
  for (const { status } of tasks) statuses[status] = (statuses[status] ?? 0) + 1;
  const counts = Object.entries(byPhase(statuses)).map(
    ([phase, count]) => `${number(count)} ${phase}`,
  );
  return `${many(tasks.length, "task")}: ${counts.join(", ")}. The same is in the table below.`;
}

// Each status has a shape of its own, for whom the colours are alike.
function square(pen, side, phase, colours, x, y) {
  pen.fillStyle = pen.strokeStyle = colours[phase];
  if (phase === "active" || phase === "unknown") {
    pen.lineWidth = side > 8 ? 1.5 : 1;
    pen.strokeRect(x + 0.75, y + 0.75, side - 1.5, side - 1.5);
    if (phase === "unknown") pen.fillRect(x + side * 0.35, y + side * 0.35, side * 0.3, side * 0.3);
    return;
  }
  pen.fillRect(x, y, side, side);
  if (phase === "failed" && side >= 8) cross(pen, side, colours.paper, x, y);
}

function cross(pen, side, colour, x, y) {
  const near = side * 0.28,
    far = side - near;
  pen.strokeStyle = colour;
  pen.lineWidth = side > 10 ? 2 : 1.25;
  pen.beginPath();
  pen.moveTo(x + near, y + near);
  pen.lineTo(x + far, y + far);
  pen.moveTo(x + far, y + near);
  pen.lineTo(x + near, y + far);
  pen.stroke();
}
