/**
 * Two first ADDs of one owner at the same moment: one gets the address that is kept, the other is told where it is.
 *
 * In: nodes that share a store, or one node twice. Out: assertions, for any store below. Never: timing: both plan before either commits.
 */
import assert from 'node:assert/strict';
import type { AssignRequest } from '../../../src/ipam/assign.ts';
import type { NetctlError } from '../../../src/lib/errors.ts';
import { ownerPrefix } from '../../../src/model/keys.ts';
import type { Store } from '../../../src/store/store.ts';

/** What it takes of a node: IpamNode, whatever its clock. */
export interface Assigning {
  readonly name: string;
  readonly store: Store;
  assign(endpoint: string, request: Partial<AssignRequest>): Promise<readonly string[]>;
}

const kinds = ['routed', 'macvlan'] as const;

/** With a pool of each kind and both families in each: all or none of both, for one of them. */
export async function oneIsFirst(nodes: readonly Assigning[], rounds = 5): Promise<void> {
  for (const kind of kinds) {
    for (let round = 0; round < rounds; round++) {
      const owner = { tenant: 't', app: kind, instance: String(round) };
      const outcomes = await Promise.allSettled(
        nodes.map((node, index) =>
          node.assign(`${kind}-${round}-${index}`, { owner, kind, onRelease: 'immutable' }),
        ),
      );
      const given = outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []));
      const refused = outcomes.flatMap((outcome) =>
        outcome.status === 'rejected' ? [(outcome.reason as NetctlError).code] : [],
      );
      assert.equal(given.length, 1, `${kind}, round ${round}: ${JSON.stringify({ given, refused })}`);
      assert.deepEqual(
        refused,
        nodes.slice(1).map(() => 'ADDRESS_IN_USE'),
      );
      const { entries } = await nodes[0]!.store.list(ownerPrefix(owner));
      assert.deepEqual(
        entries.map(({ key }) => key.slice(ownerPrefix(owner).length)).sort(),
        [...given[0]!].sort(),
        'what is kept for the owner',
      );
    }
  }
}
