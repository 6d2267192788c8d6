// Signs in where the server wants a key, then asks for each figure at its own pace and gives it to who draws it.

import { ApiFailure, get, useKey } from "./api.js";
import { drawBoxes } from "./boxes.js";
import { drawCurves } from "./curves.js";
import { body, h, show, state } from "./dom.js";
import { refreshEvents } from "./events.js";
import { nameItems, onCollected, refreshPlan } from "./garbage.js";
import { drawGauge } from "./gauge.js";
import { drawTree, namesOf } from "./treemap.js";
import { span } from "./units.js";

const SECOND = 1000;
/** The fragment by which the page tells itself why it was loaded anew. */
const EXPIRED = "#expired";
const element = (id) => document.getElementById(id);

/** The latest answers. */
const latest = { info: null, tree: null, past: null, boxes: null };
let needsKey = false;
let paused = false;
let answered = 0;
let timers = [];

/** What is asked for: which sections it fills, how often, and how. */
const CHORES = [
  { sections: ["safety"], every: 5 * SECOND, run: refreshHost },
  { sections: ["boxes"], every: 5 * SECOND, run: refreshBoxes },
  { sections: ["tree"], every: 15 * SECOND, run: refreshTree },
  { sections: ["past"], every: 30 * SECOND, run: refreshPast },
  { sections: ["garbage"], every: 30 * SECOND, run: refreshPlan },
  { sections: ["events"], every: 2 * SECOND, run: async () => { if (await refreshEvents()) soon(refreshBoxes); } },
];

async function refreshHost() {
  latest.info = await get("/v1/runtime/info");
  const { home, version, acceleration, running, boxes } = latest.info;
  element("host").replaceChildren(h("b", {}, home), ` ${running} of ${boxes} boxes run · ${acceleration?.name ?? "no accelerator"} · ${version}`);
  document.title = `${{ ok: "●", warn: "▲", reject: "■" }[latest.info.space?.verdict] ?? ""} boxlite`;
  gauge();
}

async function refreshBoxes() {
  const options = encodeURIComponent(JSON.stringify({ all: true }));
  latest.boxes = await get(`/v1/runtime/boxes?options=${options}`);
  drawBoxes(latest.boxes, latest.past, latest.info);
}

async function refreshTree() {
  latest.tree = await get("/v1/runtime/tree");
  drawTree(latest.tree);
  nameItems(namesOf(latest.tree.root));
  gauge();
}

async function refreshPast() {
  const after = latest.past?.at.at(-1);
  const found = await get(`/v1/runtime/history${after === undefined ? "" : `?after=${after}`}`);
  const most = Math.ceil((24 * 3600) / found.interval);
  const column = (name) => [...(latest.past?.[name] ?? []), ...found[name]].slice(-most);
  latest.past = { ...found, at: column("at"), free: column("free"), reclaimed: column("reclaimed") };
  gauge();
  drawCurves(latest.past, latest.info?.space);
  if (latest.boxes) drawBoxes(latest.boxes, latest.past, latest.info);
}

function gauge() {
  if (latest.info) drawGauge(latest.info, latest.tree?.root.allocated ?? null, latest.past);
}

/** Runs a chore once, apart from its pace; its failure shows at the next turn. */
function soon(run) {
  run().catch(() => {});
}

/** Runs a chore, and says in its section what went wrong. */
async function turn(chore) {
  if (paused || document.hidden) return;
  try {
    await chore.run();
    answered = Date.now();
    chore.failed = false;
  } catch (failure) {
    if (!(failure instanceof ApiFailure)) throw failure;
    if (failure.status === 401) return signOut(EXPIRED);
    // What is shown already stays; it is the live line that says how old it is.
    const isEmpty = chore.sections.some((id) => body(id).querySelector(".loading, .message"));
    if (failure.status === 403) chore.sections.forEach((id) => show(id, state("empty", "Not for this key.", failure.message)));
    else if (isEmpty && !chore.failed) chore.sections.forEach((id) => show(id, state("bad", "This cannot be shown now.", failure.message)));
    chore.failed = failure.status !== 403;
    chore.denied = failure.status === 403;
  } finally {
    live();
  }
}

function live() {
  const failed = CHORES.some((chore) => chore.failed);
  const age = (Date.now() - answered) / 1000;
  const text = paused ? "paused" : failed && age > 4 ? `no answer for ${span(age)}` : failed ? "some figures are missing" : "live";
  const line = element("live");
  line.className = `live ${paused ? "paused" : failed ? "bad" : "ok"}`;
  if (line.textContent !== text) line.textContent = text;
}

function begin() {
  element("sign-in").hidden = true;
  element("figures").hidden = false;
  element("pause").hidden = false;
  element("sign-out").hidden = !needsKey;
  for (const id of CHORES.flatMap((chore) => chore.sections)) show(id, h("p", { class: "loading", role: "status" }, "Measuring…"));
  timers = CHORES.map((chore) => {
    chore.failed = chore.denied = false;
    let busy = false;
    const once = async () => {
      if (busy || chore.denied) return;
      busy = true;
      try {
        await turn(chore);
      } finally {
        busy = false;
      }
    };
    once();
    return setInterval(once, chore.every);
  });
}

/** Forgets the key and everything that was shown with it, by loading the page anew under that fragment. */
function signOut(fragment) {
  useKey(null);
  timers.forEach(clearInterval);
  history.replaceState(null, "", `/${fragment}`);
  location.reload();
}

function askForKey(why) {
  element("sign-in").hidden = false;
  element("sign-in-problem").textContent = why;
  element("live").textContent = "";
  element("key").focus();
}

element("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  const input = element("key");
  useKey(input.value.trim());
  element("sign-in-problem").textContent = "";
  try {
    await get("/v1/me");
    input.value = "";
    begin();
    element("main").focus();
  } catch (failure) {
    useKey(null);
    element("sign-in-problem").textContent = failure.status === 401 ? "The server does not know this key." : failure.message;
    input.select();
  }
});
element("sign-out").addEventListener("click", () => signOut(""));
element("pause").addEventListener("click", () => {
  paused = !paused;
  element("pause").setAttribute("aria-pressed", String(paused));
  element("pause").textContent = paused ? "Go on" : "Pause";
  if (!paused) CHORES.filter((chore) => !chore.denied).forEach(turn);
  live();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && !element("figures").hidden) CHORES.filter((chore) => !chore.denied).forEach(turn);
});
onCollected(() => [refreshHost, refreshTree].forEach(soon));

async function open() {
  try {
    const config = await get("/v1/config");
    needsKey = config.authentication === "key";
    if (needsKey) askForKey(location.hash === EXPIRED ? "The server does not know this key any more." : "");
    else begin();
  } catch (failure) {
    element("live").textContent = `${failure.message}; trying again`;
    setTimeout(open, 3 * SECOND);
  }
}
open();
