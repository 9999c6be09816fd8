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
export const fill = (node, ...children) => node.replaceChildren(...kept(children));

// Text from outside, kept from turning the text around it. What would turn its own letters, so
// that it reads as something else, is shown as a character that is none.
const TURNING = /[\u202a-\u202e\u2066-\u2069]/g;
export const said = (text, attributes = {}) =>
  el("bdi", attributes, String(text).replace(TURNING, "\ufffd"));

export const byId = (id) => document.getElementById(id);
