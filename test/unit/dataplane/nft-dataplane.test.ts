/** PolicyDataplane with nftables on the fake Linux: the scenarios, random sequences with failures, and the choice of a back end. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Backends } from '../../../src/dataplane/choose-backend.ts';
import { nftTable } from '../../../src/dataplane/nft-reconciler.ts';
import { PolicyDataplane } from '../../../src/dataplane/policy-dataplane.ts';
import type { Logger } from '../../../src/lib/logger.ts';
import { FakeLinux } from '../../../src/linux/fake/linux.ts';
import type { Address } from '../../../src/model/ip.ts';
import { newProfile } from '../../../src/model/profile.ts';
import { PolicyEngine } from '../../../src/policy/engine.ts';
import { assertNftables, type CountedNftables, NftAgent, nftScenarios } from './nft-scenarios.ts';
import { randomSequences } from './random-sequences.ts';

nftScenarios(async () => new FakeLinux());

randomSequences<NonNullable<CountedNftables['failing']>, NftAgent>(
  () => new NftAgent(new FakeLinux()),
  ['transact', 'read'],
  (agent) => assertNftables(agent.linux, agent),
);

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
