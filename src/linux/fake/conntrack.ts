/**
 * The fake's tracked connections, of the host and of other namespaces.
 *
 * In: what tests say is tracked. Out: the port; what was deleted. Never: a connection that no test has made.
 */
import { type Address, familyOf } from '../../model/ip.ts';
import type { Conntrack, TrackedConnection } from '../ports.ts';
import type { Failures } from './refusal.ts';

export class FakeConntrack {
  /** What is tracked. */
  connections: readonly TrackedConnection[] = [];
  /** In other namespaces, by their inodes. */
  readonly connectionsIn = new Map<number, readonly TrackedConnection[]>();
  /** Addresses given to flushAddresses, in order. */
  readonly flushedAddresses: Address[] = [];
  readonly host: Conntrack;

  constructor(failures: Failures) {
    this.host = {
      flushAddresses: async (addresses) => {
        failures.check('flushAddresses', 'flush connections');
        this.flushedAddresses.push(...addresses);
      },
      flushWhere: async (family, isToGo) => {
        failures.check('flushWhere', 'flush connections');
        const before = this.connections;
        this.connections = without(before, family, isToGo);
        return before.length - this.connections.length;
      },
    };
  }

  in(inode: number): Pick<Conntrack, 'flushWhere'> {
    return {
      flushWhere: async (family, isToGo) => {
        const before = this.connectionsIn.get(inode) ?? [];
        const after = without(before, family, isToGo);
        this.connectionsIn.set(inode, after);
        return before.length - after.length;
      },
    };
  }
}

function without(
  all: readonly TrackedConnection[],
  ...[family, isToGo]: Parameters<Conntrack['flushWhere']>
): TrackedConnection[] {
  return all.filter((each) => familyOf(each.source) !== family || !isToGo(each));
}
