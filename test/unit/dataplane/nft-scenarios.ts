/**
 * What PolicyDataplane owes with nftables, run on the fake (test/unit) and on the real Linux (test/kernel). Foreign hands act through
 * the port too: it is the kernel that they share.
 */
import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';
import { NftBackend } from '../../../src/dataplane/nft-backend.ts';
import { nftTable } from '../../../src/dataplane/nft-reconciler.ts';
import { NftTableOutput } from '../../../src/dataplane/nft-table-output.ts';
import { PolicyDataplane } from '../../../src/dataplane/policy-dataplane.ts';
import type { Logger } from '../../../src/lib/logger.ts';
import type { Nftables, NftRequest } from '../../../src/linux/nftables-port.ts';
import { KernelError } from '../../../src/linux/ports.ts';
import { type Address, type Cidr, families } from '../../../src/model/ip.ts';
import { newProfile } from '../../../src/model/profile.ts';
import { ruleFromJson } from '../../../src/model/rule.ts';
import { PolicyEngine } from '../../../src/policy/engine.ts';
import { endpointSet, listChains, listId, tagSet } from '../../../src/policy/names.ts';
import type { PolicyOutput } from '../../../src/policy/output.ts';
import { dispatchMap, indexSet, pairMap } from '../../../src/policy/render-nftables.ts';
import { twoOfOneIndex } from './same-index.ts';

interface Parts {
  readonly nftables: Nftables;
}

/** Counts what reaches the kernel; fails and waits on request. */
export class CountedNftables {
  readonly count = { reads: 0, transactions: 0 };
  failing: 'transact' | 'read' | null = null;
  readonly families = families;
  readonly nftables: Nftables;

  constructor({ nftables }: Parts) {
    this.nftables = {
      read: async (family, table) => {
        this.count.reads++;
        this.#maybeFail('read');
        return await nftables.read(family, table);
      },
      transact: (requests) => {
        this.count.transactions++;
        this.#maybeFail('transact');
        nftables.transact(requests);
      },
      watch: (table, onForeignChange) => nftables.watch(table, onForeignChange),
      dropsAtForward: () => nftables.dropsAtForward(),
      counts: (...question) => nftables.counts(...question),
    };
  }

  #maybeFail(operation: string): void {
    if (this.failing !== operation) return;
    this.failing = null;
    throw new KernelError(operation, 'EIO', 'ordered by a test');
  }
}

/** An agent's part of it. What was told is told to a second output too, for a table from nothing to compare with. */
export class NftAgent {
  readonly linux: CountedNftables;
  readonly warnings: string[] = [];
  readonly dataplane: PolicyDataplane;
  readonly engine: PolicyEngine;
  readonly told = new Map(families.map((family) => [family, new NftTableOutput(family)]));

  constructor(linux: Parts) {
    this.linux = new CountedNftables(linux);
    const logger: Logger = { debug() {}, info() {}, warn: (_, text) => this.warnings.push(text), error() {} };
    this.dataplane = new PolicyDataplane({ backend: new NftBackend(this.linux), other: null }, logger);
    const outputs: PolicyOutput[] = [this.dataplane, this.#recorder()];
    this.engine = new PolicyEngine(
      { endpointToHost: 'drop' },
      {
        set: (name, spec) => outputs.forEach((output) => void output.set(name, spec)),
        member: (set, member, present) =>
          outputs.forEach((output) => void output.member(set, member, present)),
        chain: (family, name, chain) => outputs.forEach((output) => void output.chain(family, name, chain)),
      },
    );
  }

  profile(name: string): void {
    this.engine.onProfile(name, newProfile(name));
  }

  endpoint(id: string, address: string, ...profiles: string[]): void {
    const addresses = [address as Address];
    this.engine.onEndpoint(id, { local: true, hostInterface: `nctl${id}`, addresses, profiles });
  }

  #recorder(): PolicyOutput {
    return {
      set: (name, spec) => {
        for (const [family, output] of this.told)
          if (spec === null || spec.family === family) output.set(name, spec);
      },
      member: (set, member, present) => {
        for (const output of this.told.values()) output.member(set, member, present);
      },
      chain: (family, name, chain) => this.told.get(family)!.chain(name, chain),
    };
  }
}

/** What is in the kernel is what the engine has told, no more and no less. */
export async function assertNftables(linux: Parts, agent: NftAgent): Promise<void> {
  for (const family of families) {
    const output = agent.told.get(family)!;
    output.settle();
    const found = await linux.nftables.read(family, nftTable);
    output.kernel.observe(found);
    assert.deepEqual(output.kernel.differences(), []);
    assert(output.kernel.isClean);
    assert(found !== null && found.chains.size >= 8 && found.sets.size >= 2, 'read next to nothing');
  }
}

/** @param open a kernel without anything of ours or of foreigners */
export function nftScenarios(open: () => Promise<Parts>): void {
  describe('policy dataplane with nftables', () => {
    let linux: Parts;
    let agent: NftAgent;

    const fill = (to: NftAgent): void => {
      for (const name of ['web', 'app']) to.profile(name);
      to.endpoint('a', '10.0.0.1', 'web');
      to.endpoint('b', 'fd00::2', 'web', 'app');
    };

    const foreign = (...requests: readonly object[]): void =>
      linux.nftables.transact(
        requests.map((request) => ({ family: 4, table: nftTable, ...request }) as NftRequest),
      );

    beforeEach(async () => {
      linux = await open();
      agent = new NftAgent(linux);
      fill(agent);
      await agent.dataplane.start();
    });

    test('the first start writes all in one transaction', async () => {
      await assertNftables(linux, agent);
      assert.equal(agent.linux.count.transactions, 1);
      assert.deepEqual(
        { ...agent.dataplane.status, writes: null },
        {
          backend: 'nftables',
          inSync: true,
          notices: [],
          lastRepair: null,
          lastError: null,
          retryInMs: null,
          writes: null,
        },
      );
    });

    test('writes nothing before the start', async () => {
      const early = new NftAgent(linux);
      await assert.rejects(early.dataplane.flush(), { code: 'BUG' });
      await assert.rejects(early.dataplane.resync(), { code: 'BUG' });
      assert.deepEqual(early.linux.count, { reads: 0, transactions: 0 });
    });

    test('a start on what is right writes nothing', async () => {
      const again = new NftAgent(linux);
      fill(again);
      await again.dataplane.start();
      assert.deepEqual(again.linux.count, { reads: 2, transactions: 0 });
      await assertNftables(linux, again);
    });

    test('a start removes what an earlier agent left, and no other table', async () => {
      foreign(
        { table: 'others', kind: 'table-add' },
        { table: 'others', kind: 'chain-add', chain: 'c', hook: null },
      );
      const next = new NftAgent(linux);
      next.profile('db');
      next.endpoint('c', '10.0.0.3', 'db');
      await next.dataplane.start();
      await assertNftables(linux, next);
      assert.equal((await linux.nftables.read(4, 'others'))?.chains.size, 1);
      foreign({ table: 'others', kind: 'table-delete' });
    });

    test('an endpoint with a known list is in the kernel when flush() resolves, in one transaction of elements', async () => {
      const before = { ...agent.linux.count };
      agent.endpoint('c', '10.0.0.3', 'web');
      await agent.dataplane.flush();
      assert(agent.dataplane.status.inSync);
      assert.deepEqual(agent.linux.count, { ...before, transactions: before.transactions + 1 });
      await assertNftables(linux, agent);
    });

    test('so is one with a new list, chains and all', async () => {
      const before = { ...agent.linux.count };
      agent.endpoint('c', '10.0.0.3', 'db', 'web');
      await agent.dataplane.flush();
      assert.deepEqual(agent.linux.count, { ...before, transactions: before.transactions + 1 });
      await assertNftables(linux, agent);
    });

    test('endpoints that come in one moment are written together, each before its own flush() resolves', async () => {
      const before = agent.linux.count.transactions;
      const flushed = ['10.0.0.5', '10.0.0.6', '10.0.0.7'].map(async (address, i) => {
        await Promise.resolve();
        agent.endpoint(`many${i}`, address, 'web');
        await agent.dataplane.flush();
        assert(agent.dataplane.status.inSync);
      });
      await Promise.all(flushed);
      assert.equal(agent.linux.count.transactions, before + 1);
    });

    test('a flush with nothing to do asks the kernel nothing', async () => {
      const before = { ...agent.linux.count };
      await agent.dataplane.flush();
      assert.deepEqual(agent.linux.count, before);
    });

    test('an endpoint that changes its list, its address, and comes back', async () => {
      for (const [address, ...profiles] of [
        ['10.0.0.1', 'app'],
        ['10.0.0.9', 'app'],
        ['10.0.0.1', 'web'],
      ] as [string, ...string[]][]) {
        agent.endpoint('a', address, ...profiles);
        await agent.dataplane.flush();
        await assertNftables(linux, agent);
      }
    });

    test('nobody is known by an index that belongs to two names of the host, in whichever family', async () => {
      const [one, two] = twoOfOneIndex().map((name) => name.slice('nctl'.length)) as [string, string];
      const known = async (): Promise<number> =>
        (await linux.nftables.read(4, nftTable))!.sets.get(indexSet)!.elements.length;
      agent.endpoint(one, '10.0.0.11', 'web');
      await agent.dataplane.flush();
      assert.equal(await known(), 2);
      agent.endpoint(two, 'fd00::12', 'web');
      await agent.dataplane.flush();
      assert.equal(await known(), 1);
      agent.engine.onEndpoint(two, null);
      await agent.dataplane.flush();
      assert.equal(await known(), 2);
      await assertNftables(linux, agent);
    });

    test('a new list, a changed profile and a retired list', async () => {
      agent.endpoint('d', '10.0.0.4', 'db');
      await agent.dataplane.flush();
      const inbound = [
        ruleFromJson({ src_tag: 'app', protocol: 'tcp', dst_ports: [3306, '4000:4100', 4050] }),
      ];
      agent.engine.onProfile('db', { ...newProfile('db'), inbound });
      await agent.dataplane.flush();
      await assertNftables(linux, agent);
      agent.engine.onEndpoint('d', null);
      for (let i = 0; i < 2; i++) agent.engine.retire();
      await agent.dataplane.flush();
      await assertNftables(linux, agent);
      assert(!(await linux.nftables.read(4, nftTable))!.chains.has(listChains.inbound(listId(['db']))));
    });

    test('only a list that logs has a chain of its own for what is sent to this host', async () => {
      const hasOwn = async (): Promise<boolean> => {
        await assertNftables(linux, agent);
        return (await linux.nftables.read(4, nftTable))!.chains.has(listChains.host(listId(['web'])));
      };
      assert(!(await hasOwn()));
      const profile = newProfile('web');
      const outbound = [ruleFromJson({ action: 'log' }), ...profile.outbound];
      for (const [now, expected] of [
        [{ ...profile, outbound }, true],
        [profile, false],
        [{ ...profile, outbound }, true],
        [null, false],
      ] as const) {
        agent.engine.onProfile('web', now);
        await agent.dataplane.flush();
        assert.equal(await hasOwn(), expected);
      }
    });

    test('prefixes: an address set with one inside another, extra sources, and back', async () => {
      const inbound = [ruleFromJson({ src_set: 'office' })];
      agent.engine.onProfile('web', { ...newProfile('web'), inbound });
      const nets = (...texts: string[]) => agent.engine.onAddressSet('office', texts as Cidr[]);
      for (const texts of [
        ['10.1.0.1/32', 'fd01::1/128'],
        ['10.1.0.0/16', '10.1.2.0/24', '10.2.0.0/16', '0.0.0.0/0', 'fd01::/16'],
        ['10.1.2.0/24', '10.1.2.3/32', '255.255.255.255/32', 'fd01::/16', 'fd02::1/128'],
        ['10.1.2.3/32'],
      ]) {
        nets(...texts);
        await agent.dataplane.flush();
        await assertNftables(linux, agent);
      }
      const endpoint = {
        local: true,
        hostInterface: 'nctla',
        addresses: ['10.0.0.1' as Address],
        profiles: ['web'],
      };
      for (const extraSources of [['192.0.2.0/24', '192.0.2.7/32'], ['192.0.2.7/32'], []]) {
        agent.engine.onEndpoint('a', { ...endpoint, extraSources: extraSources as Cidr[] });
        await agent.dataplane.flush();
        await assertNftables(linux, agent);
      }
    });

    test('flushes at the same time', async () => {
      const flushes = Array.from({ length: 20 }, (_, i) => {
        agent.endpoint(`e${i}`, `10.0.1.${i}`, `list${i}`);
        return agent.dataplane.flush();
      });
      await Promise.all(flushes);
      await assertNftables(linux, agent);
    });

    test('what others change is repaired and told', async () => {
      const chain = listChains.inbound(listId(['web']));
      const tag = tagSet(4, 'web');
      const tagSpec = { key: 'address', prefixes: false, data: null } as const;
      const pairSpec = { key: 'pair', prefixes: false, data: 'id' } as const;
      const verdicts = { key: 'id', prefixes: false, data: 'verdict' } as const;
      const accept = { expressions: [{ kind: 'verdict', verdict: { kind: 'accept' } }], comment: 'mine' };
      const map = dispatchMap('nctl-to');
      const [id] = [...(await linux.nftables.read(4, nftTable))!.sets.get(map)!.elements][0]!;
      const spoil: [what: RegExp, ...requests: object[]][] = [
        [/^table netctl \(IPv4\) missing$/, { kind: 'table-delete' }],
        [/^table netctl \(IPv6\) missing$/, { kind: 'table-delete', family: 6 }],
        [/^chain nctl-from \(IPv4\) missing or changed$/, { kind: 'chain-flush', chain: 'nctl-from' }],
        [new RegExp(`^chain ${chain} .* changed$`), { kind: 'rule-add', chain, rule: accept }],
        [
          /^chain forward \(IPv4\) missing or changed$/,
          { kind: 'chain-flush', chain: 'forward' },
          { kind: 'chain-delete', chain: 'forward' },
        ],
        [
          /^chain input \(IPv4\) missing or changed$/,
          { kind: 'chain-flush', chain: 'input' },
          { kind: 'chain-delete', chain: 'input' },
          { kind: 'chain-add', chain: 'input', hook: { type: 'filter', hook: 'input', priority: 7 } },
        ],
        [
          /^chain nctl-else \(IPv4\) left over$/,
          { kind: 'chain-add', chain: 'nctl-else', hook: null },
          { kind: 'rule-add', chain: 'nctl-else', rule: accept },
        ],
        [
          new RegExp(`^set ${tag} \\(IPv4\\): 1 members missing, 1 too many$`),
          { kind: 'elements-delete', set: tag, spec: tagSpec, elements: [['10.0.0.1', null]] },
          { kind: 'elements-add', set: tag, spec: tagSpec, elements: [['192.0.2.1', null]] },
        ],
        [
          new RegExp(`^set ${pairMap} \\(IPv4\\): 1 members missing, 0 too many$`),
          { kind: 'elements-delete', set: pairMap, spec: pairSpec, elements: [['10.0.0.1,nctla', null]] },
          { kind: 'elements-add', set: pairMap, spec: pairSpec, elements: [['10.0.0.1,nctla', 7]] },
        ],
        [
          new RegExp(`^set ${map} \\(IPv4\\): 1 members missing, 0 too many$`),
          { kind: 'elements-delete', set: map, spec: verdicts, elements: [[id, null]] },
          { kind: 'elements-add', set: map, spec: verdicts, elements: [[id, { kind: 'accept' }]] },
        ],
        [
          new RegExp(`^set ${endpointSet(4)} \\(IPv4\\) missing or of another type$`),
          ...['forward', 'input', 'nctl-FORWARD', 'nctl-INPUT'].map((chain) => ({
            kind: 'chain-flush',
            chain,
          })),
          { kind: 'set-delete', set: endpointSet(4) },
          { kind: 'set-add', set: endpointSet(4), spec: tagSpec },
        ],
        [/^set else \(IPv4\) left over$/, { kind: 'set-add', set: 'else', spec: tagSpec }],
      ];
      for (const [what, ...requests] of spoil) {
        foreign(...requests);
        const repaired = await agent.dataplane.resync();
        assert(
          repaired.some((text) => what.test(text)),
          `${what} in ${repaired.join('; ')}`,
        );
        await assertNftables(linux, agent);
        assert.deepEqual(await agent.dataplane.resync(), []);
      }
    });

    for (const operation of ['transact', 'read'] as const) {
      test(`a failing ${operation}: who waits is told, the next attempt reads and completes`, async () => {
        agent.linux.failing = operation;
        agent.endpoint('c', '10.0.0.3', 'new');
        if (operation === 'read') await assert.rejects(agent.dataplane.resync(), KernelError);
        else await assert.rejects(agent.dataplane.flush(), KernelError);
        assert.equal(agent.dataplane.status.writes['failures'], 1);
        assert.deepEqual([agent.dataplane.status.inSync, agent.dataplane.status.retryInMs], [false, 1000]);
        assert.deepEqual(await agent.dataplane.resync(), []);
        assert(agent.dataplane.status.inSync);
        await assertNftables(linux, agent);
      });
    }

    test('elements that cannot be written, because the table is gone, come with the repair', async () => {
      foreign({ kind: 'table-delete' });
      agent.endpoint('c', '10.0.0.3', 'web');
      await agent.dataplane.flush();
      await assertNftables(linux, agent);
    });

    test('an endpoint that comes while a resync reads does not wait for it, and is not undone by it', async () => {
      const resync = agent.dataplane.resync();
      agent.endpoint('c', '10.0.0.3', 'web');
      agent.engine.onEndpoint('a', null);
      const flushed = agent.dataplane.flush().then(() => ({
        inSync: agent.dataplane.status.inSync,
        transactions: agent.linux.count.transactions,
      }));
      const first = await Promise.race([flushed, resync.then(() => null)]);
      assert.equal(first?.inSync, true);
      assert.deepEqual(await resync, []);
      assert.equal(agent.linux.count.transactions, first?.transactions);
      await assertNftables(linux, agent);
    });
  });
}
