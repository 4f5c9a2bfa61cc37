/** Real processes on a real file, killed between the local commit and replication. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { MemoryStore } from '../../../src/store/memory.ts';
import { SqliteStore } from '../../../src/store/sqlite.ts';
import { ManualClock } from './manual-clock.ts';
import { agrees, TestNode, visible } from './replicated-fixture.ts';
import { commit, put, Recorder } from './support.ts';

test('kill -9 before replication, twice: all that was acknowledged arrives, once and in order', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'netctl-replicated-'));
  const path = join(directory, 'netctl.db');
  try {
    const cluster = new MemoryStore();
    await commit(cluster, put('pools/p', {}), put('nodes/n1', {}));
    const node = () => new TestNode('n1', cluster, new ManualClock(), {}, new SqliteStore({ path }));
    const first = await node().open();
    await agrees(first);
    first.kill();
    await first.localStore.close();

    const acknowledged = [...(await writeUntilKilled(path, 0)), ...(await writeUntilKilled(path, 1000))];
    assert.ok(acknowledged.length >= 60);
    const recorder = new Recorder();
    cluster.watch('', (await cluster.list('')).revision, recorder);
    const second = await node().open();
    await agrees(second);
    const records = visible(await cluster.list(''));
    for (const number of acknowledged) assert.equal(records[`endpoints/n1/${number}`], number);
    const arrived = recorder.changeSets.flatMap(({ changes }) =>
      changes.flatMap(({ key, entry }) => (/^endpoints\/n1\/\d+$/.test(key) ? [entry!.value as number] : [])),
    );
    assert.equal(new Set(arrived).size, arrived.length, 'none twice');
    const last = recorder.changeSets.map(
      ({ changes }) => changes.find(({ key }) => key === 'endpoints/n1/last')?.entry?.value as number,
    );
    assert.deepEqual(
      last.filter(Number.isFinite),
      last.filter(Number.isFinite).sort((a, b) => a - b),
    );
    second.kill();
    await second.localStore.close();
  } finally {
    rmSync(directory, { recursive: true });
  }
});

async function writeUntilKilled(path: string, first: number): Promise<number[]> {
  const program = join(import.meta.dirname, 'replicated-process.ts');
  const writer = spawn(process.execPath, [program, path, String(first)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = once(writer, 'exit');
  const acknowledged: number[] = [];
  for await (const line of createInterface({ input: writer.stdout })) {
    acknowledged.push(Number(line.slice(4)));
    if (acknowledged.length === 30) writer.kill('SIGKILL');
  }
  assert.equal((await ended)[1], 'SIGKILL');
  return acknowledged;
}
