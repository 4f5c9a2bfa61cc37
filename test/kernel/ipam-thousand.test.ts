/**
 * 1,000 requests from 10 nodes at once for 1,000 addresses, on a real etcd: all succeed, none twice. Each node is a process with
 * the patience of an agent.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { furnish } from '../../lab/ipam-cluster.ts';
import { check } from '../../src/ipam/check.ts';
import { readSnapshot } from '../../src/ipam/snapshot.ts';
import { type Cluster, startEtcd } from './etcd-harness.ts';

const cases = [
  {
    what: 'a macvlan pool of exactly 1,000',
    pool: { cidr: '10.66.0.0/22', blockSize: 26, kind: 'macvlan', ranges: ['10.66.0.1-10.66.3.232'] },
    strictAffinity: true,
  },
  {
    what: 'a routed pool, blocks of 4 that one node has alone',
    pool: { cidr: '10.65.0.0/22', blockSize: 30 },
    strictAffinity: true,
  },
  {
    // Ten nodes with seven blocks each do not fit: the last ones borrow.
    what: 'a routed pool, blocks of 16 that are lent',
    pool: { cidr: '10.65.0.0/22', blockSize: 28 },
    strictAffinity: false,
  },
] as const;

describe('1,000 requests from 10 nodes at once', () => {
  let etcd: Cluster;
  before(async () => {
    etcd = await startEtcd();
  });
  after(() => etcd.dispose());

  for (const [index, { what, pool, strictAffinity }] of cases.entries()) {
    test(what, { timeout: 300_000 }, async (t) => {
      const prefix = `/${index}/`;
      const names = Array.from({ length: 10 }, (_, number) => `n${number}`);
      const store = etcd.open({ prefix });
      await furnish(store, names, { p: pool }, { strictAffinity });
      const kind = 'kind' in pool ? pool.kind : 'routed';
      const nodes = names.map((name) => new NodeProcess([name, etcd.endpoints[0]!, prefix, kind]));
      try {
        for (const node of nodes) assert.equal(await node.answer(), 'ready');
        const start = performance.now();
        for (const node of nodes) node.ask('assign');
        const given = (await Promise.all(nodes.map((node) => node.answer()))).map((answer) => {
          assert.ok(answer instanceof Object && 'addresses' in answer, JSON.stringify(answer));
          return answer.addresses as string[];
        });
        t.diagnostic(`all answered after ${Math.round(performance.now() - start)} ms`);
        assert.equal(new Set(given.flat()).size, 1000);
        for (const node of nodes) node.ask('settle');
        for (const node of nodes) assert.equal(await node.answer(), 'settled');
        const { entries, revision } = await store.list('');
        const snapshot = readSnapshot(entries, revision);
        assert.deepEqual([...snapshot.addresses.keys()].sort(), given.flat().sort());
        assert.deepEqual(check(snapshot, new Date()), []);
      } finally {
        for (const node of nodes) node.end();
      }
    });
  }
});

/** A process that answers with one message at a time. */
class NodeProcess {
  readonly #child: ChildProcess;
  #answer: Promise<unknown>;

  constructor(parameters: readonly string[]) {
    this.#child = fork(join(import.meta.dirname, 'ipam-thousand-process.ts'), parameters);
    this.#answer = this.#next();
  }

  async answer(): Promise<unknown> {
    return this.#answer;
  }

  ask(what: 'assign' | 'settle'): void {
    this.#answer = this.#next();
    this.#child.send(what);
  }

  end(): void {
    this.#child.kill('SIGKILL');
  }

  async #next(): Promise<unknown> {
    const ended = once(this.#child, 'exit').then(([code]) => `ended with ${code}`);
    const message = once(this.#child, 'message').then(([received]) => received as unknown);
    return Promise.race([message, ended]);
  }
}
