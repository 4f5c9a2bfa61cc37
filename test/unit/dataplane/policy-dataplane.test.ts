/** PolicyDataplane on the fake Linux: the scenarios, and random sequences with failures. */
import { test } from 'node:test';
import fc from 'fast-check';
import { FakeLinux } from '../../../src/linux/fake/linux.ts';
import { KernelError } from '../../../src/linux/ports.ts';
import { profileArbitrary } from '../policy/arbitrary.ts';
import { Agent, assertKernel, policyScenarios } from './policy-scenarios.ts';

policyScenarios(async () => new FakeLinux());

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
    operation: fc.constantFrom('batch' as const, 'restore' as const, 'save' as const),
  }),
  fc.record({
    kind: fc.constantFrom('retire' as const, 'flush' as const, 'resync' as const, 'wait' as const),
  }),
);

test('whatever happens, a last flush leaves the kernel as the engine says', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
      const linux = new FakeLinux();
      const agent = new Agent(linux);
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
      await assertKernel(linux, agent.told);
    }),
    { numRuns: 150 },
  );
});
