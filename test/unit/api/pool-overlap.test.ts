/**
 * Pools that share addresses, added at the same moment by several agents on one store, by whatever way a pool is made: one of them is
 * there afterwards.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { keyPrefix } from '../../../src/model/keys.ts';
import { MemoryStore } from '../../../src/store/memory.ts';
import { call, type Fixture, makeApi } from './fixture.ts';

type Way = (fixture: Fixture, name: string, cidr: string) => Promise<boolean>;

const ways: Readonly<Record<string, Way>> = {
  add: async (fixture, name, cidr) => {
    const { status, body } = await call(fixture, 'POST', '/v1/pools', { name, cidr });
    if (status !== 201) assert.equal(body.error.code, 'CIDR_OVERLAP');
    return status === 201;
  },
  apply: async (fixture, name, cidr) => {
    const documents = [{ kind: 'pool', name, cidr, blockSize: 28 }];
    const { status, body } = await call(fixture, 'POST', '/v1/documents', { documents });
    if (status !== 200) assert.match(body.error.code, /CIDR_OVERLAP|CONFLICT/);
    return status === 200;
  },
  import: async ({ api }, name, cidr) => {
    const payload = JSON.stringify({ key: `pools/${name}`, value: { cidr, blockSize: 28 } });
    const headers = { 'content-type': 'application/x-ndjson' };
    const answer = await api.inject({ method: 'POST', url: '/v1/import?tenant=t', headers, payload });
    const { imported, refusals } = answer.json();
    if (imported === 0) assert.equal(refusals[0].code, 'CIDR_OVERLAP', answer.body);
    return imported === 1;
  },
};

for (const [first, one] of Object.entries(ways))
  for (const [second, other] of Object.entries(ways))
    test(`${first} and ${second} at once: one pool is made`, async () => {
      const store = new MemoryStore();
      const agents = [0, 1].map(() => makeApi({ store, applied: async () => undefined })) as [
        Fixture,
        Fixture,
      ];
      const made = await Promise.all([
        one(agents[0], 'a', '10.9.0.0/24'),
        other(agents[1], 'b', '10.9.0.0/25'),
      ]);
      const { entries } = await store.list(keyPrefix.pool);
      assert.equal(entries.length, 1, JSON.stringify(entries));
      assert.equal(made.filter(Boolean).length, 1);
      for (const { api } of agents) await api.close();
    });

test('pools that share nothing are made at once by as many agents', async () => {
  const store = new MemoryStore();
  const agents = Array.from({ length: 5 }, () => makeApi({ store, applied: async () => undefined }));
  const made = await Promise.all(agents.map((agent, i) => ways['add']!(agent, `p${i}`, `10.9.${i}.0/24`)));
  assert.deepEqual(made, [true, true, true, true, true]);
});
