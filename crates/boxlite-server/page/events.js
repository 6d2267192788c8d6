// What happens in the home, as it happens.

import { get } from "./api.js";
import { h, show, state } from "./dom.js";
import { bytes, clock, short } from "./units.js";

/** How many events stay in the page. */
const MAX_EVENTS = 200;

let position = null;
let list = null;

/** Adds the events since the last call; returns whether there were any. */
export async function refreshEvents() {
  const options = position ? { after: position } : {};
  const page = await get(`/v1/runtime/events?options=${encodeURIComponent(JSON.stringify(options))}`);
  position = page.position;
  if (page.events.length === 0) {
    if (!list?.isConnected) show("events", state("empty", "Nothing has happened yet.", "Starts, ends, pulls and collections show up here."));
    return false;
  }
  if (!list?.isConnected) {
    list = h("ol", { class: "log", role: "log", tabindex: "0", "aria-label": "Events, the last one first" });
    show("events", list);
  }
  list.prepend(...page.events.slice(-MAX_EVENTS).reverse().map(draw));
  while (list.children.length > MAX_EVENTS) list.lastChild.remove();
  return true;
}

function draw(event) {
  const details = Object.entries(event.details ?? {}).map(([key, value]) =>
    key === "reclaimed" ? `${bytes(Number(value))} reclaimed` : key === "reason" ? value : `${key.replaceAll("_", " ")} ${value}`);
  return h("li", { class: event.action },
    h("time", { datetime: event.at }, clock(event.at)),
    h("span", { class: "action" }, event.action.replaceAll("_", " ")),
    h("span", { class: "subject" }, event.subject === "home" ? "home" : `${event.subject} `, event.subject === "home" ? null : h("b", {}, event.name ?? short(event.id))),
    h("span", { class: "details" }, details.join(" · ")));
}
