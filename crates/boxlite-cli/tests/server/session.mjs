// A session of the published Node client against a server: session.mjs PACKAGE URL IMAGE DIRECTORY

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const [entry, url, image, scratch] = process.argv.slice(2);
const { JsBoxlite } = await import(pathToFileURL(entry));

async function text(stream) {
  let all = '';
  for (let line; (line = await stream.next()) !== null; ) all += line;
  return all;
}

const runtime = JsBoxlite.rest({ url });
const box = await runtime.create({ image, memoryMib: 128 }, 'node');
assert.deepEqual((await runtime.listInfo()).map((info) => info.name), ['node']);
await box.start();

const command = await box.exec('sh', ['-c', 'echo out; echo err >&2; exit 5'], null, false);
const [out, err] = await Promise.all([text(await command.stdout()), text(await command.stderr())]);
assert.deepEqual([out, err, (await command.wait()).exitCode], ['out\n', 'err\n', 5]);

const cat = await box.exec('cat', [], null, false);
const stdin = await cat.stdin();
await stdin.writeString('hello\n');
await stdin.close();
assert.equal(await text(await cat.stdout()), 'hello\n');
assert.equal((await cat.wait()).exitCode, 0);

writeFileSync(join(scratch, 'in.txt'), 'content');
await box.copyIn(join(scratch, 'in.txt'), '/root/there.txt', {});
await box.copyOut('/root/there.txt', join(scratch, 'out.txt'), {});
assert.equal(readFileSync(join(scratch, 'out.txt'), 'utf8'), 'content');

assert.equal((await runtime.metrics()).numRunningBoxes, 1);
await assert.rejects(runtime.create({ image }, 'node'), /already exists/);
await assert.rejects(runtime.remove('none', false), /not found/);
await box.stop();
assert.equal((await runtime.getInfo('node')).state.status, 'stopped');
await runtime.remove('node', true);
assert.deepEqual(await runtime.listInfo(), []);
console.log('done');
process.exit(0);
