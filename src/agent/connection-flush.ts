/**
 * Connections that a change of policy denies, cut where the change asks for it.
 *
 *     before the change: what the chains say ─┐
 *     after it:          what they say now ───┴─► connections of endpoints of this host that were allowed and are denied: deleted
 *     asked for while no agent ran here ────────► at the start: those that are denied now
 *     rules that others had changed, repaired ──► the same: while the rules were away anything could begin
 *
 * Those of macvlan endpoints are in their containers, each with its own end.
 *
 * In: the engine, before and after; the tracked connections; which request was done last. Out: deletions. Never: a connection cut that
 * would not be allowed before either (it came about in some other way; at a start nobody knows), one of nobody here, one before the
 * kernel has the new rules; a request forgotten because the agent ended.
 */

import type { JointPolicy } from '../dataplane/joint-policy.ts';
import { reopen } from '../dataplane/reopen.ts';
import { asNetctlError } from '../lib/errors.ts';
import type { Logger } from '../lib/logger.ts';
import type { Conntrack, Linux, TrackedConnection } from '../linux/ports.ts';
import { type Address, families } from '../model/ip.ts';
import { connectionFlushKey } from '../model/keys.ts';
import type { Endpoint } from '../model/records.ts';
import type { PolicyEngine } from '../policy/engine.ts';
import { Explainer } from '../policy/explain.ts';
import type { EndpointTable } from './endpoint-table.ts';
import type { Change } from './picture.ts';

/** Anything that no endpoint has; chains know only the interfaces of endpoints here. */
const ELSEWHERE = 'elsewhere';
/** In place of a request. */
const NONE = 'none';

export interface ConnectionFlushParts {
  readonly engine: Pick<PolicyEngine, 'tellTo'>;
  readonly policy: Pick<JointPolicy, 'flush'>;
  readonly endpoints: EndpointTable;
  readonly linux: Pick<Linux, 'conntrack' | 'conntrackIn' | 'openNetns' | 'writeSysctl'>;
  hostAddresses(): Promise<ReadonlySet<Address>>;
  readonly mark: FlushMark;
  readonly logger: Logger;
}

/** Which request was done last, kept until the host boots: then it tracks no connections. */
export interface FlushMark {
  /** null: there was none since the host has booted. */
  read(): string | null;
  write(request: string): void;
}

interface LocalAddresses {
  /** Of endpoints of this host, with the interface of each. */
  readonly endpoints: ReadonlyMap<Address, string>;
  /** Of the host itself. */
  readonly host: ReadonlySet<Address>;
}

export class ConnectionFlush {
  readonly #parts: ConnectionFlushParts;
  #done: Promise<void> = Promise.resolve();
  #count = 0;
  #isStarted = false;
  /** One of what is denied now, for a repair, that has not begun. */
  #awaitsRepaired = false;
  /** The last one: a record with another id each time. */
  #request = NONE;

  constructor(parts: ConnectionFlushParts) {
    this.#parts = parts;
  }

  /** Connections cut since the start. */
  get count(): number {
    return this.#count;
  }

  /** Resolves when what was asked for so far is done. */
  get done(): Promise<void> {
    return this.#done;
  }

  /** Brings a change into the engine, and cuts what it denies if that is asked for with it. Before the start it only remembers that. */
  around(changes: readonly Change[], apply: () => void): void {
    const asked = changes.find(({ key, entry }) => key === connectionFlushKey && entry !== null);
    const before = asked === undefined || !this.#isStarted ? null : this.#snapshot();
    apply();
    if (asked !== undefined) this.#request = JSON.stringify(asked.entry!.value);
    if (before !== null) this.#add(before);
  }

  /** To be called when policy is in the kernel. Resolves when what was asked for while no agent ran is done. */
  async start(): Promise<void> {
    this.#isStarted = true;
    if (this.#awaitsRepaired) this.#addRepaired();
    const known = this.#read();
    if (known === null) this.#note(this.#request);
    if (known === null || known === this.#request || this.#request === NONE) return;
    this.#parts.logger.warn(
      {},
      'a change asked to cut what it denies while no agent ran: what is denied now is cut',
    );
    this.#add(null);
    await this.#done;
  }

  /** Policy is right again after others had changed it, or, before the start, after there was none. */
  onRepaired(): void {
    if (this.#awaitsRepaired) return;
    this.#awaitsRepaired = true;
    if (this.#isStarted) this.#addRepaired();
  }

  #addRepaired(): void {
    const request = this.#request;
    this.#done = this.#done.then(() => {
      this.#awaitsRepaired = false;
      return this.#flush(request, null, this.#snapshot());
    });
  }

  #read(): string | null {
    try {
      return this.#parts.mark.read();
    } catch (error) {
      this.#parts.logger.error({ error: String(error) }, 'cannot read which connections were cut last');
      return null;
    }
  }

  #note(request: string): void {
    try {
      this.#parts.mark.write(request);
    } catch (error) {
      this.#parts.logger.error({ error: String(error) }, 'cannot note which connections were cut last');
    }
  }

  #add(before: Explainer | null): void {
    const [request, after] = [this.#request, this.#snapshot()];
    this.#done = this.#done.then(() => this.#flush(request, before, after));
  }

  #snapshot(): Explainer {
    const explainer = new Explainer();
    this.#parts.engine.tellTo(explainer);
    return explainer;
  }

  async #flush(request: string, before: Explainer | null, after: Explainer): Promise<void> {
    const { policy, endpoints, linux, hostAddresses, logger } = this.#parts;
    try {
      await policy.flush();
      const all = Array.from(endpoints.all(), ([, { value }]) => value);
      const host = await hostAddresses();
      const isToGo = (of: readonly Endpoint[]): ((connection: TrackedConnection) => boolean) =>
        isNewlyDenied(before, after, { endpoints: interfacesOf(of), host });
      let connections = await cut(linux.conntrack, isToGo(all));
      for (const endpoint of all)
        if (endpoint.kind === 'macvlan') connections += await this.#cutIn(endpoint, isToGo([endpoint]));
      this.#count += connections;
      logger.info({ connections }, 'cut connections that a change of policy denies');
      this.#note(request);
    } catch (error) {
      logger.error({ error: asNetctlError(error).message }, 'cannot cut connections that a change denies');
    }
  }

  async #cutIn(endpoint: Endpoint, isToGo: (connection: TrackedConnection) => boolean): Promise<number> {
    const { linux, logger } = this.#parts;
    const netns = reopen(linux, endpoint);
    if (netns === null) return 0;
    try {
      // All connections of a container began in it: one that the kernel does not know any more is not to begin in its middle.
      linux.writeSysctl('net/netfilter/nf_conntrack_tcp_loose', '0', netns);
      return await cut(linux.conntrackIn(netns), isToGo);
    } catch (error) {
      const { containerId } = endpoint;
      logger.error(
        { containerId, error: asNetctlError(error).message },
        'cannot cut connections in a container',
      );
      return 0;
    } finally {
      netns.close();
    }
  }
}

async function cut(
  conntrack: Pick<Conntrack, 'flushWhere'>,
  isToGo: (connection: TrackedConnection) => boolean,
): Promise<number> {
  let connections = 0;
  for (const family of families) connections += await conntrack.flushWhere(family, isToGo);
  return connections;
}

function interfacesOf(endpoints: readonly Endpoint[]): Map<Address, string> {
  return new Map(
    endpoints.flatMap(({ addresses, hostInterface }) =>
      addresses.map((address) => [address, hostInterface] as const),
    ),
  );
}

/** @param before null: all that is denied now */
function isNewlyDenied(
  before: Explainer | null,
  after: Explainer,
  addresses: LocalAddresses,
): (connection: TrackedConnection) => boolean {
  return (connection) => {
    const { source, destination } = connection;
    if (!addresses.endpoints.has(source) && !addresses.endpoints.has(destination)) return false;
    if (!isDenied(after, connection, addresses)) return false;
    return before === null || !isDenied(before, connection, addresses);
  };
}

function isDenied(chains: Explainer, connection: TrackedConnection, addresses: LocalAddresses): boolean {
  const interfaceOf = (address: Address): string =>
    addresses.endpoints.get(address) ?? (addresses.host.has(address) ? '' : ELSEWHERE);
  const [inInterface, outInterface] = [interfaceOf(connection.source), interfaceOf(connection.destination)];
  const builtin = inInterface === '' ? 'OUTPUT' : outInterface === '' ? 'INPUT' : 'FORWARD';
  return chains.judge(builtin, { ...connection, inInterface, outInterface }).verdict === 'drop';
}
