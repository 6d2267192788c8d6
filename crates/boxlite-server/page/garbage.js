// What gc would do and why, item by item; and doing it.

import { post } from "./api.js";
import { body, h, show, state } from "./dom.js";
import { bytes, count, short } from "./units.js";

/** How many items of one fate are listed before the rest is asked for. */
const MAX_ROWS = 40;

const FATES = [
  ["would be removed", "would be removed", true],
  ["removed", "removed", true],
  ["not removed", "could not be removed", true],
  ["skipped", "not needed, but left alone", true],
  ["kept", "needed", false],
];

let options = { all: false };
let after = () => {};
let shown = "";
let running = false;
/** The report of the last pass that was run here, until a plan is asked for. */
let report = null;
const unfolded = new Map();
let names = new Map();
let plan = null;

/** Calls items by these names, by their file names. */
export function nameItems(found) {
  names = found;
  if (plan && body("garbage").querySelector(".summary")) draw(plan);
}

/** Calls `then` after each pass that was run from here. */
export function onCollected(then) {
  after = then;
}

/** Asks for the plan and shows it; a report stays until its reader has done with it. */
export async function refreshPlan() {
  if (report || running || document.querySelector("dialog[open]")) return;
  draw(await post("/v1/runtime/gc", { dry_run: true, all: options.all }));
}

function draw(found) {
  plan = found;
  const text = JSON.stringify([plan, [...names]]);
  if (text === shown && body("garbage").querySelector(".summary")) return;
  shown = text;
  const going = plan.items.filter((item) => item.fate === "would be removed");
  const done = !plan.dry_run;
  const removed = plan.items.filter((item) => item.fate === "removed");
  const least = plan.partial ? "at least " : "";
  const focus = document.activeElement?.id;
  show("garbage",
    h("div", { class: "summary" },
      h("p", { class: "figure", role: "status" }, done
        ? [h("strong", {}, `${least}${bytes(plan.reclaimed)}`), ` freed, ${count(removed.length, "item")} removed`, plan.free_after ? `; ${bytes(plan.free_after.bytes)} are free now` : ""]
        : going.length
          ? [h("strong", {}, `${least}${bytes(plan.reclaimed)}`), ` in ${count(going.length, "item")}`]
          : [h("strong", {}, "Nothing"), " to collect: every byte is needed or too young"]),
      h("div", { class: "actions" },
        done
          ? h("button", { type: "button", id: "plan", on: { click: again } }, "Plan again")
          : [
            h("label", { class: "check" }, h("input", { type: "checkbox", id: "all", checked: options.all, on: { change: toggle } }), "also images that no box uses"),
            h("button", { type: "button", id: "collect", class: "primary", disabled: going.length === 0, on: { click: () => confirm(plan, going) } }, "Collect…"),
          ])),
    plan.unreadable.map((found) => h("p", { class: "note bad" }, `■ unreadable: ${found.path}: ${found.reason}. Nothing that it might need is removed.`)),
    FATES.map(([fate, title, open]) => group(fate, title, open, plan.items.filter((item) => item.fate === fate))));
  if (focus) document.getElementById(focus)?.focus();
}

function group(fate, title, open, items) {
  if (items.length === 0) return null;
  const sum = items.reduce((total, item) => total + item.allocated, 0);
  const sorted = [...items].sort((one, other) => other.allocated - one.allocated);
  const rows = h("ul", { class: "items" });
  const more = h("button", { type: "button", class: "quiet", hidden: true });
  const list = (most) => {
    rows.replaceChildren(...sorted.slice(0, most).map(row));
    more.hidden = sorted.length <= most;
    more.textContent = `Show all ${sorted.length}`;
  };
  more.addEventListener("click", () => list(Infinity));
  list(MAX_ROWS);
  const isOpen = unfolded.get(fate) ?? open;
  const details = h("details", { class: `fate ${fate.replaceAll(" ", "-")}`, open: isOpen },
    h("summary", { id: `fate-${fate.replaceAll(" ", "-")}` }, h("b", {}, title), ` ${count(items.length, "item")}`, h("span", { class: "size" }, bytes(sum))), rows, more);
  details.addEventListener("toggle", () => unfolded.set(fate, details.open));
  return details;
}

function row(item) {
  return h("li", {}, h("span", { class: "kind" }, item.kind), h("span", { class: "name", title: item.name }, ...called(item)),
    h("span", { class: "size" }, bytes(item.allocated)), h("span", { class: "why" }, item.why));
}

/** What people call an item, and its digest. */
function called(item) {
  const name = names.get(item.name);
  return name && name !== short(item.name) ? [name, h("span", {}, short(item.name))] : [short(item.name)];
}

async function toggle(event) {
  options = { all: event.target.checked };
  await again();
}

async function again() {
  report = null;
  try {
    await refreshPlan();
  } catch (failure) {
    problem(failure);
  }
}

function confirm(plan, going) {
  const dialog = h("dialog", { "aria-labelledby": "confirm-title" },
    h("h3", { id: "confirm-title" }, `Collect ${bytes(plan.reclaimed)}?`),
    h("p", {}, `${count(going.length, "item")} that nothing needs will be removed. All of it can be made or fetched again, or its removal was asked for. gc looks again before it removes, and keeps what is needed by then.`),
    h("form", { method: "dialog", class: "actions" },
      h("button", { type: "submit", value: "no" }, "Cancel"),
      h("button", { type: "submit", value: "yes", class: "primary" }, `Collect ${bytes(plan.reclaimed)}`)));
  dialog.addEventListener("close", () => {
    const answer = dialog.returnValue;
    dialog.remove();
    if (answer === "yes") collect();
    else document.getElementById("collect")?.focus();
  });
  document.body.append(dialog);
  dialog.showModal();
}

async function collect() {
  running = true;
  const button = document.getElementById("collect");
  button.disabled = true;
  button.textContent = "Collecting…";
  try {
    report = await post("/v1/runtime/gc", { dry_run: false, all: options.all });
    draw(report);
    document.getElementById("plan")?.focus();
    after();
  } catch (failure) {
    problem(failure);
  } finally {
    running = false;
  }
}

function problem(failure) {
  shown = "";
  body("garbage").prepend(state("bad", "gc could not run.", failure.message));
  const button = document.getElementById("collect");
  if (button) [button.disabled, button.textContent] = [false, "Collect…"];
}
