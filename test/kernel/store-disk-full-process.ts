/**
 * What store-disk-full.test.ts runs in a mount namespace: fills a small tmpfs through the store, frees space, goes on.
 *
 * In: a directory to mount on. Out: one line, or an assertion that failed. Never: run outside a private mount namespace.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { NetctlError } from '../../src/lib/errors.ts';
import { SqliteStore } from '../../src/store/sqlite.ts';

const directory = process.argv[2]!;
assert.notEqual(
  readlinkSync('/proc/self/ns/mnt'),
  readlinkSync(`/proc/${process.ppid}/ns/mnt`),
  'not in a namespace of its own',
);
execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m,mode=700', 'netctl-test', directory]);
const ballast = join(directory, 'ballast');
writeFileSync(ballast, Buffer.alloc(2_000_000));

const path = join(directory, 'netctl.db');
const faults: NetctlError[] = [];
let store = new SqliteStore({ path, onFault: (error) => faults.push(error) });
const watched: string[] = [];
const watch = store.watch('', 0, {
  onChanges: ({ changes }) => watched.push(...changes.map((change) => change.key)),
  onEnd: (error) => assert.fail(error),
});
const acknowledged: string[] = [];

const before = await writeUntilRefused(2000);
assert.match(store.refusal ?? '', /no space is left/);
await agree();
rmSync(ballast);
for (let number = 0; number < 20; number++) assert.ok(await write(`freed/${number}`));
assert.equal(store.refusal, null);
await agree();
const after = await writeUntilRefused(2000);
await agree();
watch.close();
await store.close();
assert.deepEqual(faults, []);

execFileSync('mount', ['-o', 'remount,size=32m', directory]);
store = new SqliteStore({ path });
assert.deepEqual(await keys(), acknowledged.toSorted());
await store.close();
console.log(`held: ${before} transactions before the disk was full, ${after} after`);

/** Groups of four, so that a commit that fails has several transactions in it. */
async function writeUntilRefused(atMost: number): Promise<number> {
  const start = acknowledged.length;
  for (let number = 0; number < atMost; number++) {
    const done = await Promise.all([0, 1, 2, 3].map((part) => write(`k${start}/${number}/${part}`)));
    if (done.includes(false)) return acknowledged.length - start;
  }
  assert.fail('the disk never filled up');
}

async function write(key: string): Promise<boolean> {
  try {
    const result = await store.transact(
      [{ kind: 'absent', key }],
      [{ kind: 'put', key, value: 'x'.repeat(3000) }],
    );
    assert.ok(result.committed);
    acknowledged.push(key);
    return true;
  } catch (error) {
    assert.ok(error instanceof NetctlError && error.code === 'STORE_UNAVAILABLE', String(error));
    assert.match(error.message, /netctl\.db failed: no space is left for it/);
    return false;
  }
}

/** Store, watch and acknowledgements name the same keys, no more and no less. */
async function agree(): Promise<void> {
  await sleep(20);
  assert.deepEqual(await keys(), acknowledged.toSorted());
  assert.deepEqual(watched.toSorted(), acknowledged.toSorted());
  assert.equal((await store.list('')).revision, acknowledged.length);
}

async function keys(): Promise<string[]> {
  return (await store.list('')).entries.map((entry) => entry.key);
}
