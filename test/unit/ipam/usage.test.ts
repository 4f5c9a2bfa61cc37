/** Numbers: what the counts say equals what a walk over the records says, whatever happened; a large cluster is asked quickly. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { AddressBook } from '../../../src/ipam/address-book.ts';
import { capacity, usageBy, usageByPool } from '../../../src/ipam/usage.ts';
import { type Address, type Cidr, parseAddress, parseCidr } from '../../../src/model/ip.ts';
import { type AddressRecord, addressSchema, poolSchema } from '../../../src/model/records.ts';
import { cluster, type TestNode } from './cluster.ts';

const record = (changes: Partial<AddressRecord>): AddressRecord =>
  addressSchema.parse({
    pool: 'p',
    state: 'active',
    owner: { tenant: 't', app: 'a', instance: '0' },
    node: 'n1',
    endpoint: null,
    mac: null,
    generation: 1,
    allocatedAt: '2026-01-01T00:00:00.000Z',
    ...changes,
  });

describe('usage', () => {
  test('property: counts equal a walk over the records, with pools that change meanwhile', () => {
    const state = fc.constantFrom('reserved', 'bound', 'active', 'retained', 'cooldown', 'quarantined');
    const step = fc.oneof(
      fc.record({
        at: fc.integer({ min: 0, max: 31 }),
        state: fc.option(state),
        node: fc.constantFrom('n1', 'n2', null),
        tenant: fc.constantFrom('t', 'u'),
      }),
      fc.record({ exclude: fc.constantFrom('10.0.0.8/30', '10.0.0.0/28', null) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
        const book = new AddressBook();
        const records = new Map<Address, AddressRecord>();
        let excludes: string[] = [];
        const setPool = (): void =>
          book.onPool('p', {
            value: poolSchema.parse({ cidr: '10.0.0.0/27', blockSize: 29, excludes }),
            modified: 1,
          });
        setPool();
        for (const [index, given] of steps.entries()) {
          if ('exclude' in given) {
            excludes = given.exclude === null ? [] : [given.exclude];
            setPool();
            continue;
          }
          const address = parseAddress(`10.0.0.${given.at}`);
          const { tenant, node } = given;
          const value =
            given.state === null
              ? null
              : record({
                  state: given.state as AddressRecord['state'],
                  node,
                  owner: { tenant, app: 'a', instance: '0' },
                });
          if (value === null) records.delete(address);
          else records.set(address, value);
          book.onAddress(address, value === null ? null : { value, modified: index + 1 });
        }
        const view = book.view('p')!;
        const count = (holds: (each: AddressRecord) => boolean): number =>
          [...records.values()].filter(holds).length;
        const [pool] = usageByPool(book, null);
        assert.equal(
          pool?.cooldown,
          count((each) => each.state === 'cooldown'),
        );
        assert.equal(
          pool?.inUse,
          count((each) => each.state !== 'cooldown'),
        );
        const free = Array.from({ length: 32 }, (_, i) => parseAddress(`10.0.0.${i}`)).filter(
          (address) => view.isAssignable(address) && !records.has(address),
        );
        assert.equal(pool?.available, free.length);
        assert.equal(pool!.capacity - pool!.excluded, Number(view.assignable));
        for (const node of ['n1', 'n2'])
          assert.equal(
            usageBy(book, 'node', null).find(({ key }) => key === node)?.active ?? 0,
            count((each) => each.node === node && each.state === 'active'),
          );
        assert.deepEqual(
          usageBy(book, 'tenant', 't').map(({ key, inUse, cooldown }) => [key, inUse + cooldown]),
          count((each) => each.owner.tenant === 't') === 0
            ? []
            : [['t', count((each) => each.owner.tenant === 't')]],
        );
      }),
      { numRuns: 200 },
    );
  });

  test('a tenant sees its own numbers and the pools that are open to it', async () => {
    const [node] = (await cluster({
      p: { cidr: parseCidr('10.0.0.0/24'), blockSize: 26 },
      gold: { cidr: parseCidr('10.0.1.0/24'), blockSize: 26, tenants: ['rich'] },
    })) as [TestNode];
    await node.assign('a', { owner: { tenant: 'rich', app: 'x', instance: '0' } });
    await node.assign('b');
    assert.deepEqual(
      usageByPool(node.book, 't').map(({ key }) => key),
      ['p'],
    );
    assert.deepEqual(
      usageBy(node.book, 'app', 't').map(({ key }) => key),
      ['t/a'],
    );
    assert.deepEqual(usageBy(node.book, 'node', 't'), []);
    assert.equal(usageBy(node.book, 'node', null)[0]?.inUse, 2);
  });
});

describe('capacity', () => {
  const ask = { tenant: 't', kind: 'routed' as const, pools: [], nodes: null };

  test('what a node is promised it gets, and no more; the reason names the limit', async () => {
    for (const [limits, expected, reason] of [
      [{}, 62, null],
      [{ maxBlocksPerNode: 2 }, 32, /maxBlocksPerNode of pool p/],
      [{ maxAddressesPerNode: 5 }, 5, /maxAddressesPerNode of pool p/],
      [{ nodeSelector: 'has(x)' }, 0, /pool p is for other nodes/],
    ] as const) {
      const [node] = (await cluster({
        p: { cidr: parseCidr('10.0.0.0/26'), blockSize: 28, ranges: [], ...limits },
      })) as [TestNode];
      const [answer] = capacity(node.book, ask).nodes;
      if (reason === null) assert.equal(answer?.limitReason, null);
      else assert.match(answer?.limitReason ?? '', reason);
      assert.equal(answer?.available4, expected);
      let got = 0;
      while ((await node.assign(`e${got}`).catch(() => null)) !== null) got++;
      // Two of the addresses in whole blocks are the pool's first and last.
      assert.ok(got <= expected && got >= expected - 2, `${got} of ${expected}`);
      assert.ok((capacity(node.book, ask).nodes[0]?.available4 ?? 0) <= 1);
    }
  });

  test('the quota of a tenant, and what others have taken', async () => {
    const [one, two] = (await cluster(
      { p: { cidr: parseCidr('10.0.0.0/26'), blockSize: 28 } },
      { names: ['n1', 'n2'], quotas: { t: 20 } },
    )) as [TestNode, TestNode];
    await one.assign('a', { owner: { tenant: 'u', app: 'a', instance: '0' } });
    await one.assign('b');
    await two.settled();
    const answer = capacity(two.book, ask);
    assert.equal(answer.quotaLeft, 19);
    assert.deepEqual(
      answer.nodes.map(({ node, available4, limitReason }) => [node, available4, limitReason]),
      [
        ['n1', 19, 'quota of the tenant'],
        ['n2', 19, 'quota of the tenant'],
      ],
    );
    const free = capacity(two.book, { ...ask, tenant: 'v' });
    assert.equal(
      free.nodes[1]!.available4,
      free.nodes[0]!.available4 - one.book.freeIn(one.book.view('p')!, [...one.book.blocksOf('n1', 'p')][0]!),
    );
  });

  test('10,000 nodes and 180,000 addresses in less than 50 ms', () => {
    const book = new AddressBook();
    const large = {
      cidr: '10.0.0.0/8',
      blockSize: 27,
      nodeSelector: 'rack != "r0"',
      excludes: ['10.255.0.0/16'],
    };
    book.onPool('p', { value: poolSchema.parse(large), modified: 1 });
    book.onPool('six', { value: poolSchema.parse({ cidr: 'fd00::/64', blockSize: 122 }), modified: 1 });
    for (let n = 0; n < 10_000; n++) {
      const node = `node-${n}`;
      book.onNode(node, { rack: `r${n % 100}` });
      const third = n >> 3;
      const base = (n & 7) * 32;
      const prefix = `10.${third >> 8}.${third & 255}`;
      book.onBlock(`${prefix}.${base}/27` as Cidr, {
        value: { pool: 'p', node, claimedAt: '', shared: false, closing: false },
        modified: 1,
      });
      for (let i = 1; i <= 18; i++)
        book.onAddress(`${prefix}.${base + i}` as Address, { value: record({ node }), modified: 1 });
    }
    assert.equal(book.addresses().size, 180_000);
    capacity(book, ask);
    const times = Array.from({ length: 5 }, () => {
      const before = performance.now();
      const { nodes } = capacity(book, ask);
      assert.equal(nodes.length, 10_000);
      assert.equal(nodes[0]?.limitReason, 'pool p is for other nodes');
      return performance.now() - before;
    }).sort((a, b) => a - b);
    assert.ok(times[0]! < 50, `${times.map((time) => time.toFixed(1)).join(', ')} ms`);
  });
});
