/**
 * A process that writes to a store for as long as it lives, to be killed by a test.
 *
 * In: the path of the file, the number to begin with. Out: on standard output `ack N` when transaction N (keys first/N and
 * second/N) was acknowledged. Never: an acknowledgement that is lost with the process.
 */
import { writeSync } from 'node:fs';
import { SqliteStore } from '../../../src/store/sqlite.ts';

const [path, first] = process.argv.slice(2);
const store = new SqliteStore({ path: path!, keepRevisions: 300 });
const value = 'x'.repeat(400);
let next = Number(first);

for (;;) await Promise.all(Array.from({ length: 8 }, writeOne));

async function writeOne(): Promise<void> {
  const number = next++;
  await store.transact(
    [],
    [
      { kind: 'put', key: `first/${number}`, value },
      { kind: 'put', key: `second/${number}`, value },
    ],
  );
  writeSync(1, `ack ${number}\n`);
}
