// Boxes: state, memory, disk and how it grows.

import { h, show, state, svg } from "./dom.js";
import { about, ago, bytes, count, signed } from "./units.js";

/** How many boxes are listed before the rest is asked for. */
const MAX_ROWS = 40;

const STATES = {
  running: ["●", "running"], paused: ["‖", "paused"], restarting: ["↻", "restarting"],
  failed: ["■", "failed"], stopped: ["○", "stopped"], created: ["◌", "created"],
};
const ORDER = Object.keys(STATES);

const COLUMNS = [
  ["name", "Name", (row) => row.name, 1],
  ["state", "State", (row) => ORDER.indexOf(row.state), 1],
  ["memory", "Memory", (row) => row.memory, -1],
  ["disk", "Disk", (row) => row.disk ?? -1, -1],
  ["growth", "Last hour", (row) => row.growth ?? -Infinity, -1],
  ["since", "Since", (row) => row.since, -1],
];

let sorting = ["disk", -1];
let wanted = "";
let only = null;
let all = false;
let rows = [];
let memory = null;
let shown = "";
let list, chips, note, more;

/** Shows the boxes, with the columns of their past and the memory of the host. */
export function drawBoxes(boxes, past, info) {
  memory = info?.memory ?? null;
  rows = boxes.map((info) => {
    const history = past?.disks?.[info.id] ?? [];
    const series = [...history.filter((bytes) => bytes !== null), info.disk_allocated].filter((bytes) => bytes !== null && bytes !== undefined);
    const growth = series.length > 1 ? series.at(-1) - series[0] : null;
    const since = Date.parse(info.state === "running" || info.state === "paused" ? info.started_at : info.finished_at ?? info.created_at) / 1000;
    return { id: info.id, name: info.name, image: info.image, state: info.state, reason: info.reason, memory: info.options.memory, disk: info.disk_allocated, series, growth, since };
  });
  const text = JSON.stringify([rows, memory, Math.floor(Date.now() / 60000)]);
  if (text === shown && list?.isConnected) return;
  shown = text;
  if (rows.length === 0) {
    show("boxes", state("empty", "There are no boxes.", "boxlite run alpine makes one."));
    return;
  }
  if (!list?.isConnected) build();
  render();
}

function build() {
  const filter = h("input", { type: "search", "aria-label": "Boxes or images by name", placeholder: "Filter by name or image", spellcheck: "false", on: { input: (event) => { wanted = event.target.value.toLowerCase(); render(); } } });
  chips = h("div", { class: "chips", role: "group", "aria-label": "States" });
  list = h("tbody");
  note = h("p", { class: "promised" });
  more = h("button", { type: "button", class: "quiet", on: { click: () => { all = true; render(); } } });
  show("boxes", chips, h("div", { class: "tools" }, note, filter),
    h("div", { class: "rows", tabindex: "0", role: "region", "aria-label": "List of boxes" }, h("table", { class: "boxes" }, h("thead", {}, h("tr", {}, COLUMNS.map(([key, title, , direction]) =>
      h("th", { scope: "col", class: key, "data-key": key }, h("button", { type: "button", on: { click: () => sort(key, direction) } }, title))))), list), more));
}

function sort(key, direction) {
  sorting = sorting[0] === key ? [key, -sorting[1]] : [key, direction];
  render();
}

function render() {
  const counts = new Map();
  for (const row of rows) counts.set(row.state, (counts.get(row.state) ?? 0) + 1);
  const focused = document.activeElement?.dataset?.state;
  chips.replaceChildren(chip(null, "all", rows.length), ...ORDER.filter((name) => counts.has(name)).map((name) => chip(name, name, counts.get(name))));
  if (focused !== undefined) chips.querySelector(`[data-state="${focused}"]`)?.focus();
  note.textContent = promised();
  const [key, direction] = sorting;
  const value = COLUMNS.find(([name]) => name === key)[2];
  for (const head of document.querySelectorAll("#boxes th")) {
    head.setAttribute("aria-sort", head.dataset.key !== key ? "none" : direction > 0 ? "ascending" : "descending");
  }
  const found = rows
    .filter((row) => (!only || row.state === only) && (row.name.toLowerCase().includes(wanted) || row.image.toLowerCase().includes(wanted)))
    .sort((one, other) => {
      const [a, b] = [value(one), value(other)];
      const order = typeof a === "string" ? a.localeCompare(b) : a - b;
      return order * direction || one.name.localeCompare(other.name);
    });
  const most = Math.max(1, ...rows.map((row) => row.disk ?? 0));
  const visible = all ? found : found.slice(0, MAX_ROWS);
  list.replaceChildren(...visible.map((row) => draw(row, most)));
  if (found.length === 0) list.append(h("tr", { class: "none" }, h("td", { colspan: COLUMNS.length }, "No box is called so.")));
  more.hidden = visible.length === found.length;
  more.textContent = `Show all ${count(found.length, "box", "boxes")}`;
}

function chip(name, text, number) {
  return h("button", { type: "button", class: `chip ${name ?? ""}`, "data-state": name ?? "", "aria-pressed": String(only === name), on: { click: () => { only = name; render(); } } },
    name ? h("span", { class: "shape", "aria-hidden": "true" }, STATES[name][0]) : null, `${text} `, h("b", {}, number.toLocaleString("en")));
}

function promised() {
  if (!memory) return "";
  const sum = memory.promises.reduce((total, bytes) => total + bytes, 0);
  const used = memory.used ? `, ${about(memory.used)} in use` : "";
  return `Memory: ${bytes(sum)} of ${bytes(memory.limit)} promised to ${count(memory.promises.length, "box", "boxes")}${used}${memory.full ? ". ■ Full: the next start is refused." : ""}`;
}

function draw(row, most) {
  const [shape, word] = STATES[row.state] ?? ["?", row.state];
  return h("tr", {},
    h("th", { scope: "row", class: "name" }, h("span", { class: "title" }, row.name), h("span", { class: "image" }, row.image)),
    h("td", { class: `state ${row.state}` }, h("span", { class: "word" }, h("span", { class: "shape", "aria-hidden": "true" }, shape), word), row.reason ? h("span", { class: "reason" }, row.reason) : null),
    h("td", { class: "memory" }, bytes(row.memory)),
    h("td", { class: "disk" }, bytes(row.disk), h("span", { class: "meter" }, h("span", { css: { width: `${(((row.disk ?? 0) / most) * 100).toFixed(1)}%` } }))),
    h("td", { class: "growth" }, row.growth === null ? h("span", { class: "unknown", title: "known five minutes after the server's start" }, "–") : signed(row.growth), spark(row.series)),
    h("td", { class: "since" }, Number.isFinite(row.since) ? ago(row.since) : ""));
}

/** The sizes of an hour as a line. */
function spark(series) {
  if (series.length < 2 || series.at(-1) === series[0]) return null;
  const [width, height] = [64, 14];
  const [low, high] = [Math.min(...series), Math.max(...series)];
  const y = (bytes) => (high === low ? height - 1 : height - 1 - ((bytes - low) / (high - low)) * (height - 2));
  const points = series.map((bytes, index) => `${((index / (series.length - 1)) * width).toFixed(1)},${y(bytes).toFixed(1)}`);
  return svg("svg", { class: "spark", viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" }, svg("polyline", { points: points.join(" ") }));
}
