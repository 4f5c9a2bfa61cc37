/** Who gets addresses from where: selectors, tenants, quotas, limits, ranges, borrowing, macvlan pools, very large pools. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { addressesFrom, PoolView } from '../../../src/ipam/pool-view.ts';
import { parseAddressRange } from '../../../src/model/address-range.ts';
import { type Address, cidrContains, parseAddress, parseCidr } from '../../../src/model/ip.ts';
import { poolSchema } from '../../../src/model/records.ts';
import { cluster, type TestNode } from './cluster.ts';

const v4 = parseCidr('10.0.0.0/24');
const owner = (tenant: string, instance = '0') => ({ tenant, app: 'a', instance });

describe('node selector', () => {
  test('a pool serves the nodes that match, others are told what it wants', async () => {
    const [one, two] = (await cluster(
      { p: { cidr: v4, blockSize: 26, nodeSelector: 'rack == "r1"' } },
      { names: ['n1', 'n2'], labels: { n1: { rack: 'r1' }, n2: { rack: 'r2' } } },
    )) as [TestNode, TestNode];
    assert.equal((await one.assign('a')).length, 1);
    const refusal = { code: 'AFFINITY_MISMATCH', message: /node n2 .*p \(rack == "r1"\)/ };
    await assert.rejects(two.assign('b'), refusal);
    await assert.rejects(two.assign('b', { pools: ['p'] }), refusal);
    await assert.rejects(two.assign('b', { addresses: [parseAddress('10.0.0.200')] }), refusal);
    await assert.rejects(one.reserve('r', { node: 'n2' }), refusal);
  });

  test('a selector that cannot be read is no pool', () => {
    const parsed = poolSchema.safeParse({ cidr: v4, blockSize: 26, nodeSelector: 'rack =' });
    assert.match(
      parsed.error?.issues[0]?.message ?? '',
      /expected a selector; not understood from position 5/,
    );
  });
});

describe('tenants', () => {
  test('a pool kept for a tenant is not there for others, by any question', async () => {
    const [node] = (await cluster({ gold: { cidr: v4, blockSize: 26, tenants: ['rich'] } })) as [TestNode];
    const [address] = (await node.assign('a', { owner: owner('rich') })) as [Address];
    for (const request of [{}, { pools: ['gold'] }]) {
      await assert.rejects(node.assign('b', { owner: owner('poor'), ...request }), {
        code: 'POOL_NOT_FOUND',
        message: /there is no (enabled )?pool/,
      });
    }
    for (const wanted of [address, parseAddress('10.0.0.77')]) {
      await assert.rejects(node.assign('b', { owner: owner('poor'), addresses: [wanted] }), {
        code: 'OUT_OF_RANGE',
        message: /is in no pool/,
      });
    }
  });

  test('of a shared pool a tenant learns that an address is taken, not by whom; a free one and another’s look the same', async () => {
    const [node] = (await cluster({ p: { cidr: v4, blockSize: 26 } })) as [TestNode];
    const [address] = (await node.assign('a', { owner: owner('rich') })) as [Address];
    await assert.rejects(node.assign('b', { owner: owner('poor'), addresses: [address] }), (error: Error) => {
      assert.doesNotMatch(error.message, /rich/);
      return true;
    });
    const messages = new Set<string>();
    for (const wanted of [address, parseAddress('10.0.0.77')]) {
      await assert.rejects(
        node.ipam.release({ address: wanted, generation: 1, tenant: 'poor', force: true }),
        (error: Error & { code: string }) => {
          assert.equal(error.code, 'NOT_OWNER');
          messages.add(error.message.replace(wanted, 'X'));
          return true;
        },
      );
    }
    assert.equal(messages.size, 1);
  });

  test('a quota holds exactly, also when many nodes take the last addresses at once', async () => {
    const nodes = await cluster(
      { p: { cidr: v4, blockSize: 28 } },
      { names: ['n1', 'n2', 'n3', 'n4'], quotas: { t: 13 } },
    );
    const results = await Promise.allSettled(
      nodes.flatMap((node) => Array.from({ length: 8 }, (_, i) => node.assign(`${node.name}-${i}`))),
    );
    const codes = results.map((result) => (result.status === 'fulfilled' ? 'ok' : result.reason.code));
    assert.equal(codes.filter((code) => code === 'ok').length, 13);
    assert.equal(codes.filter((code) => code === 'QUOTA_EXCEEDED').length, 19);
    const [node] = nodes as [TestNode];
    await Promise.all(nodes.map((each) => each.settled()));
    await assert.rejects(node.assign('x'), {
      message: /tenant t has 13 of at most 13 addresses and asks for 1 more/,
    });
    const [holder, address] = [...nodes[0]!.book.addresses()].map(
      ([at, { value }]) => [value, at] as const,
    )[0]!;
    const its = nodes.find(({ name }) => name === holder.node)!;
    await its.release(holder.endpoint!, [address]);
    await Promise.all(nodes.map((each) => each.settled()));
    assert.equal((await node.assign('x')).length, 1);
    await assert.rejects(node.assign('y'), { code: 'QUOTA_EXCEEDED' });
  });
});

describe('limits of a node', () => {
  test('blocks: the message names the limit', async () => {
    const [node] = (await cluster({ p: { cidr: v4, blockSize: 30, maxBlocksPerNode: 2 } })) as [TestNode];
    const given = await Promise.all(Array.from({ length: 7 }, (_, i) => node.assign(`e${i}`)));
    assert.equal(new Set(given.flat()).size, 7);
    for (let i = 0; ; i++) {
      try {
        await node.assign(`f${i}`);
        assert.ok(i < 1, 'two blocks of four have at most eight addresses');
      } catch (error) {
        assert.match(
          (error as Error).message,
          /node n1 may have at most 2 blocks of pool p \(maxBlocksPerNode\)/,
        );
        assert.equal((error as { code: string }).code, 'NODE_LIMIT');
        break;
      }
    }
  });

  test('blocks that have nothing to give do not count', async () => {
    const halves = [0, 4, 8, 12, 16, 20].map((at) => parseCidr(`10.0.0.${at}/30`));
    const pool = { cidr: parseCidr('10.0.0.0/27'), blockSize: 29, maxBlocksPerNode: 1, excludes: halves };
    for (const name of ['n1', 'n2', 'n3', 'n4', 'n5', 'n6']) {
      const [node] = (await cluster({ p: pool }, [name])) as [TestNode];
      assert.match((await node.assign('a'))[0]!, /^10\.0\.0\.(2[4-9]|30)$/);
    }
  });

  test('addresses, those in flight and reserved counted', async () => {
    const [node] = (await cluster({ p: { cidr: v4, blockSize: 26, maxAddressesPerNode: 3 } })) as [TestNode];
    await node.reserve('r', { node: 'n1' });
    const results = await Promise.allSettled(['a', 'b', 'c', 'd'].map((id) => node.assign(id)));
    assert.equal(results.filter(({ status }) => status === 'fulfilled').length, 2);
    await assert.rejects(node.assign('e'), {
      code: 'NODE_LIMIT',
      message: /at most 3 addresses of pool p \(maxAddressesPerNode\)/,
    });
    await assert.rejects(node.assign('e', { addresses: [parseAddress('10.0.0.200')] }), {
      code: 'NODE_LIMIT',
    });
  });
});

describe('what a pool gives out', () => {
  test('only its ranges, without excludes and gateway; macvlan and routed alike', async () => {
    for (const kind of ['routed', 'macvlan'] as const) {
      const [node] = (await cluster({
        p: {
          cidr: v4,
          blockSize: 26,
          kind,
          ranges: [parseAddressRange('10.0.0.60-10.0.0.67'), parseAddressRange('10.0.0.254-10.0.0.255')],
          excludes: [parseCidr('10.0.0.62/31')],
          gateway: parseAddress('10.0.0.65'),
        },
      })) as [TestNode];
      const given: string[] = [];
      for (let i = 0; i < 6; i++) given.push(...(await node.assign(`e${i}`, { kind })));
      assert.deepEqual(given.sort(), [
        '10.0.0.254',
        '10.0.0.60',
        '10.0.0.61',
        '10.0.0.64',
        '10.0.0.66',
        '10.0.0.67',
      ]);
      await assert.rejects(node.assign('x', { kind }), { code: 'POOL_EXHAUSTED' });
      await assert.rejects(node.assign('x', { kind, addresses: [parseAddress('10.0.0.10')] }), {
        code: 'ADDRESS_EXCLUDED',
        message: /outside its ranges/,
      });
    }
  });

  test('a range outside of its pool is no pool', () => {
    const parsed = poolSchema.safeParse({ cidr: v4, blockSize: 26, ranges: ['10.0.0.9-10.0.1.1'] });
    assert.match(parsed.error?.issues[0]?.message ?? '', /inside the pool/);
  });

  test('property: intervals hold exactly the addresses that a plain reading of the record allows, and are walked each once', () => {
    const byte = fc.integer({ min: 0, max: 63 });
    const range = fc.tuple(byte, byte).map(([a, b]) => [Math.min(a, b), Math.max(a, b)] as const);
    const exclude = fc.tuple(byte, fc.integer({ min: 28, max: 32 })).map(([at, bits]) => {
      const size = 2 ** (32 - bits);
      return { first: at - (at % size), size, bits };
    });
    fc.assert(
      fc.property(
        fc.array(range, { maxLength: 3 }),
        fc.array(exclude, { maxLength: 3 }),
        fc.option(byte),
        fc.nat(200),
        (ranges, excludes, gateway, start) => {
          const pool = poolSchema.parse({
            cidr: '10.0.0.0/26',
            blockSize: 28,
            ranges: ranges.map(([a, b]) => `10.0.0.${a}-10.0.0.${b}`),
            excludes: excludes.map(({ first, bits }) => `10.0.0.${first}/${bits}`),
            gateway: gateway === null ? null : `10.0.0.${gateway}`,
          });
          const view = new PoolView('p', pool, 1);
          const expected: string[] = [];
          for (let i = 1; i < 63; i++) {
            const wanted = ranges.length === 0 || ranges.some(([a, b]) => a <= i && i <= b);
            const out = excludes.some(({ first, size }) => first <= i && i < first + size) || gateway === i;
            assert.equal(view.isAssignable(`10.0.0.${i}` as Address), wanted && !out, String(i));
            if (wanted && !out) expected.push(`10.0.0.${i}`);
          }
          assert.equal(Number(view.assignable), expected.length);
          const offset = expected.length === 0 ? 0n : BigInt(start % expected.length);
          const walked = [...addressesFrom(4, view.intervals, offset)];
          assert.equal(walked[0], expected[Number(offset)]);
          assert.deepEqual(walked.toSorted(), expected.toSorted());
          const blocks = [0, 16, 32, 48].map((at) => view.assignableIn(parseCidr(`10.0.0.${at}/28`)));
          assert.equal(
            blocks.reduce((a, b) => a + b),
            expected.length,
          );
        },
      ),
      { numRuns: 200 },
    );
  });

  test('a /8 and a /64 answer as fast as a /24, empty and with a full block', async () => {
    const [node] = (await cluster({
      big4: { cidr: parseCidr('10.0.0.0/8'), blockSize: 26 },
      big6: { cidr: parseCidr('fd00::/64'), blockSize: 122 },
      flat4: { cidr: parseCidr('11.0.0.0/8'), blockSize: 26, kind: 'macvlan' },
      flat6: { cidr: parseCidr('fd01::/64'), blockSize: 122, kind: 'macvlan' },
    })) as [TestNode];
    const before = performance.now();
    for (let i = 0; i < 100; i++) {
      assert.equal((await node.assign(`r${i}`)).length, 2);
      assert.equal((await node.assign(`m${i}`, { kind: 'macvlan' })).length, 2);
    }
    assert.ok(performance.now() - before < 3000, 'a pool was walked');
  });
});

describe('macvlan pools', () => {
  test('any node takes any address, without blocks, not the lowest first', async () => {
    const nodes = await cluster({ m: { cidr: v4, blockSize: 24, kind: 'macvlan' } }, ['n1', 'n2', 'n3']);
    const firsts = await Promise.all(nodes.map((node) => node.assign(`${node.name}-a`, { kind: 'macvlan' })));
    assert.equal(new Set(firsts.flat()).size, 3);
    assert.ok(firsts.flat().some((address) => Number(address.split('.')[3]) > 3));
    assert.deepEqual((await nodes[0]!.store.list('blocks/')).entries, []);
  });

  test('1,000 addresses, 1,000 requests from 10 nodes at once: all succeed, none twice', async () => {
    const names = Array.from({ length: 10 }, (_, i) => `n${i}`);
    const ranges = [parseAddressRange('10.0.0.1-10.0.3.232')];
    const nodes = await cluster(
      { m: { cidr: parseCidr('10.0.0.0/22'), blockSize: 22, kind: 'macvlan', ranges } },
      names,
    );
    assert.equal(Number(nodes[0]!.book.view('m')!.assignable), 1000);
    const given = await Promise.all(
      nodes.flatMap((node) =>
        Array.from({ length: 100 }, (_, i) => node.assign(`${node.name}-${i}`, { kind: 'macvlan' })),
      ),
    );
    assert.equal(new Set(given.flat()).size, 1000);
    assert.deepEqual(await nodes[0]!.check(), []);
  });
});

describe('borrowing', () => {
  test('1,000 addresses in shared blocks, 1,000 requests from 10 nodes at once: all succeed, none twice', async () => {
    const names = Array.from({ length: 10 }, (_, i) => `n${i}`);
    const ranges = [parseAddressRange('10.0.0.1-10.0.3.232')];
    const nodes = await cluster(
      { p: { cidr: parseCidr('10.0.0.0/22'), blockSize: 26, ranges } },
      { names, strictAffinity: false },
    );
    const given = await Promise.all(
      nodes.flatMap((node) => Array.from({ length: 100 }, (_, i) => node.assign(`${node.name}-${i}`))),
    );
    assert.equal(new Set(given.flat()).size, 1000);
    assert.deepEqual(await nodes[0]!.check(), []);
    await nodes[0]!.settled();
    const borrowed = [...nodes[0]!.book.addresses().values()].filter(({ value }) => value.borrowed);
    assert.ok(borrowed.length > 0, 'ten nodes of sixteen blocks for a hundred each cannot do without');
  });

  test('strict: a node without room is refused; borrowing: it takes a neighbour’s and the record says so', async () => {
    for (const strictAffinity of [true, false]) {
      const [one, two] = (await cluster(
        { p: { cidr: parseCidr('10.0.0.0/29'), blockSize: 29 } },
        { names: ['n1', 'n2'], strictAffinity },
      )) as [TestNode, TestNode];
      await one.assign('a');
      await two.settled();
      if (strictAffinity) {
        await assert.rejects(two.assign('b'), { code: 'POOL_EXHAUSTED' });
        continue;
      }
      const [address] = (await two.assign('b')) as [Address];
      assert.deepEqual([two.record(address)?.node, two.record(address)?.borrowed], ['n2', true]);
      assert.deepEqual(await two.check(), []);
    }
  });

  test('of a block that is closing nobody gets an address, nor by asking for it', async () => {
    const [one, two] = (await cluster(
      { p: { cidr: parseCidr('10.0.0.0/29'), blockSize: 29 } },
      { names: ['n1', 'n2'], strictAffinity: false },
    )) as [TestNode, TestNode];
    const block = await one.ipam.claim({ pool: 'p', node: 'n1', tenant: 't', shared: true });
    assert.equal(await one.ipam.giveBack({ block, node: 'n1' }), 'closing');
    await two.settled();
    for (const node of [one, two]) {
      await assert.rejects(node.assign('a'), { code: 'POOL_EXHAUSTED' });
      await assert.rejects(node.assign('a', { addresses: [parseAddress('10.0.0.3')] }), {
        message: /node n1 is giving back right now/,
      });
    }
    await one.settled();
    assert.equal(await one.ipam.giveBack({ block, node: 'n1' }), 'gone');
    await two.settled();
    assert.equal((await two.assign('a')).length, 1);
  });

  test('a shared block is closed before it goes: an address borrowed meanwhile keeps it', async () => {
    const [one, two] = (await cluster(
      { p: { cidr: parseCidr('10.0.0.0/29'), blockSize: 29, cooldownSeconds: 0 } },
      { names: ['n1', 'n2'], strictAffinity: false },
    )) as [TestNode, TestNode];
    const mine = await one.assign('a');
    await two.settled();
    await one.release('a', mine);
    const [borrowed] = await Promise.all([two.assign('b'), one.ipam.expire()]);
    for (let i = 0; i < 3; i++) {
      await one.settled();
      await one.ipam.expire();
    }
    await two.settled();
    assert.equal(two.record(borrowed[0]!)?.endpoint, 'b');
    const block = one.book.block(parseCidr('10.0.0.0/29'));
    // Either two was first and the block stayed, or the block was gone and two claimed it.
    assert.ok(block !== undefined && cidrContains(parseCidr('10.0.0.0/29'), borrowed[0]!));
    assert.deepEqual(await one.check(), []);
    await two.release('b', borrowed);
    for (let i = 0; i < 4; i++) {
      for (const node of [one, two]) {
        await node.settled();
        await node.ipam.expire();
      }
    }
    assert.deepEqual((await one.store.list('blocks/')).entries, []);
  });
});
