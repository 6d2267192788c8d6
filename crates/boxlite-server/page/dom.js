// Elements from plain values. Text is always text: nothing here takes markup.

const SVG = "http://www.w3.org/2000/svg";

/** Makes an element; `null` children and attributes are left out, `on` has listeners and `css` style properties. */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, { on = {}, css = {}, ...attributes }, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, String(value));
  }
  for (const [name, value] of Object.entries(css)) element.style.setProperty(name, value);
  for (const [name, listener] of Object.entries(on)) element.addEventListener(name, listener);
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Replaces what is in an element; `null` is left out. */
export function put(element, ...children) {
  element.replaceChildren(...children.flat().filter(Boolean));
}

/** Replaces the content of the section called `id`. */
export function show(id, ...children) {
  put(body(id), ...children);
}

export function body(id) {
  return document.querySelector(`#${id} > .body`);
}

/** What stands in a section that has nothing to show: while it loads, when it is empty, when it failed. */
export function state(kind, text, detail) {
  const shape = { bad: "■ ", warn: "▲ " }[kind] ?? "";
  return h("p", { class: `message ${kind}`, role: kind === "bad" ? "alert" : null }, `${shape}${text}`,
    detail ? h("span", { class: "detail" }, detail) : null);
}
