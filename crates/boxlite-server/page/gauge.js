// Is this host's disk safe? The verdict, the free space against the floors, and what the filesystem holds.

import { h, show, state } from "./dom.js";
import { about, bytes, count, percent, span } from "./units.js";

const VERDICTS = {
  ok: ["●", "Safe", "Boxes start."],
  warn: ["▲", "Short of space", "Starts warn, and collect garbage first."],
  reject: ["■", "Too full", "Starts are refused until space is free."],
};

/** Draws host `info` with the bytes of the home, where they are known, and the samples of the last hour. */
export function drawGauge(info, home, past) {
  const space = info.space;
  if (!space) {
    show("safety", state("warn", "The free space of this home cannot be measured.", "Starts warn and go on."));
    return;
  }
  const { free, verdict, claims } = space;
  const claimed = claims.reduce((sum, claim) => sum + claim, 0);
  const left = Math.max(0, free.bytes - claimed);
  const [shape, word, meaning] = VERDICTS[verdict];
  const inodes = free.inodes_total > 0 && free.inodes / free.inodes_total < 0.1
    ? h("p", { class: "note warn" }, `▲ ${free.inodes.toLocaleString("en")} of ${free.inodes_total.toLocaleString("en")} inodes are free.`)
    : null;
  show("safety",
    h("div", { class: "verdict" },
      h("p", { class: `headline ${verdict}` }, h("span", { class: "shape", "aria-hidden": "true" }, shape), word),
      h("p", { class: "figure" }, h("strong", {}, bytes(free.bytes)), ` free of ${bytes(free.bytes_total)}`),
      h("p", { class: "meaning" }, meaning, " ", pace(space, past))),
    inodes,
    space.floors ? ruler(space, left) : null,
    filled(space, home));
}

/** The free bytes below which a verdict warns. */
function softFloor({ free, floors }) {
  return Math.max(floors.soft, (free.bytes_total * floors.soft_percent) / 100);
}

/** How long the space lasts at the pace of the last hour. */
function pace(space, past) {
  if (!past || !space.floors) return "";
  const now = past.at.at(-1);
  const first = past.at.findIndex((at, index) => at >= now - 3600 && past.free[index] !== null);
  const seconds = first < 0 ? 0 : now - past.at[first];
  if (seconds < 600) return "";
  const lost = (past.free[first] - space.free.bytes) / seconds;
  const floor = [softFloor(space), space.floors.hard, space.floors.emergency].find((bytes) => bytes < space.free.bytes);
  if (lost * 3600 < 16 * 2 ** 20 || floor === undefined) return "";
  return `It shrinks by ${about(lost * 3600)} an hour: ${about(floor)} in ${span((space.free.bytes - floor) / lost)}.`;
}

/** Free bytes on a logarithmic ruler, from below the lowest floor to the whole filesystem. */
function ruler(space, left) {
  const { free, floors } = space;
  const total = free.bytes_total;
  const soft = Math.min(softFloor(space), total);
  const low = Math.max(1, Math.min(floors.emergency || floors.hard, floors.hard) / 4);
  const place = (value) => Math.min(1, Math.max(0, Math.log(Math.max(value, low) / low) / Math.log(total / low)));
  const at = (value) => `${(place(value) * 100).toFixed(2)}%`;
  const zone = (kind, from, to) => h("div", { class: `zone ${kind}`, css: { left: at(from), width: `${((place(to) - place(from)) * 100).toFixed(2)}%` } });
  const tick = (value, side) => h("span", { class: `tick ${side}`, css: { left: at(value) } }, about(value));
  const emergency = Math.min(floors.emergency, floors.hard);
  const label = `${bytes(free.bytes)} free, ${bytes(left)} without what starts have claimed. Boxes pause below ${bytes(floors.emergency)}, ` +
    `starts are refused below ${bytes(floors.hard)} and warn below ${bytes(floors.soft)} or ${floors.soft_percent} %.`;
  return h("div", { class: "ruler" },
    h("div", { class: "scale", role: "img", "aria-label": label },
      zone("paused", low, emergency), zone("refuse", emergency, floors.hard), zone("short", floors.hard, soft), zone("safe", soft, total),
      left < free.bytes ? h("div", { class: "claimed", css: { left: at(left), width: `${((place(free.bytes) - place(left)) * 100).toFixed(2)}%` } }) : null,
      h("div", { class: "needle", css: { left: at(free.bytes) } })),
    h("div", { class: "ticks", "aria-hidden": "true" }, tick(emergency, "end"), tick(floors.hard, ""), tick(soft, ""), tick(total, "end last")),
    h("ul", { class: "legend" },
      entry("now", "free now", bytes(free.bytes)),
      entry("paused", "boxes pause below", bytes(floors.emergency)),
      entry("refuse", "starts are refused below", bytes(floors.hard)),
      entry("short", "starts warn below", `${bytes(floors.soft)} or ${floors.soft_percent} %`),
      entry("claimed", "claimed by starts", space.claims.length ? `${bytes(free.bytes - left)} (${count(space.claims.length, "claim")})` : "nothing")));
}

function entry(kind, what, figure) {
  return h("li", {}, h("span", { class: `swatch ${kind}`, "aria-hidden": "true" }), `${what} `, h("b", {}, figure));
}

/** The whole filesystem: this home, other files, what is free. */
function filled({ free }, home) {
  const total = free.bytes_total;
  const used = total - free.bytes;
  const own = Math.min(home ?? 0, used);
  const parts = [["home", own, "this home"], ["others", used - own, home === null ? "all files" : "other files"], ["room", free.bytes, "free"]];
  const shown = parts.filter(([kind, size]) => size > 0 && !(kind === "home" && home === null));
  return h("div", { class: "filled" },
    h("div", { class: "stack", role: "img", "aria-label": shown.map(([, size, what]) => `${what} ${bytes(size)}`).join(", ") },
      shown.map(([kind, size]) => h("div", { class: `part ${kind}`, css: { "flex-grow": size } }))),
    h("ul", { class: "legend" }, shown.map(([kind, size, what]) =>
      h("li", {}, h("span", { class: `swatch ${kind}`, "aria-hidden": "true" }), `${what} `, h("b", {}, bytes(size)), ` ${percent(size, total)}`))));
}
