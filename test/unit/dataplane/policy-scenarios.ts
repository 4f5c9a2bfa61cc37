/**
 * What PolicyDataplane owes, run on the fake (test/unit) and on the real Linux (test/kernel). Foreign hands act through the port
 * too: it is the kernel that they share.
 */
import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { eventually } from '../../../lab/run.ts';
import { IptablesBackend } from '../../../src/dataplane/iptables-backend.ts';
import { parseSave } from '../../../src/dataplane/iptables-save.ts';
import { PolicyDataplane } from '../../../src/dataplane/policy-dataplane.ts';
import type { Logger } from '../../../src/lib/logger.ts';
import { type IpSetRequest, KernelError, type Linux } from '../../../src/linux/ports.ts';
import { type Address, type Cidr, type Family, families } from '../../../src/model/ip.ts';
import { newProfile } from '../../../src/model/profile.ts';
import { ruleFromJson } from '../../../src/model/rule.ts';
import type { Chain } from '../../../src/policy/chain.ts';
import { jumps } from '../../../src/policy/compile.ts';
import { PolicyEngine } from '../../../src/policy/engine.ts';
import { listChains, listId, setPrefixes, tagSet } from '../../../src/policy/names.ts';
import type { PolicyOutput, SetSpec } from '../../../src/policy/output.ts';
import { renderChain } from '../../../src/policy/render-iptables.ts';
import { Recorder } from '../policy/recorder.ts';
import { withTree } from '../policy/scripts.ts';

type Parts = Pick<Linux, 'ipsets' | 'iptables'>;

/** Counts what reaches the kernel; fails and waits on request. */
export class CountedLinux {
  readonly count = { lists: 0, batches: 0, saves: 0, restores: 0 };
  failing: 'batch' | 'restore' | 'save' | null = null;
  /** A restore has begun and waits. */
  isHolding = false;
  #held: Promise<void> | null = null;
  readonly families = families;
  readonly ipsets: Linux['ipsets'];
  readonly iptables: Linux['iptables'];

  constructor(linux: Parts) {
    this.ipsets = {
      list: (prefix) => {
        this.count.lists++;
        return linux.ipsets.list(prefix);
      },
      batch: (requests) => {
        this.count.batches++;
        this.#maybeFail('batch');
        linux.ipsets.batch(requests);
      },
    };
    this.iptables = {
      backend: linux.iptables.backend,
      hasLegacyRules: () => linux.iptables.hasLegacyRules(),
      save: async (family, table, withCounters) => {
        this.count.saves++;
        this.#maybeFail('save');
        return await linux.iptables.save(family, table, withCounters);
      },
      restore: async (family, text) => {
        this.count.restores++;
        this.#maybeFail('restore');
        this.isHolding = this.#held !== null;
        await this.#held;
        this.isHolding = false;
        await linux.iptables.restore(family, text);
      },
    };
  }

  /** From now on iptables-restore waits. Returns what lets it go on. */
  holdRestore(): () => void {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#held = promise;
    return () => {
      this.#held = null;
      resolve();
    };
  }

  #maybeFail(operation: string): void {
    if (this.failing !== operation) return;
    this.failing = null;
    throw new KernelError(operation, 'EIO', 'ordered by a test');
  }
}

/** An agent's part of it: an engine that tells a dataplane, and a record of what was told. */
export class Agent {
  readonly linux: CountedLinux;
  readonly told = new Recorder();
  readonly warnings: string[] = [];
  readonly dataplane: PolicyDataplane;
  readonly engine: PolicyEngine;

  constructor(linux: Parts, options = { keepFirst: true }) {
    this.linux = new CountedLinux(linux);
    const logger: Logger = { debug() {}, info() {}, warn: (_, text) => this.warnings.push(text), error() {} };
    const backend = new IptablesBackend(this.linux, logger, options);
    this.dataplane = new PolicyDataplane({ backend, other: null }, logger);
    this.engine = new PolicyEngine({ endpointToHost: 'drop' }, both(this.told, this.dataplane));
  }

  profile(name: string): void {
    this.engine.onProfile(name, newProfile(name));
  }

  endpoint(id: string, address: string | readonly string[], ...profiles: string[]): void {
    const addresses = [address].flat() as Address[];
    this.engine.onEndpoint(id, { local: true, hostInterface: `nctl${id}`, addresses, profiles });
  }
}

function both(a: PolicyOutput, b: PolicyOutput): PolicyOutput {
  return {
    set(name: string, spec: SetSpec | null) {
      a.set(name, spec);
      b.set(name, spec);
    },
    member(set: string, member: string, present: boolean) {
      a.member(set, member, present);
      b.member(set, member, present);
    },
    chain(family: Family, name: string, chain: Chain | null) {
      a.chain(family, name, chain);
      b.chain(family, name, chain);
    },
  };
}

/** What is in the kernel is what the engine has told, no more and no less. */
export async function assertKernel(linux: Parts, recorder: Recorder): Promise<void> {
  const told = withTree(recorder);
  const lists = await Promise.all(setPrefixes.map((prefix) => linux.ipsets.list(prefix)));
  const sets = lists
    .flat()
    .map(({ name, type, family, members }) => [name, type, family, [...members].sort()]);
  assert.deepEqual(
    sets.sort(),
    [...told.sets].map(([name, set]) => [name, set.type, set.family, [...set.members].sort()]).sort(),
  );
  for (const family of families) {
    for (const table of ['filter', 'nat'] as const) {
      const saved = parseSave(await linux.iptables.save(family, table));
      const wanted = [...told.chains]
        .filter(([key, chain]) => key.startsWith(`${family} `) && (chain.table ?? 'filter') === table)
        .map(([, chain]) => renderChain(chain));
      assert.deepEqual(
        new Map([...saved.chains].map(([name, { hashes }]) => [name, hashes])),
        new Map(wanted.map(({ name, hashes }) => [name, hashes])),
      );
      const expected = jumps.filter((jump) => jump.table === table && saved.chains.has(jump.chain));
      for (const builtin of new Set(jumps.map((jump) => jump.builtin))) {
        const count = expected.filter((jump) => jump.builtin === builtin).length;
        const positions = saved.jumps.get(builtin)?.map((jump) => jump.position) ?? [];
        assert.deepEqual(positions, [1, 2].slice(0, count), `${table} ${builtin}`);
      }
    }
  }
}

/** @param open a kernel without anything of ours or of foreigners */
export function policyScenarios(open: () => Promise<Parts>): void {
  describe('policy dataplane', () => {
    let linux: Parts;
    let agent: Agent;

    beforeEach(async () => {
      linux = await open();
      agent = new Agent(linux);
      for (const name of ['web', 'app']) agent.profile(name);
      agent.endpoint('a', '10.0.0.1', 'web');
      agent.endpoint('b', 'fd00::2', 'web', 'app');
      await agent.dataplane.start();
    });

    const foreign = async (...lines: string[]): Promise<void> => {
      for (const family of families)
        await linux.iptables.restore(family, ['*filter', ...lines, 'COMMIT', ''].join('\n'));
    };

    test('the first start writes all, each table once', async () => {
      await assertKernel(linux, agent.told);
      assert.equal(agent.linux.count.restores, 2);
      assert.deepEqual(
        { ...agent.dataplane.status, backend: null, writes: null },
        {
          backend: null,
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
      const early = new Agent(linux);
      await assert.rejects(early.dataplane.flush(), { code: 'BUG' });
      await assert.rejects(early.dataplane.resync(), { code: 'BUG' });
      assert.deepEqual(early.linux.count, { lists: 0, batches: 0, saves: 0, restores: 0 });
    });

    test('a start on what is right writes nothing', async () => {
      const again = new Agent(linux);
      for (const name of ['web', 'app']) again.profile(name);
      again.endpoint('a', '10.0.0.1', 'web');
      again.endpoint('b', 'fd00::2', 'web', 'app');
      await again.dataplane.start();
      assert.deepEqual(again.linux.count, { lists: 2, batches: 0, saves: 4, restores: 0 });
      await assertKernel(linux, again.told);
    });

    test('a start removes what an earlier agent left, and nothing foreign', async () => {
      linux.ipsets.batch([{ kind: 'create', name: 'foreign', type: 'net', family: 4 }]);
      await foreign(':others - [0:0]', '-A others -j DROP', '-A FORWARD -j others');
      const next = new Agent(linux);
      next.profile('db');
      next.endpoint('c', '10.0.0.3', 'db');
      await next.dataplane.start();
      await assertKernel(linux, next.told);
      assert.equal((await linux.ipsets.list('foreign')).length, 1);
      assert.match(await linux.iptables.save(4), /^-A others -j DROP$/m);
      assert.match(await linux.iptables.save(4), /^-A FORWARD -j others$/m);
    });

    test('table nat: ours while a pool asks for it, next to what is foreign', async () => {
      await linux.iptables.restore(4, '*nat\n-A POSTROUTING -j RETURN\nCOMMIT\n');
      agent.engine.onPool('default', { cidr: '10.0.0.0/16' as Cidr, natOutgoing: true });
      await agent.dataplane.flush();
      await assertKernel(linux, agent.told);
      assert.match(await linux.iptables.save(4, 'nat'), /-A nctl-nat .*-j MASQUERADE/);
      await linux.iptables.restore(4, '*nat\n-F POSTROUTING\n-A POSTROUTING -j RETURN\nCOMMIT\n');
      assert.deepEqual(await agent.dataplane.resync(), ['jump from POSTROUTING (IPv4) missing or not first']);
      await assertKernel(linux, agent.told);

      // An agent that finds what an earlier one left.
      const next = new Agent(linux);
      await next.dataplane.start();
      await assertKernel(linux, next.told);
      const left = await linux.iptables.save(4, 'nat');
      assert.doesNotMatch(left, /nctl/);
      assert.match(left, /^-A POSTROUTING -j RETURN$/m);
      await linux.iptables.restore(4, '*nat\n-F POSTROUTING\nCOMMIT\n');
    });

    test('an endpoint with a known list is in the kernel when flush() resolves, by netlink alone', async () => {
      const before = { ...agent.linux.count };
      agent.endpoint('c', '10.0.0.3', 'web');
      await agent.dataplane.flush();
      assert(agent.dataplane.status.inSync);
      assert.deepEqual(agent.linux.count, { ...before, batches: before.batches + 1 });
      await assertKernel(linux, agent.told);
    });

    test('endpoints that come in one moment are written together, each before its own flush() resolves', async () => {
      const before = agent.linux.count.batches;
      const flushed = ['10.0.0.5', '10.0.0.6', '10.0.0.7'].map(async (address, i) => {
        await Promise.resolve();
        agent.endpoint(`many${i}`, address, 'web');
        await agent.dataplane.flush();
        assert(agent.dataplane.status.inSync);
      });
      await Promise.all(flushed);
      assert.equal(agent.linux.count.batches, before + 1);
    });

    test('a flush with nothing to do asks the kernel nothing', async () => {
      const before = { ...agent.linux.count };
      await agent.dataplane.flush();
      assert.deepEqual(agent.linux.count, before);
    });

    test('a new list, a changed profile and a retired list', async () => {
      agent.endpoint('d', '10.0.0.4', 'db');
      await agent.dataplane.flush();
      await assertKernel(linux, agent.told);
      const inbound = [ruleFromJson({ src_tag: 'app', protocol: 'tcp', dst_ports: [3306] })];
      agent.engine.onProfile('db', { ...newProfile('db'), inbound });
      await agent.dataplane.flush();
      await assertKernel(linux, agent.told);
      agent.engine.onEndpoint('d', null);
      for (let i = 0; i < 2; i++) agent.engine.retire();
      await agent.dataplane.flush();
      await assertKernel(linux, agent.told);
      assert(!agent.told.sets.has(tagSet(4, 'db')));
    });

    test('flushes at the same time share their passes', async () => {
      const { restores } = agent.linux.count;
      const flushes = Array.from({ length: 20 }, (_, i) => {
        agent.endpoint(`e${i}`, `10.0.1.${i}`, `list${i}`);
        return agent.dataplane.flush();
      });
      await Promise.all(flushes);
      assert(agent.linux.count.restores - restores <= 4);
      await assertKernel(linux, agent.told);
    });

    test('a set that goes while a chain that names it is written goes one pass later', async () => {
      agent.engine.onProfile('web', { ...newProfile('web'), inbound: [ruleFromJson({ src_tag: 'other' })] });
      const release = agent.linux.holdRestore();
      const first = agent.dataplane.flush();
      await nextTurn();
      agent.profile('web');
      release();
      await first;
      assert.equal((await linux.ipsets.list(tagSet(4, 'other'))).length, 1);
      await agent.dataplane.flush();
      await assertKernel(linux, agent.told);
      assert.deepEqual(agent.warnings, []);
    });

    test('a flush that fails for one family ends when the other has ended', async () => {
      agent.endpoint('c', ['10.0.0.3', 'fd00::3'], 'new');
      const release = agent.linux.holdRestore();
      agent.linux.failing = 'restore';
      let isOver = false;
      const flush = agent.dataplane.flush().finally(() => {
        isOver = true;
      });
      await new Promise((resolve) => setTimeout(resolve, 20));
      assert(!isOver);
      release();
      await assert.rejects(flush, KernelError);
    });

    test('what others change is repaired and told', async () => {
      agent.endpoint('a', ['10.0.0.1', 'fd00::1'], 'web');
      await agent.dataplane.flush();
      const chain = listChains.inbound(listId(['web']));
      const tag = tagSet(4, 'web');
      const spoil: [what: RegExp, act: () => Promise<void> | void][] = [
        [/^chain nctl-from \(IPv4\) missing or changed$/, () => foreign('-F nctl-from')],
        [new RegExp(`^chain ${chain} .* changed$`), () => foreign(`-I ${chain} 1 -j ACCEPT`)],
        [/^jump from FORWARD \(IPv6\) missing or not first$/, () => foreign('-D FORWARD 1')],
        [
          /^jump from INPUT \(IPv4\) missing or not first: behind -A INPUT -j ACCEPT$/,
          () => foreign('-I INPUT 1 -j ACCEPT'),
        ],
        [/^chain nctl-else \(IPv4\) left over$/, () => foreign(':nctl-else - [0:0]')],
        [
          new RegExp(`^set ${tag}: 1 members missing, 1 too many$`),
          () =>
            linux.ipsets.batch([
              { kind: 'delete', name: tag, members: ['10.0.0.1/32'] },
              { kind: 'add', name: tag, members: ['192.0.2.0/24'] },
            ]),
        ],
        [
          /^set nctl4-else left over$/,
          () =>
            linux.ipsets.batch([
              { kind: 'create', name: 'nctl4-else', type: 'net', family: 4 } satisfies IpSetRequest,
            ]),
        ],
      ];
      for (const [what, act] of spoil) {
        await act();
        const repaired = await agent.dataplane.resync();
        assert(
          repaired.some((text) => what.test(text)),
          `${what} in ${repaired.join('; ')}`,
        );
        await assertKernel(linux, agent.told);
        assert.deepEqual(agent.dataplane.status.lastRepair?.what, repaired);
        assert.deepEqual(await agent.dataplane.resync(), []);
        assert.deepEqual(agent.dataplane.status.notices, []);
      }
      assert.match(await linux.iptables.save(4), /^-A INPUT -j ACCEPT$/m);
    });

    test('a rule that others insert between our read and our write is not taken for ours', async () => {
      await foreign('-I FORWARD 1 -i eth7 -j ACCEPT');
      const release = agent.linux.holdRestore();
      const repaired = agent.dataplane.resync();
      await eventually('the write has begun', 5000, async () => agent.linux.isHolding);
      await foreign('-I FORWARD 1 -i eth8 -j ACCEPT');
      release();
      assert.equal((await repaired).length, 2);
      await agent.dataplane.resync();
      await assertKernel(linux, agent.told);
      const saved = await linux.iptables.save(4);
      for (const rule of [/^-A FORWARD -i eth7 -j ACCEPT$/m, /^-A FORWARD -i eth8 -j ACCEPT$/m])
        assert.match(saved, rule);
    });

    test('rules of others may stand before our jumps where that is configured, and are told', async () => {
      const other = new Agent(linux, { keepFirst: false });
      other.profile('web');
      other.endpoint('a', '10.0.0.1', 'web');
      await other.dataplane.start();
      await foreign('-I FORWARD 1 -i eth7 -j DROP', '-A FORWARD -j ACCEPT');
      assert.deepEqual(await other.dataplane.resync(), []);
      assert.deepEqual(
        other.dataplane.status.notices,
        [4, 6].map(
          (family) =>
            `stands before the rules of netctl in FORWARD (IPv${family}): -A FORWARD -i eth7 -j DROP`,
        ),
      );
      assert(other.dataplane.status.inSync);
      // A jump that is lost comes back, first again.
      await foreign('-D FORWARD 2');
      assert.equal((await other.dataplane.resync()).length, 2);
      assert.deepEqual(other.dataplane.status.notices, []);
      assert.match(await linux.iptables.save(4), /^-A FORWARD -i eth7 -j DROP$/m);
    });

    test('a set of another type that our rules still name is replaced, with its members', async () => {
      const tag = tagSet(4, 'web');
      const rules = (await linux.iptables.save(4))
        .split('\n')
        .filter((line) => line.startsWith('-A nctl-in-web') && !line.includes('nctl4-ep'));
      const [chain] = rules[0]!.slice('-A '.length).split(' ');
      const there = (...lines: string[]): Promise<void> =>
        linux.iptables.restore(4, ['*filter', ...lines, 'COMMIT', ''].join('\n'));
      await there(`-F ${chain}`);
      linux.ipsets.batch([
        { kind: 'destroy', name: tag },
        { kind: 'create', name: tag, type: 'net,iface', family: 4 },
      ]);
      await there(...rules.map((rule) => rule.replace(`${tag} src`, `${tag} src,src`)));
      const repaired = await agent.dataplane.resync();
      assert(repaired.includes(`set ${tag} missing or of another type`), repaired.join('; '));
      await assertKernel(linux, agent.told);
      assert(agent.dataplane.status.inSync);
    });

    test('a chain that a foreign rule leads to is left when it is not needed any more', async () => {
      await foreign(':nctl-else - [0:0]', '-A OUTPUT -g nctl-else');
      await agent.dataplane.resync();
      assert.match(await linux.iptables.save(4), /^:nctl-else /m);
      assert(agent.dataplane.status.inSync);
    });

    for (const operation of ['restore', 'save', 'batch'] as const) {
      test(`a failing ${operation}: who waits is told, the next attempt reads and completes`, async () => {
        agent.linux.failing = operation;
        agent.endpoint('c', '10.0.0.3', 'new');
        if (operation === 'save') await assert.rejects(agent.dataplane.resync(), KernelError);
        else if (operation === 'restore') await assert.rejects(agent.dataplane.flush(), KernelError);
        else await agent.dataplane.flush();
        assert.equal(agent.dataplane.status.writes.failures, 1);
        assert.deepEqual(
          [agent.dataplane.status.inSync, agent.dataplane.status.retryInMs],
          operation === 'batch' ? [true, null] : [false, 1000],
        );
        assert.deepEqual(await agent.dataplane.resync(), []);
        assert(agent.dataplane.status.inSync);
        assert.equal(agent.dataplane.status.lastError, null);
        await assertKernel(linux, agent.told);
      });
    }

    test('an endpoint that comes while a resync reads does not wait for it, and is not undone by it', async () => {
      const resync = agent.dataplane.resync();
      agent.endpoint('c', '10.0.0.3', 'web');
      agent.engine.onEndpoint('a', null);
      const { restores } = agent.linux.count;
      const inSync = agent.dataplane.flush().then(() => agent.dataplane.status.inSync);
      assert.equal(await Promise.race([inSync, resync.then(() => 'too late')]), true);
      assert.deepEqual(await resync, []);
      assert.equal(agent.linux.count.restores, restores);
      await assertKernel(linux, agent.told);
    });
  });
}
