// Elements from data. Text goes in as text: nothing here reads markup.

export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...kept(children));
  return node;
}

const kept = (children) =>
  children
    .flat(Infinity)
    .filter((child) => child !== null && child !== undefined && child !== false);

// Puts children in the place of those that are there; what is null is left out.
export const fill = (node, ...children) =>
  keepFocus(node, () => {
    node.replaceChildren(...kept(children));
    return node;
  });

// Puts a node in the place of another.
export const swap = (node, other) =>
  keepFocus(node, () => {
    node.replaceWith(other);
    return other;
  });

// Whoever goes by keyboard stays where they are, though what is there is drawn anew.
export function keepFocus(node, draw) {
  const at = document.activeElement;
  const had = at && at !== node && node.contains(at) ? at : null;
  const likes = (root) => [...root.querySelectorAll(had.localName)];
  const place = had ? likes(node).indexOf(had) : -1;
  const drawn = draw();
  if (!had || document.activeElement === had) return;
  if (drawn.contains(had)) return had.focus({ preventScroll: true }); // it moved
  const found = likes(drawn);
  const same = had.href ? found.find(({ href }) => href === had.href) : null;
  (same ?? found[Math.min(place, found.length - 1)])?.focus({ preventScroll: true });
}

// Text from outside, kept from turning the text around it. What would turn its own letters, so
// that it reads as something else, is shown as a character that is none.
const TURNING = /[\u202a-\u202e\u2066-\u2069]/g;
export const said = (text, attributes = {}) =>
  el("bdi", attributes, String(text).replace(TURNING, "\ufffd"));

export const byId = (id) => document.getElementById(id);
