// Free space and what gc reclaimed, over a day.

import { h, show, state } from "./dom.js";
import { about, bytes, clock, span } from "./units.js";
import uPlot from "./vendor/uplot.js";

const HEIGHT = 160;

let plot = null;
let frame, says, shown;

/** Draws the samples of the host against its floors. */
export function drawCurves(past, space) {
  const known = past.free.filter((bytes) => bytes !== null).length;
  if (known < 2) {
    plot?.destroy();
    plot = null;
    show("past", state("empty", "The server has just begun to look.", `It measures every ${span(past.interval)} and keeps a day, in memory.`));
    return;
  }
  const data = [past.at, past.free, past.reclaimed.map((bytes) => bytes || null)];
  const text = `${past.at.at(-1)} ${past.at.length} ${past.at[0]}`;
  const drawn = plot && frame.isConnected;
  if (drawn && text === shown) return;
  shown = text;
  if (drawn) plot.setData(data);
  else build(data, space);
  const free = past.free.filter((bytes) => bytes !== null);
  const sum = past.reclaimed.reduce((total, bytes) => total + bytes, 0);
  says.replaceChildren(
    h("span", {}, h("span", { class: "swatch line", "aria-hidden": "true" }), "free ", h("b", {}, bytes(free.at(-1))), `, between ${bytes(Math.min(...free))} and ${bytes(Math.max(...free))} in ${span(past.at.at(-1) - past.at[0])}`),
    h("span", {}, h("span", { class: "swatch bars", "aria-hidden": "true" }), "reclaimed ", h("b", {}, bytes(sum))));
}

function build(data, space) {
  plot?.destroy();
  frame = h("div", { class: "plot", role: "img", "aria-label": "Free space over time; the figures are above" });
  says = h("p", { class: "legend" });
  show("past", says, frame);
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: `12px ${style.getPropertyValue("--sans")}` };
  plot = new uPlot({
    width: Math.max(200, frame.clientWidth), height: HEIGHT, legend: { show: false }, padding: [8, 4, 0, 0],
    cursor: { y: false, drag: { setScale: false, x: false } },
    scales: { x: { time: true }, y: { range: (_, low, high) => around(low, high) }, reclaimed: { range: (_, low, high) => [0, Math.max(1, high * 2.5)] } },
    axes: [{ ...axis, size: 30, values: (_, ticks) => ticks.map((at) => clock(at * 1000).slice(-8, -3)), space: 72 },
      { ...axis, size: 64, values: (_, ticks) => ticks.map((value) => about(value)), space: 24 }, { scale: "reclaimed", show: false }],
    series: [{},
      { label: "free", stroke: colour("--ink"), width: 1.5, fill: colour("--wash"), points: { show: false } },
      { label: "reclaimed", scale: "reclaimed", stroke: colour("--accent"), fill: colour("--accent"), paths: uPlot.paths.bars({ size: [0.9, 6, 3] }), points: { show: false } }],
    hooks: {
      draw: [(drawn) => floors(drawn, space, colour)],
      setCursor: [(drawn) => under(drawn)],
    },
  }, data, frame);
  new ResizeObserver(() => plot?.setSize({ width: Math.max(200, frame.clientWidth), height: HEIGHT })).observe(frame);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { plot?.destroy(); plot = null; shown = ""; });
}

function around(low, high) {
  if (low === null || high === null) return [0, 1];
  const margin = Math.max((high - low) * 0.15, high * 0.01, 1);
  return [Math.max(0, low - margin), high + margin];
}

/** The floors that lie within the drawn range. */
function floors(drawn, space, colour) {
  if (!space?.floors) return;
  const { soft, hard } = space.floors;
  const warn = Math.max(soft, (space.free.bytes_total * space.floors.soft_percent) / 100);
  const { ctx, bbox } = drawn;
  ctx.save();
  for (const [value, name] of [[warn, "--warn"], [hard, "--bad"]]) {
    const y = Math.round(drawn.valToPos(value, "y", true)) + 0.5;
    if (y < bbox.top || y > bbox.top + bbox.height) continue;
    ctx.strokeStyle = colour(name);
    ctx.setLineDash([4, 4]);
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
  }
  ctx.restore();
}

/** Says what is under the pointer. */
function under(drawn) {
  const index = drawn.cursor.idx;
  let found = frame.querySelector(".under");
  if (index === null || index === undefined || drawn.data[1][index] === null) return found?.remove();
  const reclaimed = drawn.data[2][index];
  found ??= frame.appendChild(h("p", { class: "under", "aria-hidden": "true" }));
  found.textContent = `${clock(drawn.data[0][index] * 1000)}  ${bytes(drawn.data[1][index])} free${reclaimed ? `, ${bytes(reclaimed)} reclaimed` : ""}`;
}
