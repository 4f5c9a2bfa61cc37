/**
 * A process with a replicated store that writes for as long as it lives, to be killed by a test. Its cluster cannot be reached.
 *
 * In: the path of the local store's file. Out: on standard output `ack N` when the endpoint N was acknowledged. Never: an
 * acknowledgement that is lost with the process.
 */
import { writeSync } from 'node:fs';
import { systemClock } from '../../../src/lib/clock.ts';
import { MemoryStore } from '../../../src/store/memory.ts';
import { ReplicatedStore } from '../../../src/store/replicated.ts';
import { SqliteStore } from '../../../src/store/sqlite.ts';
import { silent, Wire } from './replicated-fixture.ts';

const [path, first] = process.argv.slice(2);
const cluster = new Wire(new MemoryStore());
cluster.cut();
const local = new SqliteStore({ path: path! });
const store = await ReplicatedStore.open({ node: 'n1', local, cluster, clock: systemClock, logger: silent });

for (let number = Number(first); ; number++) {
  await store.transact(
    [],
    [
      { kind: 'put', key: `endpoints/n1/${number}`, value: number },
      { kind: 'put', key: 'endpoints/n1/last', value: number },
    ],
  );
  writeSync(1, `ack ${number}\n`);
}
