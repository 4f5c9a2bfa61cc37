/** Check, repair and collection: each fault is made by hand, found, and put right by the plan; what lives is never freed. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { endpointRecord } from '../../../lab/ipam-node.ts';
import type { FindingKind } from '../../../src/ipam/check.ts';
import { Collector, type Look } from '../../../src/ipam/collect.ts';
import { planRepair } from '../../../src/ipam/repair.ts';
import { type Address, parseCidr } from '../../../src/model/ip.ts';
import { addressKey, blockKey, endpointKey, ownerKey, reservationKey } from '../../../src/model/keys.ts';
import { macOf } from '../../../src/model/mac.ts';
import type { Json, Write } from '../../../src/store/store.ts';
import { cluster, type TestNode } from './cluster.ts';

const owner = { tenant: 't', app: 'a', instance: 'e' };
const pools = { p: { cidr: parseCidr('10.0.0.0/24'), blockSize: 28 } };

async function oneEndpoint(): Promise<{
  node: TestNode;
  address: Address;
  write: (...writes: Write[]) => Promise<void>;
}> {
  const [node] = (await cluster(pools, ['n1', 'n2'])) as [TestNode];
  const [address] = (await node.assign('e')) as [Address];
  const write = async (...writes: Write[]): Promise<void> => {
    await node.store.transact([], writes);
    await node.settled();
  };
  return { node, address, write };
}

async function change(node: TestNode, key: string, changes: object): Promise<Write> {
  const entry = await node.store.get(key);
  return { kind: 'put', key, value: { ...(entry?.value as object), ...changes } as Json };
}

type Fault = (rig: Awaited<ReturnType<typeof oneEndpoint>>) => Promise<void>;

const faults: [FindingKind, string, Fault, RegExp, boolean][] = [
  [
    'leaked',
    'the endpoint is gone',
    async ({ write }) => write({ kind: 'delete', key: endpointKey('n1', 'e') }),
    /is active for endpoint e on node n1, which does not exist/,
    true,
  ],
  [
    'leaked',
    'a cooldown that nobody ended',
    async ({ node, address, write }) => {
      await node.release('e', [address]);
      await write(await change(node, addressKey(address), { cooldownUntil: '1969-01-01T00:00:00.000Z' }));
      node.clock.advance(86_400_000);
    },
    /cooled down at 1969/,
    true,
  ],
  [
    'leaked',
    'retained for ever though its policy is delete',
    async ({ node, address, write }) =>
      write(
        { kind: 'delete', key: endpointKey('n1', 'e') },
        await change(node, addressKey(address), { state: 'retained', endpoint: null, container: null }),
      ),
    /kept for its owner for ever/,
    true,
  ],
  [
    'in-use-but-free',
    'no record',
    async ({ address, write }) =>
      write({ kind: 'delete', key: addressKey(address) }, { kind: 'delete', key: ownerKey(owner, address) }),
    /of endpoint e on node n1 has no record/,
    true,
  ],
  [
    'in-use-but-free',
    'the record cools down',
    async ({ node, address, write }) =>
      write(
        { kind: 'delete', key: ownerKey(owner, address) },
        await change(node, addressKey(address), {
          state: 'cooldown',
          endpoint: null,
          cooldownUntil: '2099-01-01T00:00:00.000Z',
        }),
      ),
    /is cooldown for t\/a\/e/,
    true,
  ],
  [
    'in-use-but-free',
    'the record is another’s',
    async ({ node, address, write }) => write(await change(node, addressKey(address), { endpoint: 'other' })),
    /of endpoint e on node n1 is active for t\/a\/e/,
    false,
  ],
  [
    'orphaned',
    'an index entry without its record',
    async ({ address, write }) =>
      write({ kind: 'put', key: ownerKey({ ...owner, instance: 'ghost' }, address), value: { pool: 'p' } }),
    /index says that t\/a\/ghost has/,
    true,
  ],
  [
    'orphaned',
    'a record without its index entry',
    async ({ address, write }) => write({ kind: 'delete', key: ownerKey(owner, address) }),
    /of t\/a\/e is not in the index/,
    true,
  ],
  [
    'duplicate',
    'one address in two endpoints',
    async ({ node, address, write }) =>
      write({
        kind: 'put',
        key: endpointKey('n2', 'f'),
        value: endpointRecord('f', [address], macOf(address), node.now()),
      }),
    /is in endpoints e on node n1, f on node n2/,
    false,
  ],
  [
    'wrong-node',
    'the block is another node’s',
    async ({ node, address, write }) => {
      const [block] = node.book.blocksOf('n1', 'p');
      assert.ok(address && block);
      await write(await change(node, blockKey(block), { node: 'n2' }));
    },
    /in use on node n1, but node n2 has its block/,
    true,
  ],
  [
    'wrong-node',
    'nobody has the block',
    async ({ node, write }) => {
      const [block] = node.book.blocksOf('n1', 'p');
      await write({ kind: 'delete', key: blockKey(block!) });
    },
    /but no node has its block/,
    true,
  ],
  [
    'stale-reservation',
    'a reservation that nobody ended',
    async ({ node }) => {
      await node.reserve('r', { ttlSeconds: 60, ipv4: 2 });
      node.clock.advance(7_200_000);
    },
    /reservation r of t\/a ended at/,
    true,
  ],
  [
    'stale-reservation',
    'held by a reservation that is gone',
    async ({ node, write }) => {
      await node.reserve('r');
      await write({ kind: 'delete', key: reservationKey('r') });
    },
    /is held by reservation r, which does not exist/,
    true,
  ],
  [
    'broken',
    'a record that cannot be read',
    async ({ write }) => write({ kind: 'put', key: 'addresses/10.0.0.200', value: { pool: 7 } }),
    /addresses\/10\.0\.0\.200 cannot be read/,
    false,
  ],
];

describe('check', () => {
  for (const [kind, name, make, message, repairable] of faults) {
    test(`${kind}: ${name}; ${repairable ? 'repaired by its plan' : 'left to a person'}`, async () => {
      const rig = await oneEndpoint();
      assert.deepEqual(await rig.node.check(), []);
      await make(rig);
      const findings = await rig.node.check();
      assert.deepEqual(
        findings.map((finding) => finding.kind),
        [kind],
        JSON.stringify(findings),
      );
      assert.match(findings[0]!.message, message);
      const [repair] = planRepair(await rig.node.snapshot(), findings, rig.node.now());
      assert.ok(repair && repair.action.length > 10);
      assert.equal(repair.step !== null, repairable);
      if (repair.step === null) return;
      const before = await rig.node.store.list('');
      const result = await rig.node.store.transact(repair.step.compares, repair.step.writes);
      assert.ok(result.committed);
      assert.deepEqual(await rig.node.check(), []);
      assert.equal(
        (await rig.node.store.transact(repair.step.compares, repair.step.writes)).committed,
        false,
      );
      assert.notEqual((await rig.node.store.list('')).revision, before.revision);
    });
  }

  for (const onRelease of ['immutable', 'never', 'ttl'] as const)
    test(`leaked with the policy ${onRelease}: kept for its owner, as the end of its container would`, async () => {
      const { node, write } = await oneEndpoint();
      const fixed = { ...owner, instance: 'fixed' };
      const request = { owner: fixed, onRelease, ttlSeconds: onRelease === 'ttl' ? 600 : null };
      const { addresses, mac } = await node.attach('f', request);
      await write({ kind: 'delete', key: endpointKey('n1', 'f') });
      const findings = await node.check();
      const [repair] = planRepair(await node.snapshot(), findings, node.now());
      assert.match(repair!.action, /keep the address for its owner/);
      await write(...repair!.step!.writes);
      assert.deepEqual(await node.check(), []);
      const { state, expiresAt, container, generation } = node.record(addresses[0]!)!;
      assert.deepEqual([state, container, generation], ['retained', null, 2]);
      const end = new Date(node.clock.now() + 600_000).toISOString();
      assert.equal(expiresAt, onRelease === 'ttl' ? end : null);
      const again = await node.attach('g', request);
      assert.deepEqual([again.addresses, again.mac], [addresses, mac]);
    });

  test('a binding of a container that is no endpoint of ours is no leak', async () => {
    const { node } = await oneEndpoint();
    const { addresses } = await node.reserve('r', { node: 'n1' });
    const fence = { address: addresses[0]!.address, generation: 1, tenant: null };
    await node.ipam.bind({ ...fence, node: 'n1', container: 'foreign', endpoint: null });
    assert.deepEqual(await node.check(), []);
  });
});

describe('collect', () => {
  const grace = 900_000;
  async function leaky() {
    const rig = await oneEndpoint();
    const collector = new Collector();
    await rig.write({ kind: 'delete', key: endpointKey('n1', 'e') });
    const look = async (at: number, changes: Partial<Look> = {}) =>
      collector.look({
        snapshot: await rig.node.snapshot(),
        evidence: { reachable: new Set(['n1', 'n2']), live: new Set() },
        now: rig.node.now(),
        steadyNow: rig.node.now(),
        monotonic: at,
        confirmed: false,
        ...changes,
      });
    return { ...rig, look };
  }

  test('a leak is freed at the second look after the grace time, with evidence', async () => {
    const { node, address, look } = await leaky();
    const verdicts: [number, string][] = [
      [0, 'waiting'],
      [grace - 1, 'waiting'],
      [grace, 'confirmed'],
    ];
    for (const [at, verdict] of verdicts) {
      const { leaks, held } = await look(at);
      assert.equal(held, null);
      assert.deepEqual(
        leaks.map((leak) => [leak.address, leak.verdict, leak.step !== null]),
        [[address, verdict, verdict === 'confirmed']],
      );
    }
    const [leak] = (await look(grace)).leaks;
    assert.match(leak!.evidence, /does not exist; seen so for 900 s, and node n1 has no such link/);
    assert.ok((await node.store.transact(leak!.step!.compares, leak!.step!.writes)).committed);
    await node.settled();
    assert.equal(node.record(address)?.state, 'cooldown');
    assert.deepEqual((await look(2 * grace)).leaks, []);
  });

  test('one long look is not two: the first is never enough', async () => {
    const { look } = await leaky();
    assert.equal((await look(10 * grace)).leaks[0]?.verdict, 'waiting');
  });

  test('an address on a live link, or of a node that is not heard, stays and starts anew', async () => {
    const { address, look } = await leaky();
    for (const [evidence, verdict] of [
      [{ reachable: new Set(['n1']), live: new Set([address]) }, 'live'],
      [{ reachable: new Set(['n2']), live: new Set<Address>() }, 'unreachable'],
    ] as const) {
      await look(0);
      assert.equal((await look(grace, { evidence })).leaks[0]?.verdict, verdict);
      assert.equal((await look(grace)).leaks[0]?.verdict, 'waiting');
    }
  });

  test('a record that changed, or an endpoint that came back, is looked at anew', async () => {
    const { node, address, look, write } = await leaky();
    await look(0);
    await write(await change(node, addressKey(address), { generation: 2 }));
    assert.equal((await look(grace)).leaks[0]?.verdict, 'waiting');
    const { leaks } = await look(2 * grace);
    const endpoint = endpointRecord('e', [address], macOf(address), node.now());
    await write({ kind: 'put', key: endpointKey('n1', 'e'), value: endpoint });
    assert.equal(leaks[0]?.verdict, 'confirmed');
    const late = await node.store.transact(leaks[0]!.step!.compares, leaks[0]!.step!.writes);
    assert.equal(late.committed, false, 'the endpoint that came back stands in the way');
    assert.deepEqual((await look(3 * grace)).leaks, []);
  });

  test('a picture that suddenly lost much frees nothing until somebody confirms it', async () => {
    const [node] = (await cluster(pools)) as [TestNode];
    for (let i = 0; i < 10; i++) await node.assign(`e${i}`);
    const collector = new Collector();
    const look = async (monotonic: number, confirmed = false) =>
      collector.look({
        snapshot: await node.snapshot(),
        evidence: { reachable: new Set(['n1']), live: new Set() },
        now: node.now(),
        steadyNow: node.now(),
        monotonic,
        confirmed,
      });
    await look(0);
    for (let i = 0; i < 5; i++)
      await node.store.transact([], [{ kind: 'delete', key: endpointKey('n1', `e${i}`) }]);
    for (const at of [1, grace, 5 * grace]) {
      const { held, leaks } = await look(at);
      assert.match(held ?? '', /5 of 10 endpoints are gone/);
      assert.deepEqual(leaks, []);
    }
    assert.equal((await look(5 * grace, true)).leaks.length, 5);
    assert.ok((await look(6 * grace)).leaks.every(({ verdict }) => verdict === 'confirmed'));
  });
});
