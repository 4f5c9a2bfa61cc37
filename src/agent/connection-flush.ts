/**
 * Connections that a change of policy denies, cut where the change asks for it (pure but for the port).
 *
 *     before the change: what the chains say ─┐
 *     after it:          what they say now ───┴─► connections of endpoints of this host that were allowed and are denied: deleted
 *
 * In: the engine, before and after; the tracked connections. Out: deletions. Never: a connection cut that would not be allowed before
 * either (it came about in some other way), one of nobody here, or one before the kernel has the new rules.
 */
import type { Conntrack, TrackedConnection } from '../linux/ports.ts';
import { type Address, families } from '../model/ip.ts';
import { connectionFlushKey } from '../model/keys.ts';
import type { PolicyEngine } from '../policy/engine.ts';
import { Explainer } from '../policy/explain.ts';

/** Anything that no endpoint has; chains know only the interfaces of endpoints here. */
const ELSEWHERE = 'elsewhere';

export interface LocalAddresses {
  /** Of endpoints of this host, with the interface of each. */
  readonly endpoints: ReadonlyMap<Address, string>;
  /** Of the host itself. */
  readonly host: ReadonlySet<Address>;
}

/** The change comes with a request to cut what it denies. */
export function asksForFlush(changes: Iterable<{ readonly key: string; readonly entry: unknown }>): boolean {
  for (const { key, entry } of changes) if (key === connectionFlushKey && entry !== null) return true;
  return false;
}

export function snapshotOf(engine: Pick<PolicyEngine, 'tellTo'>): Explainer {
  const explainer = new Explainer();
  engine.tellTo(explainer);
  return explainer;
}

/** To be called when the kernel has the new rules. Returns how many connections were cut. @throws KernelError */
export async function flushDenied(
  conntrack: Conntrack,
  before: Explainer,
  after: Explainer,
  addresses: LocalAddresses,
): Promise<number> {
  let flushed = 0;
  for (const family of families) {
    const known = new Map<string, boolean>();
    flushed += await conntrack.flushWhere(family, (connection) => {
      const { source, destination } = connection;
      if (!addresses.endpoints.has(source) && !addresses.endpoints.has(destination)) return false;
      const key = JSON.stringify(connection);
      let isToGo = known.get(key);
      if (isToGo === undefined) {
        isToGo = !isDenied(before, connection, addresses) && isDenied(after, connection, addresses);
        known.set(key, isToGo);
      }
      return isToGo;
    });
  }
  return flushed;
}

function isDenied(chains: Explainer, connection: TrackedConnection, addresses: LocalAddresses): boolean {
  const interfaceOf = (address: Address): string =>
    addresses.endpoints.get(address) ?? (addresses.host.has(address) ? '' : ELSEWHERE);
  const [inInterface, outInterface] = [interfaceOf(connection.source), interfaceOf(connection.destination)];
  const builtin = inInterface === '' ? 'OUTPUT' : outInterface === '' ? 'INPUT' : 'FORWARD';
  return chains.judge(builtin, { ...connection, inInterface, outInterface }).verdict === 'drop';
}
