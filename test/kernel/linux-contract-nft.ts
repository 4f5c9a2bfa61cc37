/**
 * The part of the Linux contract that is about nftables: transactions, and what a table holds.
 *
 * In: an adapter, once it is there. Out: registered tests. Never: a table left for the next test.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { NftElement, NftRequest, NftSetSpec, NftVerdict } from '../../src/linux/nftables-port.ts';
import type { Linux } from '../../src/linux/ports.ts';
import type { Family } from '../../src/model/ip.ts';
import type { Mac } from '../../src/model/mac.ts';
import { refused } from './linux-contract-refusal.ts';

const table = 'ct-nft';
const addresses: NftSetSpec = { key: 'address', prefixes: false, data: null };
const accept = { kind: 'verdict', verdict: { kind: 'accept' } } as const;

export function nftContract(adapter: () => Linux, otherNetns: () => string): void {
  const transact = (...requests: object[]): void =>
    adapter().nftables.transact(requests.map((request) => ({ family: 4, table, ...request }) as NftRequest));
  const read = (family: Family = 4) => adapter().nftables.read(family, table);
  const reset = (): void => {
    for (const family of [4, 6]) transact({ family, kind: 'table-add' }, { family, kind: 'table-delete' });
  };

  test('nftables: chains with rules and hooks are read back', async () => {
    reset();
    assert.equal(await read(), null);
    const hook = { type: 'filter', hook: 'forward', priority: -5 } as const;
    const nat = { type: 'nat', hook: 'postrouting', priority: 100 } as const;
    transact(
      { kind: 'table-add' },
      { kind: 'chain-add', chain: 'a', hook: null },
      { kind: 'chain-add', chain: 'base', hook },
      { kind: 'chain-add', chain: 'leave', hook: nat },
      { kind: 'rule-add', chain: 'a', rule: { expressions: [{ kind: 'counter' }, accept], comment: 'one' } },
      { kind: 'rule-add', chain: 'a', rule: { expressions: [accept], comment: 'two words' } },
      { kind: 'rule-add', chain: 'leave', rule: { expressions: [{ kind: 'masquerade' }], comment: 'three' } },
      {
        kind: 'rule-add',
        chain: 'base',
        rule: { expressions: [{ kind: 'verdict', verdict: { kind: 'jump', chain: 'a' } }], comment: 'four' },
      },
    );
    assert.deepEqual(
      (await read())!.chains,
      new Map(
        Object.entries({
          a: { hook: null, comments: ['one', 'two words'] },
          base: { hook, comments: ['four'] },
          leave: { hook: nat, comments: ['three'] },
        }),
      ),
    );
    assert.equal(await read(6), null);
    refused('EBUSY', () =>
      transact({ kind: 'chain-flush', chain: 'a' }, { kind: 'chain-delete', chain: 'a' }),
    );
    transact({ kind: 'chain-flush', chain: 'a' });
    assert.deepEqual((await read())!.chains.get('a'), { hook: null, comments: [] });
    reset();
  });

  for (const [spec, ...elements] of [
    [addresses, ['10.0.0.1', null], ['10.0.0.2', null]],
    [
      { ...addresses, prefixes: true },
      ['10.0.0.0/8', null],
      ['11.0.0.0/8', null],
      ['255.255.255.255/32', null],
    ],
    [
      { key: 'pair', prefixes: false, data: null },
      ['10.0.0.1,eth0', null],
      ['10.0.0.1,a-name-as-long.', null],
    ],
    [{ key: 'pair', prefixes: false, data: 'id' }, ['10.0.0.1,eth0', 1], ['10.0.0.1,eth1', 0xfffffffe]],
    [{ key: 'pair', prefixes: true, data: 'id' }, ['10.0.0.0/24,eth0', 7], ['10.0.0.0/16,eth1', 8]],
    [
      { key: 'id', prefixes: false, data: 'verdict' },
      ['7', { kind: 'goto', chain: 'a' }],
      ['8', { kind: 'drop' }],
    ],
  ] as [NftSetSpec, ...NftElement[]][]) {
    test(`nftables: elements of ${JSON.stringify(spec)}, in both families`, async () => {
      reset();
      const six = ([key, data]: NftElement): NftElement => [
        spec.key === 'id'
          ? key
          : key
              .replace(/^([\d.]+)/, (v4) => `fd00::${v4.replaceAll('.', ':')}`)
              .replace(/\/(\d+)/, (_, bits) => `/${96 + Number(bits)}`),
        data,
      ];
      for (const [family, list] of [
        [4, elements],
        [6, spec.prefixes ? [] : elements.map(six)],
      ] as const) {
        const set = { family, set: 's', spec };
        transact(
          { family, kind: 'table-add' },
          { family, kind: 'chain-add', chain: 'a', hook: null },
          { ...set, kind: 'set-add' },
          { ...set, kind: 'elements-add', elements: list },
        );
        const found = (await read(family))!.sets.get('s')!;
        assert.deepEqual(found.spec, spec);
        assert.equal(found.elements.length, list.length);
        if (family === 4) assert.deepEqual([...found.elements].sort(), [...list].sort());
        transact({ ...set, kind: 'elements-delete', elements: list });
        assert.deepEqual((await read(family))!.sets.get('s')!.elements, []);
      }
      reset();
    });
  }

  test('nftables: all of a transaction or nothing, and which request it was', async () => {
    reset();
    transact({ kind: 'table-add' }, { kind: 'set-add', set: 's', spec: addresses });
    const add = (key: string) => ({
      kind: 'elements-add',
      set: 's',
      spec: addresses,
      elements: [[key, null]],
    });
    const error = refused('ENOENT', () =>
      transact(add('10.0.0.1'), { ...add('10.0.0.9'), kind: 'elements-delete' }, add('10.0.0.2')),
    );
    assert.equal(error.position, 1);
    assert.match(error.message, /delete elements \(s\) in nftables table ip ct-nft/);
    assert.deepEqual((await read())!.sets.get('s')!.elements, []);
    transact(add('10.0.0.1'), add('10.0.0.1'));
    assert.deepEqual((await read())!.sets.get('s')!.elements, [['10.0.0.1', null]]);
    reset();
  });

  test('nftables: a table that must be new', async () => {
    reset();
    transact({ kind: 'table-make' }, { kind: 'set-add', set: 's', spec: addresses });
    const error = refused('EEXIST', () => transact({ kind: 'set-delete', set: 's' }, { kind: 'table-make' }));
    assert.match(error.message, /make nftables table ip ct-nft/);
    assert.ok((await read())!.sets.has('s'));
    transact({ kind: 'table-delete' }, { kind: 'table-make' });
    assert.equal((await read())!.sets.size, 0);
    reset();
  });

  test('nftables: tables of the link layer, with devices and pairs of MAC and address', async () => {
    reset();
    const routing = adapter().openRouting();
    const mac = '02:42:0a:00:00:01' as Mac;
    const veth = (name: string, index: number) => ({ name, index, mac, mtuBytes: 1500 });
    const other = adapter().openNetns(otherNetns());
    const place = { table: 'ct-link', layer: 'link' } as const;
    const hook = { type: 'filter', hook: 'ingress', device: 'ct-wire', priority: 0 } as const;
    const egress = { ...hook, hook: 'egress', priority: -3 } as const;
    const base = { ...place, kind: 'chain-add', chain: 'in', hook };
    try {
      const peer = { ...veth('ct-peer', 7002), netnsFd: other.fd };
      routing.batch([{ kind: 'veth-add', host: veth('ct-wire', 7001), peer }]);
      const macs: NftSetSpec = { key: 'mac', prefixes: false, data: null };
      const pairs: NftSetSpec = { key: 'mac-pair', prefixes: false, data: null };
      const wide: NftSetSpec = { ...pairs, prefixes: true };
      const load = { kind: 'payload', base: 'link', offsetBytes: 6, lengthBytes: 6, to: 8 };
      const address = { kind: 'payload', base: 'network', offsetBytes: 12, lengthBytes: 4, to: 10 };
      const lookup = { kind: 'in-set', from: 8, negated: false, set: 'pairs' };
      const rule = { expressions: [load, address, lookup, accept], comment: 'a pair' };
      const sets = [
        ['macs', macs, mac],
        ['pairs', pairs, `10.0.0.1,${mac}`],
        ['wide', wide, `10.0.0.0/8,${mac}`],
      ] as const;
      transact(
        { ...place, kind: 'table-add' },
        ...sets.flatMap(([set, spec, key]) => [
          { ...place, kind: 'set-add', set, spec },
          { ...place, kind: 'elements-add', set, spec, elements: [[key, null]] },
        ]),
        base,
        { ...base, chain: 'out', hook: egress },
        { ...place, kind: 'rule-add', chain: 'in', rule },
      );
      const found = (await adapter().nftables.read(4, 'ct-link', 'link'))!;
      assert.deepEqual([...found.chains].sort(), [
        ['in', { hook, comments: ['a pair'] }],
        ['out', { hook: egress, comments: [] }],
      ]);
      for (const [set, spec, key] of sets)
        assert.deepEqual(found.sets.get(set), { spec, elements: [[key, null]] });
      assert.equal(await adapter().nftables.read(4, 'ct-link'), null);
    } finally {
      transact({ ...place, kind: 'table-add' }, { ...place, kind: 'table-delete' });
      if (routing.link({ name: 'ct-wire' })) await adapter().deleteLink(7001);
      routing.close();
      other.close();
    }
  });

  test('nftables: a namespace has tables of its own', async () => {
    reset();
    const netns = adapter().openNetns(otherNetns());
    const there = adapter().openNftables(netns);
    netns.close();
    there.transact([
      { family: 4, table, kind: 'table-add' },
      { family: 4, table, kind: 'set-add', set: 's', spec: addresses },
    ]);
    assert.deepEqual([...(await there.read(4, table))!.sets.keys()], ['s']);
    assert.equal(await read(), null);
    there.transact([{ family: 4, table, kind: 'table-delete' }]);
    assert.equal(await there.read(4, table), null);
    there.close();
  });

  test('nftables: what leads to nothing is refused', () => {
    reset();
    transact({ kind: 'table-add' }, { kind: 'chain-add', chain: 'a', hook: null });
    const rule = (expression: object) => ({
      kind: 'rule-add',
      chain: 'a',
      rule: { expressions: [expression], comment: '' },
    });
    refused('ENOENT', () => transact(rule({ kind: 'in-set', from: 1, negated: false, set: 'none' })));
    refused('ENOENT', () => transact(rule({ kind: 'verdict', verdict: { kind: 'goto', chain: 'none' } })));
    refused('ENOENT', () => transact({ kind: 'chain-flush', chain: 'none' }));
    refused('ENOENT', () => transact({ kind: 'set-delete', set: 'none' }));
    const ids: NftSetSpec = { key: 'pair', prefixes: false, data: 'id' };
    const element = (data: number | NftVerdict) => ({
      kind: 'elements-add',
      set: 'm',
      spec: ids,
      elements: [['10.0.0.1,eth0', data]],
    });
    transact({ kind: 'set-add', set: 'm', spec: ids }, element(1));
    refused('EEXIST', () => transact(element(2)));
    for (const bad of ['10.0.0.1', 'eth0', '10.0.0.1,a/b', 'fd00::1,eth0', '10.0.0.0/8,eth0'])
      assert.throws(
        () => transact({ kind: 'elements-add', set: 'm', spec: ids, elements: [[bad, 1]] }),
        { code: 'INVALID' },
        bad,
      );
    assert.throws(() => transact(element({ kind: 'drop' })), { code: 'INVALID' });
    reset();
  });
}
