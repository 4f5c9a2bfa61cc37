/**
 * The API of two agents on one cluster: what one of them answers a moment after the other has changed something, and its watch has not
 * told of it.
 */
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { nodeKey, poolKey } from '../../../src/model/keys.ts';
import { poolSchema } from '../../../src/model/records.ts';
import { MemoryStore } from '../../../src/store/memory.ts';
import type { Json } from '../../../src/store/store.ts';
import { TestNode as IpamNode } from '../ipam/cluster.ts';
import { ManualClock } from '../store/manual-clock.ts';
import { agrees, eventually, TestNode } from '../store/replicated-fixture.ts';
import { commit, put } from '../store/support.ts';
import { call, type Fixture, makeApi } from './fixture.ts';

interface Agent {
  readonly replica: TestNode;
  readonly ipam: IpamNode;
  readonly api: Fixture;
}

const clock = new ManualClock();
let one: Agent;
let two: Agent;
/** Of a block that `two` decides about alone. */
let own: string | undefined;

before(async () => {
  const cluster = new MemoryStore();
  const pool = poolSchema.parse({ cidr: '10.0.0.0/24', kind: 'macvlan', blockSize: 24, cooldownSeconds: 0 });
  const routed = poolSchema.parse({ cidr: '10.2.0.0/24', blockSize: 28, cooldownSeconds: 0 });
  await commit(cluster, put(poolKey('p'), pool as unknown as Json));
  await commit(cluster, put(poolKey('r'), routed as unknown as Json));
  const start = async (name: string): Promise<Agent> => {
    const replica = await new TestNode(name, cluster, clock).open();
    await agrees(replica);
    const node = { address4: null, address6: null, version: '1', startedAt: '2026-01-01T00:00:00.000Z' };
    await replica.put(nodeKey(name), node);
    const ipam = new IpamNode(name, replica.store);
    await ipam.follow();
    const { store } = replica;
    const api = makeApi({ store, ipam: ipam.ipam, node: name, clock, applied: async () => undefined });
    return { replica, ipam, api };
  };
  one = await start('n1');
  two = await start('n2');
  [own] = await two.ipam.assign('own');
  await agrees(two.replica);
  await agrees(one.replica);
});

/** What the agent answers although it hears of what was decided before the request only while it is carried out. */
async function late(path: string, body: Json, change: () => Promise<unknown>) {
  two.replica.wire.late = [];
  try {
    await change();
    const asked = two.replica.wire.transactions;
    const answer = call(two.api, 'POST', path, body);
    let answered = false;
    void answer.then(() => {
      answered = true;
    });
    await eventually(
      clock,
      () => answered || two.replica.wire.transactions > asked,
      'an answer, or a question',
    );
    two.replica.wire.catchUp();
    await eventually(clock, () => answered, 'the answer');
    return await answer;
  } finally {
    two.replica.wire.catchUp();
    await agrees(two.replica);
  }
}

const reservation = (id: string): Json => ({
  ...{ id, tenant: 't', app: 'a', instances: [id], ipv4: 1, kind: 'macvlan', onRelease: 'immutable' },
});

async function reserve(id: string): Promise<string> {
  const { status, body } = await call(one.api, 'POST', '/v1/reservations', reservation(id));
  assert.equal(status, 201, JSON.stringify(body));
  return body.addresses[0].address;
}

async function ok(path: string, body: Json): Promise<void> {
  const answer = await call(one.api, 'POST', path, body);
  assert.equal(answer.status, 200, JSON.stringify(answer.body));
}

for (const [verb, body] of [
  ['extend', { ttlSeconds: 60 }],
  ['commit', { node: 'n2' }],
  ['cancel', {}],
] as const)
  test(`${verb}: a reservation that another agent has just made is there`, async () => {
    const { status, body: answer } = await late(`/v1/reservations/r-${verb}/${verb}`, body, () =>
      reserve(`r-${verb}`),
    );
    assert.equal(status, 200, JSON.stringify(answer));
    if (verb === 'cancel') assert.equal(answer.freed.length, 1);
  });

test('bind, activate, unbind: at the generation that another agent has just given', async () => {
  const address = await reserve('g');
  await agrees(two.replica);
  const at = (verb: string): string => `/v1/allocations/${address}/${verb}`;
  const bound = await late(at('bind'), { generation: 2, container: 'c' }, () =>
    ok(at('transfer'), { generation: 1, toNode: 'n2' }),
  );
  assert.deepEqual([bound.status, bound.body.generation], [200, 3]);
  await agrees(one.replica);
  await ok(at('unbind'), { container: 'c' });
  const unbound = await late(at('unbind'), { container: 'd' }, () =>
    ok(at('bind'), { generation: 4, container: 'd', node: 'n1' }),
  );
  assert.deepEqual([unbound.status, unbound.body.outcome], [200, 'retained']);
});

test('reserve: an address that another agent has just freed, a pool that was just added', async () => {
  const address = await reserve('f');
  await agrees(two.replica);
  const wanted = { tenant: 't', app: 'b', instances: ['0'], addresses: [address] };
  const again = await late('/v1/reservations', wanted, () => ok('/v1/reservations/f/cancel', {}));
  assert.equal(again.status, 201, JSON.stringify(again.body));
  const other = { tenant: 't', app: 'b', instances: ['1'], ipv4: 1, pools: ['q'] };
  const added = await late('/v1/reservations', other, () =>
    call(one.api, 'POST', '/v1/pools', { name: 'q', cidr: '10.1.0.0/24', kind: 'macvlan' }),
  );
  assert.equal(added.status, 201, JSON.stringify(added.body));
});

test('a batch asks once, before all of its operations', async () => {
  const operations = [
    { op: 'extend', reservation: 'b1', ttlSeconds: 60 },
    { op: 'cancel', reservation: 'b2' },
  ];
  const { body } = await late('/v1/allocations/batch', { operations }, () =>
    Promise.all([reserve('b1'), reserve('b2')]),
  );
  assert.equal(body.failed, 0, JSON.stringify(body));
  assert.equal(body.items[1].result.freed.length, 1);
});

test('what is refused all the same is refused once; cut off, nobody is told what is not known', async () => {
  const nothing = await call(two.api, 'POST', '/v1/reservations/none/extend', { ttlSeconds: 60 });
  assert.deepEqual([nothing.status, nothing.body.error.code], [410, 'RESERVATION_EXPIRED']);
  two.replica.wire.cut();
  try {
    for (const [path, body] of [
      ['/v1/reservations/none/extend', { ttlSeconds: 60 }],
      ['/v1/reservations/none/cancel', {}],
      ['/v1/allocations/10.0.0.9/unbind', { container: 'c' }],
    ] as const) {
      let answer: Awaited<ReturnType<typeof call>> | undefined;
      void call(two.api, 'POST', path, body).then((answered) => {
        answer = answered;
      });
      await eventually(clock, () => answer !== undefined, path);
      assert.deepEqual([answer?.status, answer?.body.error.code], [503, 'STORE_UNAVAILABLE'], path);
    }
    const operations = [{ op: 'cancel', reservation: 'none' }];
    const { body } = await call(two.api, 'POST', '/v1/allocations/batch', { operations });
    assert.equal(body.items[0].error.code, 'STORE_UNAVAILABLE');
  } finally {
    two.replica.wire.mend();
  }
});

test('about a block of its own an agent asks nobody, and answers cut off', async () => {
  two.replica.wire.cut();
  const at = (verb: string): string => `/v1/allocations/${own}/${verb}`;
  const stale = await call(two.api, 'POST', at('release'), { generation: 9 });
  assert.equal(stale.body.error.code, 'STALE_GENERATION');
  const unknown = await call(two.api, 'POST', at('unbind'), { container: 'x' });
  assert.equal(unknown.body.outcome, 'unknown');
  const operations = [{ op: 'unbind', address: own!, container: 'x' }];
  const { body } = await call(two.api, 'POST', '/v1/allocations/batch', { operations });
  assert.equal(body.items[0].result.outcome, 'unknown');
});
