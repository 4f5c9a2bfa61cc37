/**
 * The record of this node, which the agent writes when it starts, and again where an operator has removed it.
 *
 * In: the configuration. Out: one transaction. Never: what an operator has set in it undone.
 */
import { asNetctlError, NetctlError } from '../lib/errors.ts';
import type { Logger } from '../lib/logger.ts';
import { nodeKey } from '../model/keys.ts';
import { type Node, nodeSchema } from '../model/records.ts';
import type { Json, Store } from '../store/store.ts';
import type { Config } from './config.ts';

export interface NodeRecordParts {
  readonly config: Config;
  readonly store: Store;
  readonly version: string;
  readonly startedAt: Date;
  readonly logger: Logger;
}

/** The node's own record is the cluster's to take; a host that is cut off starts without. */
export class NodeRecord {
  readonly #parts: NodeRecordParts;
  #isWritten = false;
  /** Said once: it is tried again every second. */
  #error = '';

  constructor(parts: NodeRecordParts) {
    this.#parts = parts;
  }

  /** Writes it unless it was and is there still. @param isThere as far as the picture goes, and nothing is to be tried by it */
  async keep(isThere: boolean): Promise<void> {
    if (this.#isWritten && isThere) return;
    const { config, store, version, startedAt, logger } = this.#parts;
    try {
      await write(store, config, { version, startedAt: startedAt.toISOString() });
      this.#isWritten = true;
    } catch (error) {
      const { message } = asNetctlError(error);
      if (message !== this.#error)
        logger.warn({ error: message }, 'the record of this node is not written yet');
      this.#error = message;
    }
  }
}

/** @throws what the store throws; CONFLICT where somebody wrote it meanwhile: try again */
async function write(
  store: Store,
  { node, bgp }: Config,
  now: Pick<Node, 'version' | 'startedAt'>,
): Promise<void> {
  const { name, address4, address6, asNumber, interface: link, labels } = node;
  const key = nodeKey(name);
  const known = await store.get(key);
  const before = nodeSchema.safeParse(known?.value).data;
  const record: Node = {
    address4,
    address6,
    asNumber,
    interface: link,
    labels,
    bgpPort: bgp.enabled ? bgp.listenPort : null,
    routeReflectorClusterId: before?.routeReflectorClusterId ?? null,
    ...now,
  };
  const { committed } = await store.transact(
    [known === null ? { kind: 'absent', key } : { kind: 'modified', key, revision: known.modified }],
    [{ kind: 'put', key, value: record as unknown as Json }],
  );
  if (!committed) throw new NetctlError('CONFLICT', `somebody else has written ${key} meanwhile`);
}
