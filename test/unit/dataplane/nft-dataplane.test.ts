/** PolicyDataplane with nftables on the fake Linux: the scenarios, random sequences with failures, and the choice of a back end. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { Backends } from '../../../src/dataplane/choose-backend.ts';
import { nftTable } from '../../../src/dataplane/nft-reconciler.ts';
import { PolicyDataplane } from '../../../src/dataplane/policy-dataplane.ts';
import type { Logger } from '../../../src/lib/logger.ts';
import { FakeLinux } from '../../../src/linux/fake/linux.ts';
import { KernelError } from '../../../src/linux/ports.ts';
import type { Address } from '../../../src/model/ip.ts';
import { newProfile } from '../../../src/model/profile.ts';
import { PolicyEngine } from '../../../src/policy/engine.ts';
import { profileArbitrary } from '../policy/arbitrary.ts';
import { assertNftables, NftAgent, nftScenarios } from './nft-scenarios.ts';

nftScenarios(async () => new FakeLinux());

const name = fc.constantFrom('web', 'app', 'db');
const step = fc.oneof(
  fc.record({
    kind: fc.constant('profile' as const),
    name,
    profile: fc.option(profileArbitrary, { freq: 4 }),
  }),
  fc.record({
    kind: fc.constant('endpoint' as const),
    id: fc.constantFrom('a', 'b', 'c'),
    address: fc.constantFrom('10.0.0.1', '10.0.0.2', 'fd00::1'),
    profiles: fc.array(name, { maxLength: 2 }),
  }),
  fc.record({ kind: fc.constant('gone' as const), id: fc.constantFrom('a', 'b', 'c') }),
  fc.record({
    kind: fc.constant('fail' as const),
    operation: fc.constantFrom('transact' as const, 'read' as const),
  }),
  fc.record({
    kind: fc.constantFrom('retire' as const, 'flush' as const, 'resync' as const, 'wait' as const),
  }),
);

test('whatever happens, a last flush leaves the kernel as the engine says', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
      const linux = new FakeLinux();
      const agent = new NftAgent(linux);
      await agent.dataplane.start();
      const tolerant = (work: Promise<unknown>): Promise<unknown> =>
        work.catch((error) => {
          if (!(error instanceof KernelError)) throw error;
        });
      const under: Promise<unknown>[] = [];
      for (const each of steps) {
        if (each.kind === 'profile') agent.engine.onProfile(each.name, each.profile);
        else if (each.kind === 'endpoint') agent.endpoint(each.id, each.address, ...each.profiles);
        else if (each.kind === 'gone') agent.engine.onEndpoint(each.id, null);
        else if (each.kind === 'fail') agent.linux.failing = each.operation;
        else if (each.kind === 'retire') agent.engine.retire();
        else if (each.kind === 'flush') under.push(tolerant(agent.dataplane.flush()));
        else if (each.kind === 'resync') under.push(tolerant(agent.dataplane.resync()));
        else await Promise.all(under);
      }
      await Promise.all(under);
      agent.linux.failing = null;
      await agent.dataplane.flush();
      await assertNftables(linux, agent);
    }),
    { numRuns: 150 },
  );
});

describe('the choice of a back end', () => {
  const logged: string[] = [];
  const log = (_: unknown, text: string): void => void logged.push(text);
  const logger: Logger = { debug() {}, info: log, warn: log, error: log };

  function engineFor(dataplane: PolicyDataplane): PolicyEngine {
    const engine = new PolicyEngine({ endpointToHost: 'drop' }, dataplane);
    engine.onProfile('web', newProfile('web'));
    engine.onEndpoint('a', {
      local: true,
      hostInterface: 'nctla',
      addresses: ['10.0.0.1' as Address],
      profiles: ['web'],
    });
    return engine;
  }

  async function start(linux: FakeLinux, choice: 'auto' | 'nftables' | 'iptables'): Promise<PolicyDataplane> {
    logged.length = 0;
    const backends = new Backends(linux, { policy: choice, foreignFirst: false }, logger);
    const { wanted } = await backends.look();
    const dataplane = new PolicyDataplane(backends.make(wanted), logger);
    engineFor(dataplane);
    await dataplane.start();
    return dataplane;
  }

  const hasIptables = (linux: FakeLinux): boolean =>
    linux.ipsets.sets.size > 0 || linux.toString().includes('nctl-FORWARD -');

  test('auto is nftables while nobody else uses FORWARD of iptables', async () => {
    const linux = new FakeLinux();
    assert.equal((await start(linux, 'auto')).status.backend, 'nftables');
    // Our own jumps are nobody else's.
    await start(linux, 'iptables');
    assert.equal((await start(linux, 'auto')).status.backend, 'nftables');
    for (const line of ['-P FORWARD DROP', '-A FORWARD -i docker0 -j ACCEPT']) {
      const shared = new FakeLinux();
      await shared.iptables.restore(6, `*filter\n${line}\nCOMMIT\n`);
      assert.equal((await start(shared, 'auto')).status.backend, 'iptables-nft');
      assert.equal(await shared.nftables.read(4, nftTable), null);
    }
    const without = new FakeLinux();
    without.failNext('nftables', 'EOPNOTSUPP');
    assert.equal((await start(without, 'auto')).status.backend, 'iptables-nft');
  });

  test('nftables is what was asked for, or an error', async () => {
    const linux = new FakeLinux();
    await linux.iptables.restore(4, '*filter\n-P FORWARD DROP\nCOMMIT\n');
    assert.equal((await start(linux, 'nftables')).status.backend, 'nftables');
    assert(!hasIptables(linux));
    const without = new FakeLinux();
    without.failNext('nftables', 'EOPNOTSUPP');
    await assert.rejects(start(without, 'nftables'), { errno: 'EOPNOTSUPP' });
  });

  test('what drops in spite of us is told; what iptables overcomes is not', async () => {
    const linux = new FakeLinux();
    linux.nftables.foreignDrops = [
      { family: 'inet', table: 'firewalld', chain: 'filter_FORWARD' },
      { family: 'ip', table: 'filter', chain: 'FORWARD' },
    ];
    const notices = async (choice: 'nftables' | 'iptables'): Promise<readonly string[]> =>
      (await new Backends(linux, { policy: choice, foreignFirst: false }, logger).look()).notices.map(
        (text) => text.replace(/ drops what.*/, ''),
      );
    const firewalld = 'chain filter_FORWARD of nftables table inet firewalld';
    assert.deepEqual(await notices('iptables'), [firewalld]);
    assert.deepEqual(await notices('nftables'), [firewalld, 'chain FORWARD of nftables table ip filter']);
  });

  test('the other back end takes over: complete before the rules of the one before go', async () => {
    const linux = new FakeLinux();
    const backends = new Backends(linux, { policy: 'auto', foreignFirst: false }, logger);
    const dataplane = new PolicyDataplane(backends.make('nftables'), logger);
    const engine = engineFor(dataplane);
    await dataplane.start();
    let told = 0;
    dataplane.watch(() => told++);
    const order: string[] = [];
    const restore = linux.iptables.restore.bind(linux.iptables);
    linux.iptables.restore = async (...text) => {
      order.push((await linux.nftables.read(4, nftTable)) === null ? 'too late' : 'both there');
      await restore(...text);
    };
    const moved = dataplane.switchTo(backends.make('iptables'), (output) => engine.tellTo(output));
    // An endpoint that comes meanwhile is in what it is switched to.
    engine.onEndpoint('b', {
      local: true,
      hostInterface: 'nctlb',
      addresses: ['10.0.0.2' as Address],
      profiles: ['web'],
    });
    await dataplane.flush();
    await moved;
    assert.deepEqual([...new Set(order)], ['both there']);
    assert.equal(dataplane.status.backend, 'iptables-nft');
    assert.equal(await linux.nftables.read(4, nftTable), null);
    assert.deepEqual([...(linux.ipsets.sets.get('nctl4-ep')?.members ?? [])].sort(), [
      '10.0.0.1/32,nctla',
      '10.0.0.2/32,nctlb',
    ]);
    linux.nftables.transactAsForeigner([{ family: 4, table: nftTable, kind: 'table-add' }]);
    assert.equal(told, 0);
  });

  test('what the other one has left is gone after the start, also at the second attempt', async () => {
    const linux = new FakeLinux();
    await start(linux, 'iptables');
    assert(linux.ipsets.sets.size > 0);
    linux.failNext('ipsets.list', 'EIO');
    const dataplane = await start(linux, 'nftables');
    assert(linux.ipsets.sets.size > 0);
    await dataplane.resync();
    assert.equal(linux.ipsets.sets.size, 0);
    assert(!(await linux.iptables.save(4, 'filter')).includes('nctl'));
    await start(linux, 'iptables');
    assert.equal(await linux.nftables.read(4, nftTable), null);
    assert.equal(await linux.nftables.read(6, nftTable), null);
  });
});
