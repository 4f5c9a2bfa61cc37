/** Assignment and release on the in-memory store: several nodes race for the same pools; no address is given twice or lost. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import type { AssignRequest } from '../../../src/ipam/assign.ts';
import { candidateBlocks } from '../../../src/ipam/blocks.ts';
import { planGiveBack } from '../../../src/ipam/claim.ts';
import { type Address, cidrsOverlap, parseAddress, parseCidr } from '../../../src/model/ip.ts';
import { poolSchema } from '../../../src/model/records.ts';
import { cluster, type TestNode } from './cluster.ts';

const v4 = parseCidr('10.0.0.0/24');
const v6 = parseCidr('fd00::/64');

describe('assignment', () => {
  test('one address of each family that has a pool, from a block claimed in the same transaction', async () => {
    const [node] = (await cluster({
      four: { cidr: v4, blockSize: 26 },
      six: { cidr: v6, blockSize: 122 },
    })) as [TestNode];
    const addresses = await node.assign('e1');
    assert.equal(addresses.length, 2);
    const keys = (await node.store.list('')).entries.map(({ key }) => key.split('/')[0]);
    assert.deepEqual(keys, [
      'addresses',
      'addresses',
      'blocks',
      'blocks',
      'endpoints',
      'nodes',
      'owners',
      'owners',
      'pools',
      'pools',
    ]);
  });

  test('never the first or last address, the gateway, or an excluded one, until nothing is left', async () => {
    const pool = {
      cidr: parseCidr('10.0.0.0/29'),
      blockSize: 29,
      gateway: parseAddress('10.0.0.6'),
      excludes: [parseCidr('10.0.0.4/31')],
    };
    const [node] = (await cluster({ p: pool })) as [TestNode];
    const given: Address[] = [];
    for (const endpoint of ['a', 'b', 'c']) given.push(...(await node.assign(endpoint)));
    assert.deepEqual([...given].sort(), ['10.0.0.1', '10.0.0.2', '10.0.0.3']);
    await assert.rejects(node.assign('d'), { code: 'POOL_EXHAUSTED', message: /node n1 in pool p$/ });
    await node.release('a', [given[0]!]);
    await assert.rejects(node.assign('d'), {
      message: /in pool p: 1 cooling down, the first until 1970-01-01T/,
    });
  });

  const refusals: [string, Partial<AssignRequest>, string, RegExp][] = [
    ['no such pool', { pools: ['nope'] }, 'POOL_NOT_FOUND', /there is no pool nope/],
    ['disabled pool', { pools: ['off'] }, 'POOL_DISABLED', /pool off is disabled/],
    ['address in no pool', { addresses: [parseAddress('192.0.2.1')] }, 'OUT_OF_RANGE', /is in no pool/],
    [
      'address of another pool',
      { addresses: [parseAddress('10.0.0.9')], pools: ['six'] },
      'OUT_OF_RANGE',
      /is in pool p, not in six/,
    ],
    [
      'excluded address',
      { addresses: [parseAddress('10.0.0.16')] },
      'ADDRESS_EXCLUDED',
      /kept out of pool p/,
    ],
    [
      'taken address',
      { addresses: [parseAddress('10.0.0.20')] },
      'ADDRESS_IN_USE',
      /taken by t\/a\/holder on node n1/,
    ],
  ];
  for (const [name, request, code, message] of refusals) {
    test(`refused: ${name}; nothing is written and nothing stays held`, async () => {
      const [node] = (await cluster({
        p: { cidr: v4, blockSize: 26, excludes: [parseCidr('10.0.0.16/32')] },
        six: { cidr: v6, blockSize: 122 },
        off: { cidr: parseCidr('10.9.0.0/24'), blockSize: 26, disabled: true },
      })) as [TestNode];
      await node.assign('holder', { addresses: [parseAddress('10.0.0.20')] });
      const before = await node.store.list('');
      await assert.rejects(node.assign('e', request), { code, message });
      assert.deepEqual(await node.store.list(''), before);
      assert.equal(node.book.isHeld('10.0.0.20' as Address), false);
    });
  }

  test('both families or none: an exhausted IPv6 pool takes no IPv4 address', async () => {
    const [node] = (await cluster({
      four: { cidr: v4, blockSize: 26 },
      six: { cidr: parseCidr('fd00::/127'), blockSize: 127 },
    })) as [TestNode];
    await node.assign('a');
    await node.assign('b');
    const before = (await node.store.list('addresses/')).entries.length;
    await assert.rejects(node.assign('c'), { code: 'POOL_EXHAUSTED', message: /in pool six$/ });
    assert.equal((await node.store.list('addresses/')).entries.length, before);
  });

  test('an address of another node’s block is refused, naming the node', async () => {
    const [one, two] = (await cluster({ p: { cidr: v4, blockSize: 26 } }, ['n1', 'n2'])) as [
      TestNode,
      TestNode,
    ];
    const [address] = (await one.assign('a')) as [Address];
    await one.release('a', [address]);
    const other = parseAddress(address.replace(/\d+$/, (last) => String(Number(last) ^ 1)));
    await assert.rejects(two.assign('b', { addresses: [other] }), {
      code: 'ADDRESS_UNAVAILABLE',
      message: /of node n1/,
    });
  });

  test('concurrent assignments on three nodes never give an address twice', async () => {
    const nodes = await cluster({ p: { cidr: parseCidr('10.0.0.0/25'), blockSize: 29 } }, ['n1', 'n2', 'n3']);
    const given = await Promise.all(
      nodes.flatMap((node) => Array.from({ length: 30 }, (_, i) => node.assign(`${node.name}-${i}`))),
    );
    const flat = given.flat();
    assert.equal(new Set(flat).size, 90);
    assert.equal((await nodes[0]!.store.list('addresses/')).entries.length, 90);
    for (const entry of (await nodes[0]!.store.list('blocks/')).entries) {
      assert.match((entry.value as { node: string }).node, /^n[123]$/);
    }
  });
});

describe('release', () => {
  test('a released address cools down, is refused meanwhile also when asked for, and is free afterwards', async () => {
    const [node] = (await cluster({ p: { cidr: v4, blockSize: 26, cooldownSeconds: 10 } })) as [TestNode];
    const [address] = (await node.assign('a')) as [Address];
    await node.release('a', [address]);
    await assert.rejects(node.assign('b', { addresses: [address] }), {
      code: 'ADDRESS_UNAVAILABLE',
      message: /released a moment ago/,
    });
    node.clock.advance(9_999);
    await node.ipam.expire();
    assert.equal(node.record(address)?.state, 'cooldown');
    assert.equal(planGiveBack(node.book, 'n1'), null);
    node.clock.advance(1);
    await node.ipam.expire();
    assert.deepEqual(await node.assign('b', { addresses: [address] }), [address]);
  });

  test('an endpoint releases only what is its own by then', async () => {
    const [node] = (await cluster({ p: { cidr: v4, blockSize: 26, cooldownSeconds: 0 } })) as [TestNode];
    const [address] = (await node.assign('a')) as [Address];
    await node.release('a', [address]);
    await node.assign('b', { addresses: [address] });
    await node.release('a', [address]);
    assert.equal(node.book.address(address)?.value.endpoint, 'b');
  });

  test('property: after any sequence, records, index and blocks agree, and an empty cluster holds no blocks', async () => {
    const step = fc.record({
      node: fc.integer({ min: 0, max: 2 }),
      endpoint: fc.integer({ min: 0, max: 9 }),
      release: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
        const nodes = await cluster(
          { p: { cidr: parseCidr('10.0.0.0/26'), blockSize: 29, cooldownSeconds: 0 } },
          ['n1', 'n2', 'n3'],
        );
        const store = nodes[0]!.store;
        const held = new Map<string, readonly Address[]>();
        for (const { node: which, endpoint, release } of steps) {
          const node = nodes[which]!;
          const id = `${node.name}-${endpoint}`;
          const mine = held.get(id);
          if (release && mine) {
            await node.release(id, mine);
            held.delete(id);
          } else if (!mine) {
            try {
              held.set(id, await node.assign(id));
            } catch (error) {
              assert.equal((error as { code: string }).code, 'POOL_EXHAUSTED');
            }
          }
          const records = (await store.list('addresses/')).entries.map(({ key }) => key.split('/')[1]);
          assert.deepEqual(records.sort(), [...held.values()].flat().sort());
          assert.equal((await store.list('owners/')).entries.length, records.length);
        }
        for (const [id, addresses] of held)
          await nodes.find(({ name }) => id.startsWith(name))!.release(id, addresses);
        for (const node of nodes) await node.ipam.expire();
        assert.deepEqual(
          (await store.list('')).entries.map(({ key }) => key),
          ['nodes/n1', 'nodes/n2', 'nodes/n3', 'pools/p'],
        );
      }),
      { numRuns: 60 },
    );
  });
});

describe('blocks of a pool', () => {
  test('a /8 and a /64 are walked lazily, excludes are jumped over', () => {
    for (const [cidr, blockSize, exclude] of [
      ['10.0.0.0/8', 26, '10.0.0.0/9'],
      ['fd00::/64', 122, 'fd00::/65'],
    ] as const) {
      const pool = poolSchema.parse({ cidr, blockSize, excludes: [exclude] });
      for (const node of ['a', 'b', 'c', 'd', 'e', 'f']) {
        const [first] = candidateBlocks(pool, node, () => true);
        assert.ok(
          first !== undefined && cidrsOverlap(pool.cidr, first) && !cidrsOverlap(parseCidr(exclude), first),
        );
      }
    }
  });

  test('every free block once, whatever the node', () => {
    const pool = poolSchema.parse({ cidr: '10.0.0.0/26', blockSize: 29, excludes: ['10.0.0.16/28'] });
    for (const node of ['a', 'b', 'c']) {
      const blocks = [...candidateBlocks(pool, node, () => true)].sort();
      assert.deepEqual(blocks, [
        '10.0.0.0/29',
        '10.0.0.32/29',
        '10.0.0.40/29',
        '10.0.0.48/29',
        '10.0.0.56/29',
        '10.0.0.8/29',
      ]);
    }
  });
});
