// Answers of a made-up server, the same each time: what the pictures of the page show.

const MiB = 2 ** 20;
const GiB = 2 ** 30;
/** When the pictures are taken, in seconds since 1970. */
export const NOW = Date.UTC(2026, 10, 27, 10, 30) / 1000;

/** Numbers from 0 to 1 that look random and are the same each time. */
function numbers(seed) {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

const hex = (next, length) => Array.from({ length }, () => Math.floor(next() * 16).toString(16)).join("");
const at = (seconds) => new Date(seconds * 1000).toISOString();

const IMAGES = ["python:3.12-slim", "node:22-slim", "alpine:3.20", "ubuntu:24.04", "rust:1.80", "postgres:16"];
const JOBS = ["agent", "build", "review", "crawl", "index", "notebook", "sandbox", "test"];

function makeBoxes() {
  const next = numbers(7);
  return Array.from({ length: 312 }, (_, index) => {
    const state = index % 53 === 7 ? "paused" : index % 97 === 11 ? "failed" : next() < 0.42 ? "running" : next() < 0.9 ? "stopped" : "created";
    const began = NOW - Math.floor(next() ** 2 * 5 * 86400) - 120;
    return {
      id: hex(next, 32), name: `${JOBS[index % JOBS.length]}-${String(index + 1).padStart(3, "0")}`, image: IMAGES[index % IMAGES.length], state,
      reason: state === "paused" ? "waits for space: the disk quota of 2 GiB is used up" : state === "failed" ? "QEMU was killed by signal 9" : null,
      pause: null, exit_code: state === "stopped" ? 0 : null, created_at: at(began - 60), started_at: state === "created" ? null : at(began),
      finished_at: state === "stopped" || state === "failed" ? at(began + 90) : null,
      disk_allocated: state === "created" ? 0 : Math.floor(next() ** 4 * 1.9 * GiB / 4096) * 4096 + 12 * MiB, ports: [], options: { memory: [512, 1024, 2048][index % 3] * MiB },
    };
  });
}

export const boxes = makeBoxes();

const sum = (nodes, of) => nodes.reduce((total, node) => total + of(node), 0);

function group(kind, name, children, why) {
  children.sort((one, other) => other.allocated - one.allocated || (one.name < other.name ? -1 : 1));
  return { kind, name, allocated: sum(children, (node) => node.allocated), reclaimable: sum(children, (node) => node.reclaimable), count: sum(children, (node) => node.count), why, children };
}

const leaf = (kind, name, allocated, why, more = {}) => ({ kind, name, allocated, reclaimable: 0, count: 1, why, ...more });

function makeTree() {
  const next = numbers(3);
  const file = (kind, name, mebibytes, why, isFree = false) => {
    const allocated = Math.floor(mebibytes * 256) * 4096;
    return leaf(kind, name, allocated, isFree ? `gc would remove it: ${why}` : why, { id: `${hex(next, 64)}.${kind === "delta" ? "qcow2" : "ext4"}`, reclaimable: isFree ? allocated : 0 });
  };
  const unneeded = "no box, base or lease needs it";
  const disks = [
    group("disk_image", "shared", [
      file("disk_image", "debian:12-slim and 5 more", 1180, "kept for box agent-001, box build-002 and 142 more"),
      file("disk_image", "alpine:3.20 and 2 more", 96, "kept for box review-003 and 51 more")], "several images stand on these"),
    group("disk_image", "unique", [
      file("disk_image", "ubuntu:24.04", 2210, "kept for box crawl-004 and 51 more"), file("disk_image", "postgres:16", 1640, "kept for box test-006 and 50 more"),
      file("disk_image", "ghcr.io/example/ml:nightly", 4630, unneeded, true), file("disk_image", "golang:1.23", 1320, unneeded, true)], "one image alone stands on each of these"),
    group("disk_image", "of no image", [file("disk_image", "5f0c1b2a9d3e", 610, unneeded, true), file("disk_image", "91be07c4aa12", 240, "left alone: modified within the grace")], "no image of the catalogue stands on these"),
  ];
  const deltas = [
    group("delta", "shared", [file("delta", "python:3.12-slim and 1 more", 420, "kept for overlay of box agent-001 and 51 more")], "several images stand on these"),
    group("delta", "unique", [file("delta", "rust:1.80", 2890, "kept for box index-005 and 50 more"), file("delta", "node:22-slim", 760, "kept for box build-002 and 51 more"), file("delta", "python:3.11", 410, "gc", true)], "one image alone stands on each of these"),
  ];
  const overlays = boxes.filter((box) => box.disk_allocated > 0).map((box) => leaf("overlay", box.name, box.disk_allocated, `box ${box.name} is ${box.state}`, { id: box.id }));
  const logs = boxes.map((box) => leaf("log", box.name, Math.floor(next() ** 3 * 6 * 256) * 4096 + 8192, `box ${box.name} is ${box.state}`, { id: box.id }));
  const blobs = Array.from({ length: 44 }, () => leaf("blob", hex(next, 12), Math.floor(next() ** 2 * 180 * 256) * 4096 + 4096, `image ${IMAGES[Math.floor(next() * 6)]} refers to it`));
  const rows = [
    group("disk_image", "disk images", disks), group("delta", "deltas", deltas), group("overlay", "overlays", overlays, "what boxes have written, each above its image"),
    group("base", "bases", [leaf("base", "before-upgrade", 890 * MiB, "kept for snapshot of box sandbox-007"), leaf("base", "3f9a01c2be77", 310 * MiB, "kept for overlay of box notebook-014 and 3 more")], "what snapshots and clones stand on"),
    group("volume", "volumes", [leaf("volume", "datasets", 7.4 * GiB), leaf("volume", "cargo-registry", 1.9 * GiB), leaf("volume", "pg-data", 620 * MiB)], "removed only by name"),
    group("blob", "blobs", blobs, "layers, configs and manifests of images"), group("log", "logs", logs, "logs, sockets and locks of boxes"),
    group("boot_file", "boot files", [leaf("boot_file", "template-9a41", 71 * MiB, "left alone: in use"), leaf("boot_file", "kernel-6.1.0-32", 34 * MiB, "left alone: the last used of its kind")], "unpacked kernels and templates"),
    group("unexplained", "unexplained", [leaf("unexplained", "c08e6d115a3f", 340 * MiB, "left alone: unexplained: nobody is known to have asked for its removal")], "boxes without a record: `gc --adopt` or `gc --purge` decides"),
    group("database", "database", [leaf("database", "boxlite.db", 3 * MiB)], "records of boxes and images, and their journal"),
    group("reserve", "reserves", [leaf("reserve", "reserve-gc", 16 * MiB)], "set aside for what frees space on a full disk"),
    leaf("other", "other", 5 * MiB, "directories, settings, and what boxlite did not make"),
  ];
  const root = { ...group("home", "/var/lib/boxlite", rows), why: undefined };
  return { root, reclaimable: root.reclaimable, unreadable: [] };
}

export const tree = makeTree();

/** Free space that falls, and is given back twice. */
function makePast() {
  const next = numbers(11);
  const past = { interval: 30, at: [], free: [], reclaimed: [], disks_at: [], disks: {} };
  let free = 96 * GiB;
  for (let index = 0; index < 960; index++) {
    const reclaimed = index === 310 ? 14.2 * GiB : index === 720 ? 6.1 * GiB : 0;
    free += reclaimed - next() * 62 * MiB;
    past.at.push(NOW - (959 - index) * 30);
    past.free.push(Math.floor(free));
    past.reclaimed.push(Math.floor(reclaimed));
  }
  for (let index = 12; index >= 0; index--) past.disks_at.push(NOW - index * 300);
  for (const box of boxes) {
    const grown = box.state === "running" ? next() ** 3 * 0.6 : 0;
    past.disks[box.id] = past.disks_at.map((_, index) => Math.floor(box.disk_allocated * (1 - grown * (1 - index / 12) ** (1 + next()))));
  }
  return past;
}

export const past = makePast();

const removable = [];
(function walk(node, kind) {
  if (node.reclaimable && !node.children) removable.push({ kind, name: node.id ?? node.name, allocated: node.allocated, last_used: NOW - 9 * 86400, fate: "would be removed", why: "no box, base or lease needs it" });
  for (const child of node.children ?? []) walk(child, child.kind.replace("_", " "));
})(tree.root, "");

export const plan = {
  dry_run: true, partial: false, reclaimed: tree.reclaimable, free_before: null, free_after: null, unreadable: [], failures: [],
  items: [
    ...removable,
    { kind: "disk image", name: `${"91be07c4aa12".repeat(5)}91be.ext4`, allocated: 240 * MiB, last_used: NOW - 60, fate: "skipped", why: "modified within the grace" },
    { kind: "boot file", name: "template-9a41", allocated: 71 * MiB, last_used: NOW, fate: "skipped", why: "in use" },
    { kind: "box directory", name: "c08e6d115a3fc08e6d115a3fc08e6d11", allocated: 340 * MiB, last_used: NOW, fate: "skipped", why: "unexplained: nobody is known to have asked for its removal" },
    ...tree.root.children.flatMap((row) => (row.kind === "disk_image" || row.kind === "delta" ? row.children : [])).flatMap((found) => found.children).filter((node) => node.why.startsWith("kept"))
      .map((node) => ({ kind: node.kind.replace("_", " "), name: node.id, allocated: node.allocated, last_used: NOW, fate: "kept", why: node.why.replace("kept for ", "") })),
  ],
};

const used = boxes.filter((box) => box.state === "running" || box.state === "paused").map((box) => box.options.memory + 64 * MiB);

export const info = {
  version: "0.1.0", home: "/var/lib/boxlite", boxes: boxes.length, running: used.length, paused: boxes.filter((box) => box.state === "paused").length, images: IMAGES.length,
  acceleration: { name: "kvm", reason: "", qemu: "" }, acceleration_problem: null, assets: [], jail: { on: true, measures: [], problem: null }, settings: [],
  space: {
    free: { bytes: past.free.at(-1), bytes_total: 480 * GiB, inodes: 30000000, inodes_total: 31000000 }, verdict: "ok", claims: [512 * MiB, 512 * MiB, 512 * MiB],
    floors: { hard: GiB, soft: 5 * GiB, soft_percent: 10, emergency: 512 * MiB },
  },
  memory: { host: { bytes: 256 * GiB, limited_by: null }, limit: 224 * GiB, promises: used, used: 91 * GiB, unmeasured: 0, full: false },
};

export const events = {
  position: { file: 1, offset: 4096 },
  events: [
    [9000, "home", "gc", "", null, { reclaimed: String(Math.floor(14.2 * GiB)) }], [4100, "image", "pull", hex(numbers(5), 64), "node:22-slim", {}],
    [3200, "box", "create", boxes[3].id, boxes[3].name, {}], [3190, "box", "start", boxes[3].id, boxes[3].name, {}],
    [2400, "box", "pause", boxes[7].id, boxes[7].name, { reason: "the disk quota of 2 GiB is used up" }], [1900, "home", "gc", "", null, { reclaimed: String(Math.floor(6.1 * GiB)) }],
    [840, "box", "snapshot", boxes[6].id, boxes[6].name, { snapshot: "before-upgrade" }], [400, "box", "die", boxes[8].id, boxes[8].name, { exit_code: "0" }],
    [65, "box", "start", boxes[9].id, boxes[9].name, {}],
  ].map(([before, subject, action, id, name, details]) => ({ at: at(NOW - before), subject, action, id, ...(name ? { name } : {}), details })),
};

/** What the server answers at a path. */
export const answers = {
  "/v1/config": { authentication: "none" }, "/v1/runtime/info": info, "/v1/runtime/tree": tree, "/v1/runtime/boxes": boxes,
  "/v1/runtime/history": past, "/v1/runtime/gc": plan, "/v1/runtime/events": events,
};
