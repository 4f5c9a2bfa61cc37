/**
 * What the API needs of the agent around it.
 *
 * In: nothing. Out: one interface, which main or a test fills. Never: the agent's own objects, only what a request may ask of
 * them.
 */
import type { NetctlError } from '../lib/errors.ts';
import type { Revision, Store } from '../store/store.ts';
import type { AgentStatus, ConfigValue } from './status.ts';

export interface ApiDeps {
  /** Keys relative to the prefix. */
  readonly store: Store;
  /** Name of this node. */
  readonly node: string;
  readonly version: string;
  status(): AgentStatus;
  /** The effective configuration, in the order in which it is to be shown. */
  config(): readonly ConfigValue[];
  /** Resolves when this host's kernel reflects the revision; rejects when it does not within 5 s. */
  applied(revision: Revision): Promise<void>;
  /** Told of every answer 500, with its cause. */
  onBug?(error: NetctlError): void;
}
