/** PolicyDataplane with nftables on the fake Linux: the scenarios, random sequences with failures, and the choice of a back end. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { chooseBackend } from '../../../src/dataplane/choose-backend.ts';
import { nftTable } from '../../../src/dataplane/nft-reconciler.ts';
import { PolicyDataplane } from '../../../src/dataplane/policy-dataplane.ts';
import type { Logger } from '../../../src/lib/logger.ts';
import { FakeLinux } from '../../../src/linux/fake/linux.ts';
import { KernelError } from '../../../src/linux/ports.ts';
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

  async function start(linux: FakeLinux, choice: 'auto' | 'nftables' | 'iptables'): Promise<PolicyDataplane> {
    logged.length = 0;
    const dataplane = new PolicyDataplane(chooseBackend(linux, choice, logger), logger);
    const engine = new PolicyEngine({ endpointToHost: 'drop' }, dataplane);
    engine.onProfile('web', newProfile('web'));
    engine.onEndpoint('a', { local: true, hostInterface: 'nctla', addresses: [], profiles: ['web'] });
    await dataplane.start();
    return dataplane;
  }

  const hasIptables = (linux: FakeLinux): boolean =>
    linux.ipsets.sets.size > 0 || linux.toString().includes('nctl-FORWARD -');

  test('auto is iptables; nftables is what was asked for, or an error', async () => {
    const linux = new FakeLinux();
    assert.equal((await start(linux, 'auto')).status.backend, 'iptables-nft');
    assert.equal(await linux.nftables.read(4, nftTable), null);
    assert.equal((await start(linux, 'nftables')).status.backend, 'nftables');
    assert((await linux.nftables.read(4, nftTable)) !== null);
    assert(!hasIptables(linux));
    const without = new FakeLinux();
    without.failNext('nftables', 'EOPNOTSUPP');
    await assert.rejects(start(without, 'nftables'), { errno: 'EOPNOTSUPP' });
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
