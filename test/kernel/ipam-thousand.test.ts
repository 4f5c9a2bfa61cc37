/** 1,000 requests from 10 nodes at once for 1,000 addresses, on a real etcd: all succeed, none twice. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { furnish, startNodes } from '../../lab/ipam-cluster.ts';
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
    test(what, { timeout: 110_000 }, async () => {
      const prefix = `/${index}/`;
      const names = Array.from({ length: 10 }, (_, number) => `n${number}`);
      const store = etcd.open({ prefix });
      await furnish(store, names, { p: pool }, { strictAffinity });
      const cluster = await startNodes(names, () => etcd.open({ prefix }));
      try {
        const kind = 'kind' in pool ? pool.kind : 'routed';
        const given = await Promise.all(
          cluster.nodes.flatMap(({ ipam }) =>
            Array.from({ length: 100 }, (_, number) => ipam.assign(`${ipam.name}-${number}`, { kind })),
          ),
        );
        assert.equal(new Set(given.flat()).size, 1000);
        await cluster.settled();
        const { entries, revision } = await store.list('');
        const snapshot = readSnapshot(entries, revision);
        assert.deepEqual([...snapshot.addresses.keys()].sort(), given.flat().sort());
        assert.deepEqual(check(snapshot, new Date()), []);
      } finally {
        await cluster.close();
      }
    });
  }
});
