/**
 * Random sequences of changes, writes and failures, for any back end on the fake Linux.
 *
 * In: an agent's part of policy, what can fail, how to ask the kernel. Out: a property. Never: a failure that is not the kernel's passed over.
 */
import { test } from 'node:test';
import fc from 'fast-check';
import type { PolicyDataplane } from '../../../src/dataplane/policy-dataplane.ts';
import { KernelError } from '../../../src/linux/ports.ts';
import type { PolicyEngine } from '../../../src/policy/engine.ts';
import { profileArbitrary } from '../policy/arbitrary.ts';

interface Subject<Operation> {
  readonly engine: PolicyEngine;
  readonly dataplane: PolicyDataplane;
  /** The operation that fails next. */
  readonly linux: { failing: Operation | null };
  endpoint(id: string, address: string, ...profiles: string[]): void;
}

/** @param open makes a part that has not started @param verify that the kernel holds what the part was told */
export function randomSequences<Operation, Part extends Subject<Operation>>(
  open: () => Part,
  operations: readonly Operation[],
  verify: (part: Part) => Promise<void>,
): void {
  const name = fc.constantFrom('web', 'app', 'db');
  const id = fc.constantFrom('a', 'b', 'c');
  const step = fc.oneof(
    fc.record({
      kind: fc.constant('profile' as const),
      name,
      profile: fc.option(profileArbitrary, { freq: 4 }),
    }),
    fc.record({
      kind: fc.constant('endpoint' as const),
      id,
      address: fc.constantFrom('10.0.0.1', '10.0.0.2', 'fd00::1'),
      profiles: fc.array(name, { maxLength: 2 }),
    }),
    fc.record({ kind: fc.constant('gone' as const), id }),
    fc.record({ kind: fc.constant('fail' as const), operation: fc.constantFrom(...operations) }),
    fc.record({
      kind: fc.constantFrom('retire' as const, 'flush' as const, 'resync' as const, 'wait' as const),
    }),
  );
  test('whatever happens, a last flush leaves the kernel as the engine says', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
        const part = open();
        await part.dataplane.start();
        const tolerant = (work: Promise<unknown>): Promise<unknown> =>
          work.catch((error) => {
            if (!(error instanceof KernelError)) throw error;
          });
        const under: Promise<unknown>[] = [];
        for (const each of steps) {
          if (each.kind === 'profile') part.engine.onProfile(each.name, each.profile);
          else if (each.kind === 'endpoint') part.endpoint(each.id, each.address, ...each.profiles);
          else if (each.kind === 'gone') part.engine.onEndpoint(each.id, null);
          else if (each.kind === 'fail') part.linux.failing = each.operation;
          else if (each.kind === 'retire') part.engine.retire();
          else if (each.kind === 'flush') under.push(tolerant(part.dataplane.flush()));
          else if (each.kind === 'resync') under.push(tolerant(part.dataplane.resync()));
          else await Promise.all(under);
        }
        await Promise.all(under);
        part.linux.failing = null;
        await part.dataplane.flush();
        await verify(part);
      }),
      { numRuns: 150 },
    );
  });
}
