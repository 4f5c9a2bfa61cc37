/** The life of an address, verb by verb: fixed addresses, reservations, bind and unbind, transfer, release, quarantine, blocks. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { lostEndpoints } from '../../../src/ipam/lost.ts';
import { type Address, parseAddress, parseCidr } from '../../../src/model/ip.ts';
import { macOf, parseMac } from '../../../src/model/mac.ts';
import type { ReleasePolicy } from '../../../src/model/records.ts';
import type { MemoryStore } from '../../../src/store/memory.ts';
import type { Json } from '../../../src/store/store.ts';
import { cluster, type Pools, type TestNode } from './cluster.ts';

const v4 = parseCidr('10.0.0.0/24');
const pools: Pools = { p: { cidr: v4, blockSize: 28, cooldownSeconds: 60 } };
const owner = { tenant: 't', app: 'db', instance: '0' };

async function two(of: Pools = pools): Promise<[TestNode, TestNode]> {
  return (await cluster(of, ['n1', 'n2'])) as [TestNode, TestNode];
}

async function settle(...nodes: TestNode[]): Promise<void> {
  for (const node of nodes) await node.settled();
}

describe('fixed address', () => {
  test('survives delete, a move to another node and recreation, with its MAC; dual stack', async () => {
    const [one, other] = await two({ ...pools, six: { cidr: parseCidr('fd00::/64'), blockSize: 122 } });
    const fixed = { owner, onRelease: 'immutable' as const };
    const mac = parseMac('02:00:00:00:00:77');
    const first = await one.attach('a', { ...fixed, mac });
    assert.equal(first.addresses.length, 2);
    await one.release('a', first.addresses);
    assert.deepEqual(
      first.addresses.map((address) => one.record(address)?.state),
      ['retained', 'retained'],
    );
    await settle(one, other);
    const second = await other.attach('b', { ...fixed, mac: null });
    assert.deepEqual([second.addresses, second.mac], [first.addresses, mac]);
    assert.deepEqual(second.generations, [3, 3]);
    assert.equal(other.record(first.addresses[0]!)?.borrowed, true);
    assert.deepEqual(await other.check(), []);
    await other.release('b', second.addresses);
    await settle(one, other);
    const third = await one.attach('c', fixed);
    assert.deepEqual([third.addresses, third.mac], [first.addresses, mac]);
    assert.equal(one.record(first.addresses[0]!)?.borrowed, false);
  });

  test('nobody else gets it meanwhile, not even by asking for it', async () => {
    const [one] = await two();
    const { addresses } = await one.attach('a', { owner, onRelease: 'never' });
    await one.release('a', addresses);
    await assert.rejects(one.assign('b', { addresses }), {
      code: 'ADDRESS_IN_USE',
      message: /taken by t\/db\/0/,
    });
    assert.deepEqual(await one.assign('c', { owner, addresses }), addresses);
  });

  test('while another endpoint has it, a second one is refused and says where it is', async () => {
    const [one, other] = await two();
    await one.attach('a', { owner, onRelease: 'immutable' });
    await settle(one, other);
    await assert.rejects(other.attach('b', { owner, onRelease: 'immutable' }), {
      code: 'ADDRESS_IN_USE',
      message: /still in use on node n1: unbind or transfer it first/,
    });
  });

  test('two endpoints that ask for it at once: one gets it, the other no address of its own beside it', async () => {
    const [one] = await two();
    const { addresses } = await one.attach('a', { owner, onRelease: 'immutable' });
    await one.release('a', addresses);
    const first = one.attach('b', { owner, onRelease: 'immutable' });
    await assert.rejects(one.attach('c', { owner, onRelease: 'immutable' }), {
      code: 'ADDRESS_UNAVAILABLE',
      message: /10\.0\.0\.\d+ of t\/db\/0 is being given to another endpoint right now/,
    });
    assert.deepEqual((await first).addresses, addresses);
    assert.deepEqual([...one.book.addressesOf(owner)], addresses);
  });

  test('its pool may be disabled meanwhile: what was promised stays, nothing new is given', async () => {
    const [one] = await two();
    const { addresses } = await one.attach('a', { owner, onRelease: 'immutable' });
    await one.release('a', addresses);
    const { value } = (await one.store.get('pools/p'))!;
    await one.store.transact(
      [],
      [{ kind: 'put', key: 'pools/p', value: { ...(value as object), disabled: true } }],
    );
    await one.settled();
    await assert.rejects(one.assign('b'), { code: 'POOL_NOT_FOUND' });
    assert.deepEqual(await one.assign('a', { owner }), addresses);
  });

  const policies: [ReleasePolicy, string, string | undefined, string | undefined][] = [
    // policy, after the container, 61 s later, two days later
    ['delete', 'cooldown', undefined, undefined],
    ['immutable', 'retained', 'retained', 'retained'],
    ['never', 'retained', 'retained', 'retained'],
    ['ttl', 'retained', 'retained', undefined],
  ];
  for (const [onRelease, after, soon, late] of policies) {
    test(`policy ${onRelease}: ${after}, then ${soon ?? 'free'}, at last ${late ?? 'free'}`, async () => {
      const [one] = await two();
      const { addresses } = await one.attach('a', { owner, onRelease, ttlSeconds: 3600 });
      await one.release('a', addresses);
      const state = (): string | undefined => one.record(addresses[0]!)?.state;
      assert.equal(state(), after);
      one.clock.advance(61_000);
      await one.ipam.expire();
      assert.equal(state(), soon);
      one.clock.advance(2 * 86_400_000);
      await one.ipam.expire();
      one.clock.advance(61_000);
      await one.ipam.expire();
      assert.equal(state(), late);
    });
  }

  test('the owner’s end frees what it keeps; what is in use goes with its container; never needs force', async () => {
    const [one] = await two();
    const kept = await one.attach('a', { owner, onRelease: 'immutable' });
    await one.release('a', kept.addresses);
    const used = await one.attach('b', { owner: { ...owner, instance: '1' }, onRelease: 'immutable' });
    assert.deepEqual(await one.ipam.releaseOwner({ owner, force: false }), {
      freed: kept.addresses,
      later: [],
      kept: [],
    });
    const second = { owner: { ...owner, instance: '1' }, force: false };
    assert.deepEqual((await one.ipam.releaseOwner(second)).later, used.addresses);
    await one.release('b', used.addresses);
    assert.equal(one.record(used.addresses[0]!)?.state, 'cooldown');
    const third = { ...owner, instance: '2' };
    const never = await one.attach('c', { owner: third, onRelease: 'never' });
    await one.release('c', never.addresses);
    assert.deepEqual((await one.ipam.releaseOwner({ owner: third, force: false })).kept, never.addresses);
    assert.deepEqual((await one.ipam.releaseOwner({ owner: third, force: true })).freed, never.addresses);
    assert.deepEqual(await one.check(), []);
  });
});

describe('reservation', () => {
  test('an attach takes what its owner, or the reservation it names, holds; the rest is freed at its end', async () => {
    const [one, other] = await two();
    const { addresses, expiresAt } = await one.reserve('r', { instances: ['0', '1', '2'], ipv4: 1 });
    assert.equal(Date.parse(expiresAt) - one.clock.now(), 600_000);
    await settle(one, other);
    const held = addresses.map(({ address }) => address);
    assert.deepEqual(await other.assign('a', { owner: { tenant: 't', app: 'a', instance: '1' } }), [held[1]]);
    assert.deepEqual(await other.assign('b', { reservation: 'r' }), [held[0]]);
    one.clock.advance(600_000);
    other.clock.advance(600_000);
    await assert.rejects(other.assign('c', { reservation: 'r' }), {
      code: 'RESERVATION_EXPIRED',
      message: /r ended at/,
    });
    one.clock.advance(61_000);
    await one.ipam.expire();
    await settle(one, other);
    assert.equal(other.record(held[2]!), undefined);
    assert.deepEqual([other.record(held[0]!)?.state, other.record(held[1]!)?.state], ['active', 'active']);
    await assert.rejects(other.assign('c', { reservation: 'r' }), { code: 'RESERVATION_EXPIRED' });
    assert.deepEqual(await one.check(), []);
  });

  test('best-effort up to the quota, which is said where it leaves nothing', async () => {
    const [one] = (await cluster(
      { p: { cidr: parseCidr('10.0.0.0/24'), blockSize: 26 } },
      { names: ['n1'], quotas: { t: 3 } },
    )) as [TestNode];
    await assert.rejects(one.reserve('a', { ipv4: 4 }), { code: 'QUOTA_EXCEEDED' });
    const granted = await one.reserve('b', { ipv4: 4, mode: 'best-effort' });
    assert.deepEqual([granted.addresses.length, granted.requested], [3, 4]);
    await assert.rejects(one.reserve('c', { ipv4: 4, mode: 'best-effort' }), { code: 'QUOTA_EXCEEDED' });
  });

  test('all or nothing; best-effort says how many of how many', async () => {
    const [one] = await two({ p: { cidr: parseCidr('10.0.0.0/29'), blockSize: 29 } });
    const before = await one.store.list('');
    await assert.rejects(one.reserve('r', { ipv4: 7 }), { code: 'POOL_EXHAUSTED' });
    assert.deepEqual(await one.store.list(''), before);
    const granted = await one.reserve('r', { ipv4: 7, mode: 'best-effort' });
    assert.deepEqual([granted.addresses.length, granted.requested], [6, 7]);
    await assert.rejects(one.reserve('s', { ipv4: 1, mode: 'best-effort' }), { code: 'POOL_EXHAUSTED' });
    await assert.rejects(one.reserve('r', {}), { code: 'ALREADY_EXISTS' });
  });

  test('explicit addresses, for the instances in turn; MACs kept', async () => {
    const [one] = await two();
    const wanted = [parseAddress('10.0.0.100'), parseAddress('10.0.0.5')];
    const macs = [parseMac('02:00:00:00:00:01')];
    const { addresses } = await one.reserve('r', { addresses: wanted, instances: ['x', 'y'], macs });
    assert.deepEqual(
      addresses.map(({ address, mac, owner: { instance } }) => [address, mac, instance]),
      [
        [wanted[0], macs[0], 'x'],
        [wanted[1], macOf(wanted[1]!), 'y'],
      ],
    );
    const taken = await one.attach('a', { owner: { tenant: 't', app: 'a', instance: 'x' } });
    assert.deepEqual([taken.addresses, taken.mac], [[wanted[0]], macs[0]]);
  });

  test('extend, commit to a node, cancel', async () => {
    const [one, other] = await two();
    const { addresses } = await one.reserve('r', { ipv4: 2, ttlSeconds: 60 });
    const at = { id: 'r', tenant: 't' };
    one.clock.advance(59_000);
    assert.equal(
      Date.parse((await one.ipam.extend({ ...at, ttlSeconds: 90 })).expiresAt),
      one.clock.now() + 90_000,
    );
    await one.ipam.commitTo({ ...at, node: 'n2' });
    await settle(one, other);
    await assert.rejects(one.assign('a', { reservation: 'r' }), {
      code: 'AFFINITY_MISMATCH',
      message: /for node n2/,
    });
    await assert.rejects(one.ipam.commitTo({ ...at, node: 'n1' }), { code: 'AFFINITY_MISMATCH' });
    assert.deepEqual(await other.assign('a', { reservation: 'r' }), [addresses[0]?.address]);
    await settle(one, other);
    for (const call of [
      one.ipam.cancel({ id: 'r', tenant: 'other' }),
      one.ipam.extend({ id: 'r', tenant: 'other', ttlSeconds: 9 }),
    ])
      await assert.rejects(call, { code: 'NOT_OWNER' });
    assert.deepEqual(await one.ipam.cancel(at), [addresses[1]?.address]);
    assert.deepEqual(await one.ipam.cancel(at), []);
    await assert.rejects(one.ipam.extend({ ...at, ttlSeconds: 9 }), { code: 'RESERVATION_EXPIRED' });
    assert.equal(one.record(addresses[0]!.address)?.state, 'active');
  });

  test('a failed attach gives the reservation its address back', async () => {
    const [one] = await two();
    await one.reserve('r');
    const addresses = await one.assign('a', { reservation: 'r' });
    await one.release('a', addresses, false);
    assert.equal(one.record(addresses[0]!)?.state, 'reserved');
    assert.deepEqual(await one.assign('a', { reservation: 'r' }), addresses);
  });

  test('for another node it takes from shared blocks only: a node’s own stay its own to decide', async () => {
    const [one, other] = await two();
    await other.assign('a');
    await settle(one, other);
    const { addresses } = await one.reserve('r', { node: 'n2', ipv4: 3 });
    const blocks = addresses.map(({ address }) => one.book.blockAt(one.book.pool('p')!, address)?.value);
    for (const block of blocks) assert.deepEqual([block?.node, block?.shared], ['n2', true]);
    assert.equal(one.book.blocksOf('n2', 'p').size, 2);
    await settle(one, other);
    const own = other.book.blockAt(other.book.pool('p')!, (await other.assign('b'))[0]!)?.value;
    assert.equal(own?.shared, false);
  });
});

describe('bind, activate, unbind', () => {
  test('each step once; a repeated request is answered, a late one is told', async () => {
    const [one] = await two();
    const { address, generation } = (await one.reserve('r')).addresses[0]!;
    const bind = { address, generation, tenant: null, node: 'n1', container: 'c', endpoint: null };
    const bound = await one.ipam.bind(bind);
    assert.equal(bound.generation, 2);
    assert.equal(bound.mac, macOf(address));
    assert.equal((await one.ipam.bind(bind)).generation, 2);
    await assert.rejects(one.ipam.bind({ ...bind, container: 'other' }), { code: 'STALE_GENERATION' });
    await assert.rejects(one.ipam.bind({ ...bind, generation: 2, container: 'other' }), { code: 'IN_USE' });
    const fence = { address, generation: 2, tenant: null };
    assert.equal((await one.ipam.activate({ ...fence, mac: null })).generation, 2);
    assert.equal((await one.ipam.activate({ ...fence, mac: null })).generation, 2);
    assert.equal(one.record(address)?.state, 'active');
    await assert.rejects(one.ipam.activate({ ...fence, generation: 1, mac: null }), {
      code: 'STALE_GENERATION',
    });
    assert.deepEqual(await one.check(), []);
    const unbind = { address, generation: 2, tenant: null, container: 'c' };
    assert.equal(await one.ipam.unbind({ ...unbind, container: 'unknown' }), 'unknown');
    await assert.rejects(one.ipam.unbind({ ...unbind, generation: 1 }), { code: 'STALE_GENERATION' });
    assert.equal(await one.ipam.unbind(unbind), 'cooldown');
    assert.equal(await one.ipam.unbind(unbind), 'unknown');
  });

  test('two nodes bind one address at once: one has it', async () => {
    const [one, other] = await two();
    const { address } = (await one.reserve('r')).addresses[0]!;
    await settle(one, other);
    const results = await Promise.allSettled(
      [one, other].map((node) =>
        node.ipam.bind({
          address,
          generation: 1,
          tenant: null,
          node: node.name,
          container: node.name,
          endpoint: null,
        }),
      ),
    );
    assert.deepEqual(results.map(({ status }) => status).sort(), ['fulfilled', 'rejected']);
    const lost = results.find((result) => result.status === 'rejected');
    assert.equal(lost?.reason.code, 'STALE_GENERATION');
  });

  test('an answer that got lost: the same call again is answered', async () => {
    const [one] = await two();
    const { address } = (await one.reserve('r')).addresses[0]!;
    const bind = { address, generation: 1, tenant: null, node: 'n1', container: 'c', endpoint: null };
    (one.store as MemoryStore).failNext('transact', 'ambiguous');
    await assert.rejects(one.ipam.bind(bind), { code: 'STORE_UNAVAILABLE' });
    await one.settled();
    assert.equal((await one.ipam.bind(bind)).generation, 2);
  });
});

describe('an owner that is no more', () => {
  test('what its containers use is written by nobody but its writer: another node’s own block is left alone', async () => {
    const [one, other] = await two();
    const [address] = (await one.assign('a', { owner })) as [Address];
    await settle(one, other);
    const before = one.record(address);
    const { later } = await other.ipam.releaseOwner({ owner, force: true });
    assert.deepEqual(later, [address]);
    await settle(one, other);
    assert.deepEqual(one.record(address), before, 'it goes with its container, as it is');
    const entry = await one.store.get(`addresses/${address}`);
    const value = { ...before, onRelease: 'immutable' } as unknown as Json;
    await one.store.transact([], [{ kind: 'put', key: entry!.key, value }]);
    await settle(one, other);
    await assert.rejects(other.ipam.releaseOwner({ owner, force: true }), { code: 'AFFINITY_MISMATCH' });
    assert.deepEqual((await one.ipam.releaseOwner({ owner, force: true })).later, [address]);
    await settle(one, other);
    assert.equal(one.record(address)?.onRelease, 'delete');
  });
});

describe('transfer', () => {
  test('a node that comes back after its address moved is told by every verb, and takes nothing with it', async () => {
    const [one, other] = await two();
    const { addresses, generations } = await one.attach('old', { owner, onRelease: 'immutable' });
    const [address] = addresses as [Address];
    const [generation] = generations as [number];
    await settle(one, other);
    const moved = await other.ipam.transfer({
      address,
      generation,
      tenant: 't',
      toOwner: null,
      toNode: 'n2',
    });
    assert.equal(moved.was.node, 'n1');
    assert.deepEqual(await other.assign('new', { owner }), [address]);
    await settle(one, other);
    const fence = { address, generation, tenant: null };
    const stale = { code: 'STALE_GENERATION' };
    await assert.rejects(one.ipam.bind({ ...fence, node: 'n1', container: 'c-old', endpoint: 'old' }), stale);
    await assert.rejects(one.ipam.activate({ ...fence, mac: null }), stale);
    await assert.rejects(one.ipam.release({ ...fence, force: false }), stale);
    assert.equal(await one.ipam.unbind({ ...fence, container: 'c-old' }), 'unknown');
    assert.deepEqual(
      lostEndpoints(one.book, one.endpoints.all()).map(({ id, address: lost }) => [id, lost]),
      [['old', address]],
    );
    assert.deepEqual(lostEndpoints(other.book, other.endpoints.all()), []);
    await one.release('old', addresses);
    await settle(one, other);
    assert.deepEqual([other.record(address)?.endpoint, other.record(address)?.node], ['new', 'n2']);
    assert.deepEqual(await other.check(), []);
  });

  test('from a block that its node decides about alone: by that node, or by force; the block is shared from then on', async () => {
    const [one, other] = await two();
    const [address] = (await one.assign('a')) as [Address];
    await settle(one, other);
    const request = { address, generation: 1, tenant: null, toOwner: null, toNode: 'n2' };
    await assert.rejects(other.ipam.transfer(request), {
      code: 'AFFINITY_MISMATCH',
      message: /node n1 decides alone/,
    });
    const shared = (): boolean | undefined => one.book.blockAt(one.book.pool('p')!, address)?.value.shared;
    assert.equal(shared(), false);
    await other.ipam.transfer({ ...request, force: true });
    await settle(one, other);
    assert.equal(shared(), true);
    const [second] = (await one.assign('b')) as [Address];
    await one.ipam.transfer({ ...request, address: second });
    assert.equal(one.book.blockAt(one.book.pool('p')!, second)?.value.shared, true);
  });

  test('to another owner: index, quota and, with the policy delete, a time in which to take it', async () => {
    const [one] = (await cluster(pools, { quotas: { new: 1 } })) as [TestNode];
    const given = await one.attach('a');
    const [address] = given.addresses as [Address];
    const to = { tenant: 'new', app: 'x', instance: '0' };
    const request = { address, tenant: null, toOwner: to, toNode: null };
    const { generation } = await one.ipam.transfer({ ...request, generation: 1 });
    assert.deepEqual([...one.book.addressesOf(to)], [address]);
    const more = await one.attach('b');
    await assert.rejects(one.ipam.transfer({ ...request, address: more.addresses[0]!, generation: 1 }), {
      code: 'QUOTA_EXCEEDED',
    });
    await assert.rejects(one.ipam.transfer({ ...request, tenant: 't', generation }), { code: 'NOT_OWNER' });
    one.clock.advance(600_000);
    await one.ipam.expire();
    assert.equal(one.record(address)?.state, 'cooldown');
  });
});

describe('release', () => {
  test('fenced by generation and owner; not from a container; force is said', async () => {
    const [one] = await two();
    const [address] = (await one.assign('a')) as [Address];
    const request = { address, generation: 1, tenant: 't', force: false };
    await assert.rejects(one.ipam.release({ ...request, generation: 7 }), { code: 'STALE_GENERATION' });
    await assert.rejects(one.ipam.release({ ...request, tenant: 'x' }), { code: 'NOT_OWNER' });
    await assert.rejects(one.ipam.release(request), {
      code: 'IN_USE',
      message: /on node n1: unbind it first/,
    });
    await assert.rejects(one.ipam.release({ ...request, force: true }), { code: 'IN_USE' });
    const forced = await one.ipam.release({ ...request, tenant: null, generation: 7, force: true });
    assert.deepEqual([forced.forced, forced.outcome, forced.was?.endpoint], [true, 'cooldown', 'a']);
    await assert.rejects(one.ipam.release(request), { code: 'STALE_GENERATION' });
  });

  test('retained: cools down; reserved: free at once; never: only by force', async () => {
    const [one] = await two();
    const { addresses } = await one.attach('a', { owner, onRelease: 'never' });
    await one.release('a', addresses);
    const [address] = addresses as [Address];
    const request = { address, generation: 2, tenant: 't', force: false };
    await assert.rejects(one.ipam.release(request), { code: 'IN_USE', message: /until an operator forces/ });
    const forced = await one.ipam.release({ ...request, tenant: null, force: true });
    assert.deepEqual([forced.outcome, forced.forced], ['cooldown', true]);
    const { address: reserved } = (await one.reserve('r')).addresses[0]!;
    const freed = await one.ipam.release({ ...request, address: reserved, generation: 1 });
    assert.deepEqual([freed.outcome, freed.forced], ['free', false]);
  });
});

describe('quarantine', () => {
  const mac = parseMac('00:11:22:33:44:55');
  const report = (address: Address) => ({ address, mac, node: 'n1', seenAt: new Date(0) });

  test('an address in use keeps its container, and is nobody’s afterwards until an operator releases it', async () => {
    const [one] = await two();
    const { addresses } = await one.attach('a');
    const [address] = addresses as [Address];
    assert.equal((await one.ipam.quarantine(report(address))).endpoint, 'a');
    const { revision } = await one.store.list('');
    await one.ipam.quarantine(report(address));
    assert.equal((await one.store.list('')).revision, revision, 'a repeated report writes nothing');
    await one.release('a', addresses);
    assert.equal(one.record(address)?.state, 'quarantined');
    await assert.rejects(one.assign('b', { addresses }), {
      code: 'ADDRESS_QUARANTINED',
      message: /00:11:22:33:44:55 answered for it on node n1/,
    });
    const fence = { address, generation: 2, force: false };
    await assert.rejects(one.ipam.release({ ...fence, tenant: 't' }), { code: 'ADDRESS_QUARANTINED' });
    assert.equal((await one.ipam.release({ ...fence, tenant: null })).outcome, 'cooldown');
    assert.deepEqual(await one.check(), []);
  });

  test('a free address, and a candidate that answered already', async () => {
    const [one] = await two();
    const free = parseAddress('10.0.0.9');
    await one.ipam.quarantine(report(free));
    await assert.rejects(one.assign('b', { addresses: [free] }), { code: 'ADDRESS_QUARANTINED' });
    assert.deepEqual(await one.check(), []);
    const [first] = await one.assign('a');
    await one.release('a', [first!]);
    const [next] = await one.assign('c', { skip: [parseAddress('10.0.0.10')] });
    assert.notEqual(next, '10.0.0.10');
    const own = one.record(next!)!.mac!;
    await assert.rejects(one.ipam.quarantine({ ...report(next!), mac: own }), {
      code: 'INVALID',
      message: /another MAC/,
    });
  });
});

describe('blocks', () => {
  test('claimed ahead, given back when empty, by their node only', async () => {
    const [one, other] = await two({ p: { cidr: v4, blockSize: 28, maxBlocksPerNode: 2 } });
    const block = await one.ipam.claim({ pool: 'p', node: 'n1', tenant: 't', shared: false });
    const second = await one.ipam.claim({ pool: 'p', node: 'n1', tenant: 't', shared: true });
    assert.notEqual(block, second);
    await assert.rejects(one.ipam.claim({ pool: 'p', node: 'n1', tenant: 't', shared: false }), {
      code: 'NODE_LIMIT',
    });
    await settle(one, other);
    await assert.rejects(other.ipam.giveBack({ block, node: 'n2' }), { code: 'NOT_FOUND' });
    const addresses = await one.assign('a');
    await assert.rejects(one.ipam.giveBack({ block, node: 'n1' }), { code: 'IN_USE' });
    await one.release('a', addresses, false);
    assert.equal(await one.ipam.giveBack({ block, node: 'n1' }), 'gone');
    assert.equal(await one.ipam.giveBack({ block: second, node: 'n1' }), 'closing');
    await one.settled();
    assert.equal(await one.ipam.giveBack({ block: second, node: 'n1' }), 'gone');
    assert.deepEqual((await one.store.list('blocks/')).entries, []);
  });
});

describe('a clock that jumps', () => {
  test('a day forward frees nothing: cooldown, reservation and retention wait a full interval of their own', async () => {
    const [one] = (await cluster(pools)) as [TestNode];
    const cooling = await one.assign('a');
    await one.release('a', cooling);
    const ttl = await one.attach('b', { owner, onRelease: 'ttl', ttlSeconds: 7200 });
    await one.release('b', ttl.addresses);
    const { addresses: reserved } = await one.reserve('r', { ttlSeconds: 600 });
    const states = (): (string | undefined)[] =>
      [cooling[0]!, reserved[0]!.address, ttl.addresses[0]!].map((address) => one.record(address)?.state);
    one.clock.advance(1000);
    await one.ipam.expire();
    assert.equal(one.ipam.clockJumped, false);
    one.clock.jump(86_400_000);
    for (const [seconds, expected] of [
      [0, ['cooldown', 'reserved', 'retained']],
      [59, ['cooldown', 'reserved', 'retained']],
      [1, [undefined, 'reserved', 'retained']],
      [539, [undefined, 'reserved', 'retained']],
      [1, [undefined, undefined, 'retained']],
      [6599, [undefined, undefined, 'retained']],
      [1, [undefined, undefined, 'cooldown']],
    ] as const) {
      one.clock.advance(seconds * 1000);
      await one.ipam.expire();
      assert.deepEqual(states(), expected, `${seconds} s later`);
    }
    assert.equal(one.ipam.clockJumped, true);
  });

  test('a day back: what is over by then stays a little longer, and nothing goes early when it is set right', async () => {
    const [one] = (await cluster(pools)) as [TestNode];
    const cooling = await one.assign('a');
    await one.release('a', cooling);
    one.clock.jump(-86_400_000);
    one.clock.advance(61_000);
    await one.ipam.expire();
    one.clock.jump(86_400_000);
    await one.ipam.expire();
    assert.equal(one.record(cooling[0]!)?.state, 'cooldown');
    one.clock.advance(60_000);
    await one.ipam.expire();
    assert.equal(one.record(cooling[0]!), undefined);
  });
});
