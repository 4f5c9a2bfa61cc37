/**
 * What the agent is asked when a container joins or leaves a network, whoever asks (CNI, the API, the command line), and
 * what it answers.
 *
 * In: checked values from the protocol fronts. Out: the attachment with all that a front has to report. Never: a protocol's
 * own words (those stay in src/cni and src/api).
 */
import { createHash } from 'node:crypto';
import type { Delegate } from './delegate.ts';
import type { Address, Cidr, Family } from './ip.ts';
import type { Mac } from './mac.ts';
import type { MacvlanAttachment, WireRoute } from './macvlan.ts';
import type { PortMapping } from './port-mapping.ts';
import type { RateLimits } from './rate-limits.ts';
import type { Owner, Pool, ReleasePolicy } from './records.ts';

/** One interface of one container on one network; survives restarts of everything. */
export interface AttachmentId {
  readonly network: string;
  readonly containerId: string;
  /** Name inside the container. */
  readonly interface: string;
}

export interface AttachRequest extends AttachmentId {
  /** A path that this process can open now (`/proc/PID/fd/N`), and the one that the runtime named. */
  readonly netns: { readonly open: string; readonly path: string };
  /** Profile names in order; empty means: the one named like the network, made on first use. */
  readonly profiles: readonly string[];
  /** Pools to take addresses from, in order; empty means any. */
  readonly pools: readonly string[];
  /** Exactly these addresses, instead of any. */
  readonly addresses: readonly Address[];
  readonly mac: Mac | null;
  /** 0 = that of the agent's setting. */
  readonly mtuBytes: number;
  /** Whose the addresses are; what is kept for it comes first. null: the container's own. */
  readonly owner: Owner | null;
  /** Take what this reservation holds, and nothing else. */
  readonly reservation: string | null;
  /** What becomes of new addresses when the container goes; those that were kept or reserved keep what they have. */
  readonly onRelease: ReleasePolicy;
  /** Of the policy ttl; null for the default. */
  readonly retainSeconds: number | null;
  readonly labels: Readonly<Record<string, string>>;
  /** What it may send from besides its addresses. */
  readonly extraSources: readonly Cidr[];
  readonly rateLimits: RateLimits | null;
  /** Ports of the host that lead to it. Default: none. */
  readonly portMappings?: readonly PortMapping[];
  /** Who asked: what an operator attached is no runtime's to collect. */
  readonly attachedBy: 'runtime' | 'operator';
  /** Sits directly on this wire; null: routed. */
  readonly macvlan: MacvlanAttachment | null;
  /** Gives the addresses instead of our pools. */
  readonly foreignIpam: ForeignIpam | null;
  /**
   * Another plugin makes the interface, we give it addresses (hostInterface null) or policy, on the host's end that the plugin before us
   * in a chain has told of. null: the interface is ours to make.
   */
  readonly foreignLink: { readonly hostInterface: string | null } | null;
  /** The caller moves the container's end, which is made beside the host's, and gives it its addresses. Default: false. */
  readonly isHanded?: boolean;
}

/** An address that somebody else has chosen, in the subnet that it is part of there. */
export interface GivenAddress {
  readonly address: Address;
  readonly prefixLength: number;
  readonly gateway: Address | null;
  /** What is reached by whom; undefined: all by the gateway. */
  readonly routes?: readonly WireRoute[] | undefined;
}

/** Addresses that do not come from our pools. */
export interface ForeignIpam {
  /** Called once for each attachment that is made. @throws when it has none */
  allocate(): Promise<readonly GivenAddress[]>;
  /** Who must be told when they are free again; null for nobody. */
  readonly delegate: Delegate | null;
}

export interface Attachment extends AttachmentId {
  /** The host's end of the pair; null where the host has none (macvlan). */
  readonly host: { readonly interface: string; readonly mac: Mac } | null;
  readonly mac: Mac;
  readonly mtuBytes: number;
  readonly addresses: readonly Address[];
  /** Of each address, in their order. */
  readonly prefixLengths: readonly number[];
  readonly gateways: Readonly<Partial<Record<Family, Address>>>;
  /** Undefined: all by the gateways. */
  readonly routes?: readonly WireRoute[] | undefined;
  readonly netnsPath: string;
  /** Another plugin has made the interface. */
  readonly isForeign: boolean;
}

/** Where a network takes addresses from. */
export interface AddressWish {
  readonly kind: Pool['kind'];
  /** Empty: any. */
  readonly pools: readonly string[];
}

/** What a container with no wishes of its own would ask for. */
export interface AttachWish {
  /** null: none of our addresses, since another plugin gives them. */
  readonly addresses: AddressWish | null;
  readonly macvlan: MacvlanAttachment | null;
  /** 0: as it comes. */
  readonly mtuBytes: number;
}

/** Of a network whose configuration names none. */
export const ownProfile = 'profile (named like the network)';

/** What the fronts call. */
export interface Attacher {
  /**
   * Answers when the container's network works and its policy is in force; undoes everything on failure. What `accept` throws at the
   * end is one, and undoes what this request has made; an attachment that somebody was told of before stays.
   */
  attach(request: AttachRequest, accept?: (attachment: Attachment) => void): Promise<Attachment>;
  /**
   * Succeeds when nothing is (any more) there to detach. `before`: only an attachment made earlier than that. `tell` is called at the end,
   * before anything else happens to the attachment, unless it stays or who gave its addresses was told already.
   */
  detach(id: AttachmentId, before?: Date, tell?: () => Promise<void>): Promise<void>;
  /** @throws when something of the attachment is missing or wrong, naming it */
  check(
    id: AttachmentId,
    expected: { readonly addresses: readonly Address[]; readonly netnsOpen: string },
  ): Promise<void>;
  /** Detaches what the network has beyond the given attachments. */
  collect(network: string, valid: readonly Omit<AttachmentId, 'network'>[]): Promise<void>;
  /** Why an attach would fail now, or null. */
  notReady(wanted: AttachWish): { reason: string; existingAffected: boolean } | null;
}

/** Identifies the endpoint in the store: 16 hex digits. */
export function endpointId(id: AttachmentId): string {
  return createHash('sha256')
    .update(`${id.network}\0${id.containerId}\0${id.interface}`)
    .digest('hex')
    .slice(0, 16);
}

/** The container's end until its engine moves it: the host's interface in another letter. */
export function handedInterfaceName(hostInterface: string): string {
  return `nctd${hostInterface.slice(hostInterfacePrefix.length)}`;
}

/** All host interfaces of endpoints, and nothing else, begin so. */
export const hostInterfacePrefix = 'nctl';

/** Those that what arrives is queued in, where an endpoint has a rate limit, begin so; no host interface of an endpoint does. */
export const queueInterfacePrefix = `${hostInterfacePrefix}-`;

/** Beside the host interface of an endpoint. */
export function queueInterfaceName(hostInterface: string): string {
  return `${queueInterfacePrefix}${hostInterface.slice(hostInterfacePrefix.length).slice(0, 10)}`;
}

/** A routing table of the endpoint's own in its container, the same when its interface is made anew. */
export function ownTable(hostInterface: string): number {
  return Number.parseInt(hostInterface.slice(-7), 16);
}

/** 15 characters, the most that the kernel takes. */
export function hostInterfaceName(endpoint: string): string {
  return `${hostInterfacePrefix}${endpoint.slice(0, 11)}`;
}

/** Of the host interfaces of endpoints; what is numbered in another way stays below. */
export const firstHostIndex = 2 ** 30;

/**
 * The index that a host interface gets unless something else has it: known from the name (FNV-1a), so that rules can ask for it before the
 * interface is there.
 */
export function hostInterfaceIndex(name: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
  return firstHostIndex + ((hash ^ (hash >>> 30)) & (firstHostIndex - 1));
}
