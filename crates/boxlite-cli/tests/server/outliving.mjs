// A command of the published Node client whose server is killed meanwhile: outliving.mjs PACKAGE URL BOX SCRIPT

import { pathToFileURL } from 'node:url';

const [entry, url, name, script] = process.argv.slice(2);
const { JsBoxlite } = await import(pathToFileURL(entry));

const box = await JsBoxlite.rest({ url }).get(name);
const command = await box.exec('sh', ['-c', script], null, false);
const stdout = await command.stdout();
let output = null;
for (let piece; (piece = await stdout.next()) !== null; ) {
  if (output === null) console.log('began');
  output = (output ?? '') + piece;
}
const { exitCode } = await command.wait();
process.stdout.write(JSON.stringify([exitCode, output]), () => process.exit(0));
