/**
 * What the API needs of the agent around it.
 *
 * In: nothing. Out: one interface, which main or a test fills. Never: the agent's own objects, only what a request may ask of
 * them.
 */
import type { Socket } from 'node:net';
import type { Collected, CollectionRequest } from '../ipam/collection.ts';
import type { Ipam } from '../ipam/ipam.ts';
import type { Clock } from '../lib/clock.ts';
import type { NetctlError } from '../lib/errors.ts';
import type { Attachment, AttachmentId } from '../model/attachment.ts';
import type { PortMapping } from '../model/port-mapping.ts';
import type { Json, Revision, Store } from '../store/store.ts';
import type { BgpStatus } from './bgp-schemas.ts';
import type { Caller } from './caller.ts';
import type { CounterItem } from './counter-schemas.ts';
import type { EnforcementItem } from './enforcement-schemas.ts';
import type { Impact, RuleCounts, WhyAnswer } from './explain-schemas.ts';
import type { AgentStatus, ConfigValue } from './status.ts';

export interface WhyQuery {
  /** An endpoint, a node, an address, or `host`. */
  readonly source: string;
  readonly destination: string;
  /** `icmp`: an echo request. */
  readonly protocol: { readonly number: number; readonly port: number } | 'icmp';
}

export interface ApiDeps {
  /** Keys relative to the prefix. */
  readonly store: Store;
  /** The verbs of address management, with the picture that they plan on. */
  readonly ipam: Ipam;
  /** One look for leaked addresses, freeing what is confirmed unless `dryRun`. */
  collect(request: CollectionRequest): Promise<Collected>;
  readonly clock: Pick<Clock, 'now'>;
  /** Name of this node. */
  readonly node: string;
  readonly version: string;
  status(): AgentStatus;
  /** null where BGP is switched off. */
  bgpStatus(): Promise<BgpStatus | null>;
  /** Which settings of this host's kernel stand in the way, a sentence each; none of them is a fault of the agent. */
  hostNotices(): Promise<readonly string[]>;
  /** The effective configuration, in the order in which it is to be shown. */
  config(): readonly ConfigValue[];
  /** Resolves when this host's kernel reflects the revision; rejects when it does not within 5 s. */
  applied(revision: Revision): Promise<void>;
  /** Which rule decides between two parties, confirmed by a real packet if asked. @throws NOT_FOUND, CONFLICT, INVALID */
  why(query: WhyQuery, isProbed: boolean): Promise<WhyAnswer>;
  /** What would be answered otherwise if these records were written. */
  impact(changes: ReadonlyMap<string, Json | null>): Promise<Impact>;
  /** As an ADD and a DEL of CNI, in a namespace of this node. @throws as they do */
  attach(request: {
    readonly target: string;
    readonly network: string;
    readonly interface: string | null;
    readonly profiles: readonly string[];
    readonly addresses: readonly string[];
    readonly portMappings: readonly PortMapping[];
  }): Promise<Attachment>;
  detach(target: string, name: string): Promise<AttachmentId>;
  /** What went through the interfaces of this node's endpoints, read now. */
  counters(): Promise<readonly CounterItem[]>;
  /** Where the policy of each endpoint of this node is enforced, and how well. */
  enforcement(): readonly EnforcementItem[];
  /** How often each rule applied on this host. */
  ruleCounts(kind: 'profile' | 'policy', name: string): Promise<RuleCounts>;
  /** Who is at the other end, and what they may do. */
  callerOf(socket: Socket): Caller;
  /** Told of every change that only force made possible, to be logged. */
  onForced?(change: ForcedChange): void;
  /** Told of every answer 500, with its cause. */
  onBug?(error: NetctlError): void;
}

export interface ForcedChange {
  readonly actor: string;
  readonly action: 'release' | 'release-owner' | 'transfer';
  /** An address, or an owner as `tenant/app/instance`. */
  readonly what: string;
  /** Who had the address: owner, node, container; null for a free one and for an owner's. */
  readonly was: {
    readonly owner: string;
    readonly node: string | null;
    readonly container: string | null;
  } | null;
}
