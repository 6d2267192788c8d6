// What fills the disk: a treemap of the home, and beside it the node in hand with its reason and its contents.
//
// One tile is in the tab order. Arrow keys move to the neighbour, Enter opens, Escape or Backspace goes up.

import { h, put, show, state } from "./dom.js";
import { about, bytes, count, percent } from "./units.js";
import { hierarchy, treemap, treemapSquarify } from "./vendor/d3-hierarchy.js";

/** Names from the root to the node whose children are drawn. */
let path = [];
/** Key of the tile in hand. */
let held = null;
let tree = null;
let tiles = [];
let frame, panel, crumbs;

const keyOf = (node) => `${node.kind} ${node.id ?? node.name}`;

/** Names of files by what gc calls them. */
export function namesOf(node, names = new Map()) {
  if (node.id) names.set(node.id, node.name);
  node.children?.forEach((child) => namesOf(child, names));
  return names;
}

/** Draws the tree of the home, or draws it anew where it has changed. */
export function drawTree(found) {
  tree = found;
  if (tree.root.children === undefined) {
    show("tree", state("empty", "Nothing is stored here yet.", "Pull an image or run a box, and its bytes show up here."));
    return;
  }
  if (!frame?.isConnected) build();
  render(false);
}

function build() {
  crumbs = h("nav", { class: "crumbs", "aria-label": "Place in the home" });
  frame = h("div", { class: "treemap", role: "group", on: { keydown: onKey } });
  panel = h("div", { class: "panel" });
  show("tree", crumbs, h("div", { class: "split" }, frame, panel));
  new ResizeObserver(() => render(false)).observe(frame);
}

/** The nodes from the root to the one that is open; a node that is gone closes. */
function opened() {
  const nodes = [tree.root];
  for (const key of path) {
    const next = nodes.at(-1).children?.find((child) => keyOf(child) === key);
    if (!next?.children) break;
    nodes.push(next);
  }
  path = nodes.slice(1).map(keyOf);
  return nodes;
}

function render(takeFocus) {
  if (!frame || !tree) return;
  const nodes = opened();
  const open = nodes.at(-1);
  const had = takeFocus || frame.contains(document.activeElement);
  const { width, height } = frame.getBoundingClientRect();
  if (width < 1) return;
  const root = treemap().tile(treemapSquarify.ratio(1.3)).size([width, height]).paddingInner(2).paddingTop((node) => (node.depth === 1 && node.children ? 22 : 0)).round(true)(
    hierarchy(open, (node) => (node === open || open.children.includes(node) ? node.children : undefined))
      .sum((node) => (node === open || (open.children.includes(node) && node.children) ? 0 : node.allocated))
      .sort((one, other) => other.value - one.value));
  tiles = (root.children ?? []).filter((tile) => tile.x1 - tile.x0 > 2 && tile.y1 - tile.y0 > 2);
  if (!tiles.some((tile) => keyOf(tile.data) === held)) held = tiles.length ? keyOf(tiles[0].data) : null;
  frame.setAttribute("aria-label", `${nodeName(open)}, ${bytes(open.allocated)}. Arrow keys move, Enter opens, Escape goes up.`);
  frame.replaceChildren(...tiles.map((tile) => draw(tile, open)));
  crumbs.replaceChildren(h("ol", {}, nodes.map((node, depth) => h("li", {},
    h("button", { type: "button", "aria-current": depth === nodes.length - 1 ? "true" : null, on: { click: () => go(path.slice(0, depth)) } }, nodeName(node))))),
  h("span", { class: "sum" }, `${bytes(open.allocated)}`, open.reclaimable ? h("span", { class: "reclaim" }, ` gc would free ${bytes(open.reclaimable)}`) : null));
  if (had) frame.querySelector('[tabindex="0"]')?.focus({ preventScroll: true });
  describe();
}

function nodeName(node) {
  return node.kind === "home" ? "home" : node.name;
}

function draw(tile, open) {
  const node = tile.data;
  const [width, height] = [tile.x1 - tile.x0, tile.y1 - tile.y0];
  const key = keyOf(node);
  const label = [
    `${node.name}, ${bytes(node.allocated)}, ${percent(node.allocated, open.allocated)}`,
    node.children ? parts(node) : null,
    node.reclaimable ? `gc would free ${bytes(node.reclaimable)}` : null,
    node.why,
  ].filter(Boolean).join(", ");
  const inner = node.children
    ? (tile.children ?? []).filter((child) => child.x1 - child.x0 > 1 && child.y1 - child.y0 > 1).slice(0, 200).map((child) => leaf(child, tile))
    : [];
  return h("button", {
    type: "button", class: `tile ${node.kind} ${node.children ? "group" : "leaf"} ${covered(node, height)}`, tabindex: key === held ? "0" : "-1", "aria-label": label, "data-key": key,
    css: box(tile, 0, 0),
    on: { click: () => { hold(key); if (node.children) go([...path, key]); }, focus: () => hold(key), pointerenter: () => describe(node) },
  },
  node.children ? null : reclaimed(node, height),
  inner,
  width > 44 && height > 17 ? h("span", { class: "name" }, node.name, width > 110 ? h("span", { class: "size" }, ` ${about(node.allocated)}`) : null) : null);
}

function leaf(child, parent) {
  const node = child.data;
  const [width, height] = [child.x1 - child.x0, child.y1 - child.y0];
  return h("span", { class: `inner ${covered(node, height)}`, css: box(child, parent.x0, parent.y0) }, reclaimed(node, height),
    width > 64 && height > 17 ? h("span", { class: "name" }, node.name) : null);
}

/** The part of a tile that gc would free. */
function reclaimed(node, height) {
  if (!node.reclaimable || !node.allocated) return null;
  const part = Math.min(1, node.reclaimable / node.allocated);
  return h("span", { class: "freed", css: { height: `${Math.max(3, Math.round(part * height))}px` } });
}

/** Whether that part is below the name as well, which then needs the accent's own colour of text. */
function covered(node, height) {
  return !node.children && node.reclaimable / node.allocated > 1 - 22 / height ? "covered" : "";
}

function box(tile, left, top) {
  return { left: `${tile.x0 - left}px`, top: `${tile.y0 - top}px`, width: `${tile.x1 - tile.x0}px`, height: `${tile.y1 - tile.y0}px` };
}

function hold(key) {
  if (held === key) return describe();
  held = key;
  for (const tile of frame.children) tile.tabIndex = tile.dataset.key === key ? 0 : -1;
  describe();
}

function go(to) {
  const left = path.at(to.length);
  const up = to.length < path.length;
  path = to;
  held = up ? left : null;
  render(true);
}

/** Describes `node`, else the tile in hand: how much, why, what can be done, and what is inside. */
function describe(node) {
  const open = opened().at(-1);
  const shown = node ?? open.children?.find((child) => keyOf(child) === held) ?? open;
  const list = shown.children ?? [];
  const most = list[0]?.allocated || 1;
  put(panel,
    h("h3", {}, shown.name),
    h("p", { class: "figures" }, h("b", {}, bytes(shown.allocated)), ` · ${percent(shown.allocated, tree.root.allocated)} of the home`,
      shown.children ? ` · ${parts(shown)}` : null),
    shown.reclaimable ? h("p", { class: "reclaim" }, `gc would free ${bytes(shown.reclaimable)}`) : null,
    shown.why || open.why ? h("p", { class: "why" }, shown.why ?? open.why) : null,
    shown.id ? h("p", { class: "command" }, h("code", {}, command(shown))) : null,
    list.length ? h("ol", { class: "contents" }, list.slice(0, 10).map((child) => h("li", {},
      h("span", { class: "name", title: child.name }, child.name), h("span", { class: "size" }, bytes(child.allocated)),
      h("span", { class: "meter" }, h("span", { css: { width: `${((child.allocated / most) * 100).toFixed(1)}%` } }))))) : null,
    list.length > 10 ? h("p", { class: "more" }, `and ${list.length - 10} smaller`) : null);
}

function parts(node) {
  return ["overlay", "log", "unexplained"].includes(node.kind) ? count(node.count, "box", "boxes") : count(node.count, "file");
}

/** What a shell says about it. */
function command(node) {
  const id = node.id.replace(/\.(ext4|qcow2)$/, "");
  if (node.kind === "overlay" || node.kind === "log") return `boxlite inspect ${id.slice(0, 12)}`;
  return `boxlite gc --explain ${id.length > 12 ? id.slice(0, 12) : id}`;
}

function onKey(event) {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  const at = tiles.findIndex((tile) => keyOf(tile.data) === held);
  const to = { ArrowLeft: () => beside(at, -1, 0), ArrowRight: () => beside(at, 1, 0), ArrowUp: () => beside(at, 0, -1), ArrowDown: () => beside(at, 0, 1), Home: () => 0, End: () => tiles.length - 1 }[event.key];
  if (to) {
    event.preventDefault();
    const next = to();
    if (next >= 0) frame.children[next].focus();
  } else if ((event.key === "Escape" || event.key === "Backspace") && path.length) {
    event.preventDefault();
    go(path.slice(0, -1));
  }
}

/** The nearest tile in a direction, or the next one in the order of size. */
function beside(from, x, y) {
  const middle = (tile) => [(tile.x0 + tile.x1) / 2, (tile.y0 + tile.y1) / 2];
  const [fromX, fromY] = middle(tiles[from]);
  let best = -1;
  let least = Infinity;
  tiles.forEach((tile, index) => {
    const [dx, dy] = [middle(tile)[0] - fromX, middle(tile)[1] - fromY];
    const along = dx * x + dy * y;
    if (index === from || along <= 0) return;
    const distance = along + 3 * Math.abs(dx * y + dy * x);
    if (distance < least) [best, least] = [index, distance];
  });
  if (best >= 0) return best;
  const next = from + (x + y);
  return next >= 0 && next < tiles.length ? next : -1;
}
