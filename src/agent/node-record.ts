/**
 * The record of this node, which the agent writes when it starts.
 *
 * In: the configuration. Out: one transaction. Never: what an operator has set in it undone.
 */
import { NetctlError } from '../lib/errors.ts';
import { nodeKey } from '../model/keys.ts';
import { type Node, nodeSchema } from '../model/records.ts';
import type { Json, Store } from '../store/store.ts';
import type { Config } from './config.ts';

/** @throws what the store throws; CONFLICT where somebody wrote it meanwhile: try again */
export async function writeNodeRecord(
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
