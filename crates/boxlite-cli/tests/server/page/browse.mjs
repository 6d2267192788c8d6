// Uses the page as people do, and as hostile pages would.
// Usage: node browse.mjs PLAYWRIGHT URL KEY KEYLESS-URL PICTURES SCRATCH
// BOXLITE_TEST_PICTURES=write keeps the pictures taken as the expected ones, in few colours (Debian's pngquant).

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { answers, NOW } from "./answers.mjs";

const [playwright, url, key, keyless, docs, scratch] = process.argv.slice(2);
const { chromium } = await import(playwright);
const MARKUP = "<img src=x onerror=alert(1)>";
const PATIENCE = 30_000;

const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium-headless-shell",
  args: [...(process.getuid() === 0 ? ["--no-sandbox"] : []), "--host-resolver-rules=MAP rebound.example 127.0.0.1", "--font-render-hinting=none", "--disable-lcd-text"],
});

/** A page of its own, with what it complains about and whom it asks. */
async function open(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, timezoneId: "UTC", locale: "en-GB", reducedMotion: "reduce", ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  const heard = { errors: [], asked: [] };
  page.on("console", (message) => { if (["error", "warning"].includes(message.type())) heard.errors.push(message.text()); });
  page.on("pageerror", (error) => heard.errors.push(String(error)));
  page.on("dialog", (dialog) => { heard.errors.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
  page.on("request", (request) => heard.asked.push(request.url()));
  return { page, heard, close: () => context.close() };
}

async function ask(method, path, body) {
  const response = await fetch(url + path, { method, headers: { authorization: `Bearer ${key}`, "content-type": "application/json" }, body: body && JSON.stringify(body) });
  assert.ok(response.ok, `${path}: ${response.status}`);
  return response.json();
}

async function signIn(page) {
  await page.goto(url);
  await page.getByLabel("API key").fill(key);
  await page.keyboard.press("Enter");
  await page.locator(".tile").first().waitFor();
}

const held = (page) => page.evaluate(() => document.activeElement.dataset.key ?? document.activeElement.id);
/** Presses the arrows that lead nearer, until the tile of that key is in hand. */
async function walkTo(key) {
  for (let presses = 0; (await held(page)) !== key; presses++) {
    assert.ok(presses < 40, `no arrow leads to ${key}`);
    const [x, y] = await page.evaluate((wanted) => {
      const [from, to] = [document.activeElement, document.querySelector(`[data-key="${wanted}"]`)].map((tile) => tile.getBoundingClientRect());
      return [to.x + to.width / 2 - from.x - from.width / 2, to.y + to.height / 2 - from.y - from.height / 2];
    }, key);
    const [along, across] = [x > 0 ? "ArrowRight" : "ArrowLeft", y > 0 ? "ArrowDown" : "ArrowUp"];
    // Every third press tries the other way, where the nearest neighbour is a detour.
    await page.keyboard.press(Math.abs(x) > Math.abs(y) === (presses % 3 < 2) ? along : across);
  }
}

const steps = [];
const step = (sentence, run) => steps.push([sentence, run]);

step("the page and its files need no key, and may run and ask nothing but this server", async () => {
  const response = await fetch(url);
  assert.equal(response.status, 200);
  const policy = response.headers.get("content-security-policy");
  for (const part of ["default-src 'none'", "script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"]) assert.ok(policy.includes(part), part);
  assert.ok(!policy.includes("unsafe") && !policy.includes("http"), policy);
  for (const path of ["/", "/page/main.js", "/v1/config", "/v1/runtime/tree"]) {
    const headers = (await fetch(url + path)).headers;
    assert.equal(headers.get("x-content-type-options"), "nosniff", path);
    assert.equal(headers.get("referrer-policy"), "no-referrer", path);
    assert.ok(headers.get("content-security-policy").includes("frame-ancestors 'none'"), path);
  }
});

step("a wrong key is refused in words, and the right one is kept in memory only", async () => {
  const { page, close } = await open();
  await page.goto(url);
  await page.getByLabel("API key").fill("wrong");
  await page.keyboard.press("Enter");
  await page.getByText("The server does not know this key.").waitFor();
  assert.equal(await page.locator("#figures").isVisible(), false);
  await page.getByLabel("API key").fill(key);
  await page.keyboard.press("Enter");
  await page.locator(".tile").first().waitFor();
  assert.deepEqual(await page.evaluate(() => [localStorage.length, sessionStorage.length, document.cookie, document.documentElement.outerHTML.includes("page-key"), document.getElementById("key").value]), [0, 0, "", false, ""]);
  await page.reload();
  await page.getByLabel("API key").waitFor();
  await close();
});

const { page, heard } = await open();

step("one screen says whether the disk is safe, and what the floors are", async () => {
  await signIn(page);
  await page.locator(".headline", { hasText: /Safe|Short of space|Too full/ }).waitFor();
  const scale = await page.locator(".scale").getAttribute("aria-label");
  assert.match(scale, /starts are refused below 1 GiB and warn below 5 GiB or 10 %/);
  await page.locator("#boxes .chip", { hasText: "all 240" }).waitFor();
});

step("the tree is walked by keyboard, down to one box and up again", async () => {
  await page.locator('.tile[tabindex="0"]').focus();
  await page.keyboard.press("Home");
  const first = await held(page);
  for (const arrow of ["ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"]) await page.keyboard.press(arrow);
  assert.ok(await held(page), "an arrow led out of the tree");
  await page.keyboard.press("Home");
  assert.equal(await held(page), first);
  await walkTo("overlay overlays");
  await page.keyboard.press("Enter");
  await page.locator(".crumbs [aria-current]", { hasText: "overlays" }).waitFor();
  const tree = await ask("GET", "/v1/runtime/tree");
  const largest = tree.root.children.find((row) => row.kind === "overlay").children[0];
  assert.equal(await held(page), `overlay ${largest.id}`, "the largest overlay is in hand");
  await page.locator(".panel", { hasText: `box ${largest.name} is created` }).waitFor();
  await page.keyboard.press("Escape");
  assert.equal(await held(page), "overlay overlays");
  await walkTo("disk_image disk images");
  await page.keyboard.press("Enter");
  await page.locator(".crumbs [aria-current]", { hasText: "disk images" }).waitFor();
  await page.keyboard.press("Backspace");
  assert.equal(await held(page), "disk_image disk images", "going up holds what was left");
});

step("a name with markup is text", async () => {
  await page.locator("#garbage summary", { hasText: "left alone" }).waitFor();
  await page.locator("#garbage .items", { hasText: MARKUP }).waitFor();
  assert.equal(await page.evaluate(() => document.images.length), 0);
  await assert.rejects(page.evaluate(() => { document.body.innerHTML = "<b>x</b>"; }), /TrustedHTML|Trusted/, "the browser itself refuses markup");
  heard.errors.length = 0;
});

step("gc tells what it would do and why, does nothing on Cancel, and does it on the second word", async () => {
  const images = join(scratch, "images/disk-images");
  const garbage = () => readdirSync(images).filter((name) => /^[012]f/.test(name)).length;
  const list = page.locator("#garbage .would-be-removed");
  await list.locator("li").nth(2).waitFor();
  assert.match(await list.innerText(), /disk image\s+2f2f2f2f2f2f\s+3 MiB\s+no box, base or lease needs it/);
  await page.getByRole("button", { name: "Collect…" }).click();
  const dialog = page.getByRole("dialog", { name: "Collect 6 MiB?" });
  await dialog.waitFor();
  await page.keyboard.press("Escape");
  await dialog.waitFor({ state: "detached" });
  assert.equal(garbage(), 3);
  assert.equal(await held(page), "collect", "focus returns to the button");
  await page.keyboard.press("Enter");
  await dialog.waitFor();
  await page.getByRole("button", { name: "Collect 6 MiB" }).click();
  await page.locator("#garbage .figure", { hasText: "6 MiB freed, 3 items removed" }).waitFor();
  assert.equal(garbage(), 0);
  assert.ok(existsSync(images));
  await page.getByRole("button", { name: "Plan again" }).click();
  await page.locator("#garbage .figure", { hasText: "Nothing to collect" }).waitFor();
});

step("events and boxes show up by themselves", async () => {
  await page.locator("#events li", { hasText: "6 MiB reclaimed" }).waitFor();
  await ask("POST", "/v1/runtime/volumes", { name: "unrelated" });
  const { image } = (await ask("GET", `/v1/runtime/boxes?options=${encodeURIComponent('{"all":true}')}`))[0];
  const created = await ask("POST", "/v1/boxes", { image, name: "newcomer", memory_mib: 128 });
  await page.locator("#events li", { hasText: "newcomer" }).waitFor();
  await page.getByRole("searchbox").fill("newcomer");
  await page.locator("#boxes tbody tr", { hasText: "newcomer" }).waitFor();
  assert.equal(await page.locator("#boxes tbody tr").count(), 1);
  await ask("DELETE", `/v1/runtime/boxes/${created.box_id}?options=${encodeURIComponent('{"force":true}')}`).catch(() => {});
});

step("every control has a name, and all text stands out from its ground, in light and in dark", async () => {
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    const { nameless, faint, ground } = await page.evaluate(inspect);
    assert.deepEqual(nameless, [], colorScheme);
    assert.deepEqual(faint, [], colorScheme);
    assert.equal(ground > 0.5, colorScheme === "light");
  }
  await page.emulateMedia({ colorScheme: "light" });
});

step("nothing needs scrolling sideways at 360 px", async () => {
  await page.setViewportSize({ width: 360, height: 740 });
  await page.waitForFunction(() => document.querySelector(".treemap").clientWidth < 360);
  const wide = await page.evaluate(() => [...document.querySelectorAll("body *")].filter((found) => found.getClientRects().length && !found.closest(".unseen, .skip, .inner, .u-wrap, .tile, .items .name") && found.getBoundingClientRect().right > 360.5).map((found) => `${found.tagName}.${found.className}`));
  assert.deepEqual(wide, []);
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360);
});

step("nothing was complained about, and nobody else was asked", async () => {
  assert.deepEqual(heard.errors, []);
  assert.ok(heard.asked.length > 20);
  assert.deepEqual(heard.asked.filter((asked) => !asked.startsWith(url)), []);
});

step("a page of another origin drives no server without a key, nor does one under a name that leads here", async () => {
  const other = createServer((_, response) => response.writeHead(200, { "content-type": "text/html" }).end("<!doctype html><title>x</title>")).listen(0, "127.0.0.1");
  await new Promise((ready) => other.once("listening", ready));
  const { page: foreign, close } = await open();
  const statuses = [];
  foreign.on("response", (response) => { if (response.url().includes("/v1/")) statuses.push(response.status()); });
  const attempts = async ([server]) => {
    const tries = [
      ["/v1/runtime/gc", { method: "POST", mode: "no-cors", body: "{}" }], ["/v1/runtime/gc", { method: "POST", body: "{}", headers: { "content-type": "application/json" } }],
      ["/v1/runtime/tree", { mode: "no-cors" }], ["/v1/boxes", {}],
    ];
    const got = [];
    for (const [path, options] of tries) got.push(await fetch(server + path, options).then((response) => response.status, () => "failed"));
    return got;
  };
  await foreign.goto(`http://127.0.0.1:${other.address().port}/`);
  assert.deepEqual(await foreign.evaluate(attempts, [keyless]), ["failed", "failed", "failed", "failed"]);
  const port = new URL(keyless).port;
  await foreign.goto(`http://rebound.example:${port}/`);
  assert.deepEqual(await foreign.evaluate(attempts, [`http://rebound.example:${port}`]), [403, 403, 403, 403]);
  assert.ok(statuses.length >= 4 && statuses.every((status) => status === 403), String(statuses));
  await close();
  other.close();
});

step("a server without a key shows its figures at once", async () => {
  const { page: open_, close, heard: said } = await open();
  await open_.goto(keyless);
  await open_.locator(".tile").first().waitFor();
  assert.equal(await open_.getByRole("button", { name: "Sign out" }).isVisible(), false);
  assert.deepEqual(said.errors, []);
  await close();
});

step("the pictures are as they were", async () => {
  const folder = new URL(".", import.meta.url).pathname;
  for (const [path, width, height, colorScheme] of [[join(docs, "page.png"), 1280, 1360, "light"], [join(folder, "dark.png"), 1280, 1360, "dark"], [join(folder, "narrow.png"), 360, 1300, "light"]]) {
    const { page: shown, close } = await open({ viewport: { width, height }, colorScheme });
    await shown.clock.setFixedTime(NOW * 1000);
    await shown.route("**/v1/**", (route) => route.fulfill({ json: answers[new URL(route.request().url()).pathname] }));
    await shown.goto(url);
    for (const drawn of [".tile", "#events li", "#boxes .spark", ".u-wrap canvas", "#garbage .items"]) await shown.locator(drawn).first().waitFor();
    await shown.getByText("It shrinks by").waitFor();
    await shown.evaluate(() => document.fonts.ready);
    const taken = await shown.screenshot();
    if (process.env.BOXLITE_TEST_PICTURES === "write") {
      writeFileSync(path, taken);
      execFileSync("pngquant", ["--force", "--ext", ".png", "--speed", "1", path]);
    }
    writeFileSync(join(scratch, path.split("/").at(-1)), taken);
    const different = await shown.evaluate(compare, [readFileSync(path), taken].map((bytes) => bytes.toString("base64")));
    console.log(`   ${(different * 100).toFixed(3)} % of ${path.split("/").at(-1)} differs`);
    assert.ok(different < 0.005, `${path}: ${(different * 100).toFixed(1)} % of the picture has changed; BOXLITE_TEST_PICTURES=write keeps the new one`);
    await close();
  }
});

/** Runs in the page: controls without a name, and text that is too faint. */
function inspect() {
  const parse = (text) => { const [red, green, blue, alpha = 1] = text.match(/[\d.]+/g).map(Number); return { rgb: [red, green, blue], alpha }; };
  const light = ({ rgb }) => rgb.map((part) => (part /= 255) <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4).reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  const under = (element) => {
    for (let at = element; at; at = at.parentElement) { const found = parse(getComputedStyle(at).backgroundColor); if (found.alpha > 0.9) return found; }
    return { rgb: [255, 255, 255] };
  };
  const visible = (element) => element.getClientRects().length > 0 && getComputedStyle(element).visibility === "visible";
  const controls = [...document.querySelectorAll("button, input, summary, [tabindex='0']")].filter(visible);
  const nameless = controls.filter((found) => !(found.getAttribute("aria-label") || found.textContent.trim() || found.labels?.[0]?.textContent.trim())).map((found) => found.outerHTML.slice(0, 80));
  const faint = new Set();
  for (const element of document.querySelectorAll("body *")) {
    const hasText = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!hasText || !visible(element) || element.closest(":disabled")) continue;
    const [one, other] = [light(parse(getComputedStyle(element).color)), light(under(element))].sort((a, b) => b - a);
    if ((one + 0.05) / (other + 0.05) < 4.5) faint.add(`${element.tagName}.${element.getAttribute("class")} ${element.textContent.slice(0, 20)}`);
  }
  return { nameless, faint: [...faint], ground: light(under(document.body)) };
}

/** Runs in the page, without its policy's help: the share of pixels that differ clearly. */
async function compare(pictures) {
  const pixels = await Promise.all(pictures.map(async (text) => {
    const bytes = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
    const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
    const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
    context.drawImage(bitmap, 0, 0);
    return context.getImageData(0, 0, bitmap.width, bitmap.height);
  }));
  const [one, other] = pixels;
  if (one.width !== other.width || one.height !== other.height) return 1;
  let different = 0;
  for (let at = 0; at < one.data.length; at += 4) {
    if ([0, 1, 2].some((part) => Math.abs(one.data[at + part] - other.data[at + part]) > 48)) different++;
  }
  return different / (one.data.length / 4);
}

let failed = false;
for (const [sentence, run] of steps) {
  const began = Date.now();
  try {
    await run();
    console.log(`ok ${Date.now() - began} ms: ${sentence}`);
  } catch (error) {
    failed = true;
    console.log(`FAILED: ${sentence}\n${error.stack}`);
    await page.screenshot({ path: join(scratch, "failed.png"), fullPage: true }).catch(() => {});
    break;
  }
}
await browser.close();
if (failed) process.exit(1);
console.log("done");
