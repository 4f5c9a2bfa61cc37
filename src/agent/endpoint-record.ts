/**
 * The record of an endpoint, made of a request and what was assigned to it, and the attachment that a record is to its requester.
 *
 * In: checked requests, proposals of address management. Out: plain values. Never: a field that the caller's protocol has a word for.
 */
import type { AddressBook } from '../ipam/address-book.ts';
import type { Proposal } from '../ipam/assign.ts';
import { NetctlError } from '../lib/errors.ts';
import type { NetnsIdentity } from '../linux/ports.ts';
import {
  type Attachment,
  type AttachRequest,
  type GivenAddress,
  hostInterfaceName,
} from '../model/attachment.ts';
import { needsLink } from '../model/delegate.ts';
import { type Address, addressBits, familyOf, prefixLength } from '../model/ip.ts';
import { macOf, macOfEndpoint } from '../model/mac.ts';
import { type MacvlanRecord, routesOf } from '../model/macvlan.ts';
import type { Endpoint } from '../model/records.ts';
import { gateways, hostMac } from '../veth/plan.ts';

/** What the agent adds to a request. */
export interface EndpointFacts {
  readonly id: string;
  readonly profiles: readonly string[];
  readonly mtuBytes: number;
  readonly netns: NetnsIdentity;
  readonly bootId: string;
  readonly now: Date;
  /** Addresses that do not come from our pools. */
  readonly given: readonly GivenAddress[] | null;
  readonly book: AddressBook;
}

export function endpointRecord(
  request: AttachRequest,
  proposal: Pick<Proposal, 'addresses' | 'mac'>,
  facts: EndpointFacts,
): Endpoint {
  const { macvlan, foreignLink } = request;
  return {
    network: request.network,
    containerId: request.containerId,
    interface: request.interface,
    kind:
      foreignLink !== null
        ? 'foreign'
        : macvlan !== null
          ? 'macvlan'
          : request.isHanded
            ? 'handed'
            : 'routed',
    macvlan: macvlan && { ...macvlan, subnets: subnetsOf(facts, proposal.addresses) },
    foreignAddresses: facts.given !== null,
    delegate: request.foreignIpam?.delegate ?? null,
    hostInterface: foreignLink?.hostInterface ?? hostInterfaceName(facts.id),
    mac: proposal.mac,
    mtuBytes: facts.mtuBytes,
    addresses: [...proposal.addresses],
    profiles: [...facts.profiles],
    labels: { ...request.labels },
    extraSources: [...request.extraSources],
    rateLimits: request.rateLimits,
    portMappings: [...(request.portMappings ?? [])],
    attachedBy: request.attachedBy,
    netns: { path: request.netns.path, ...facts.netns },
    bootId: facts.bootId,
    createdAt: facts.now.toISOString(),
  };
}

/** The endpoint as entered before its addresses were given, with them. */
export function withAddresses(bare: Endpoint, given: readonly GivenAddress[]): Endpoint {
  return {
    ...bare,
    addresses: given.map(({ address }) => address),
    macvlan: bare.macvlan && { ...bare.macvlan, subnets: given.map(subnetOf) },
  };
}

/** Addresses of others' pools are in no record of ours, so there is nothing to compare or write. */
export function proposalOf(
  { mac, foreignIpam }: AttachRequest,
  id: string,
  given: readonly GivenAddress[],
): Proposal {
  const addresses = given.map(({ address }) => address);
  const [first] = addresses;
  const isLater = needsLink(foreignIpam?.delegate ?? null);
  if (first === undefined && !isLater)
    throw new NetctlError('POOL_EXHAUSTED', 'no address was given for this endpoint');
  const own = mac ?? (first === undefined ? macOfEndpoint(id) : macOf(first));
  return { addresses, mac: own, generations: [], compares: [], writes: [], settle() {} };
}

export function attachmentOf(endpoint: Endpoint, book: AddressBook): Attachment {
  const { network, containerId, mac, mtuBytes, addresses } = endpoint;
  return {
    network,
    containerId,
    interface: endpoint.interface,
    host:
      endpoint.kind === 'routed' || endpoint.kind === 'handed'
        ? { interface: endpoint.hostInterface, mac: hostMac }
        : null,
    mac,
    mtuBytes,
    addresses,
    ...surroundings(endpoint, book),
    netnsPath: endpoint.netns.path,
    isForeign: endpoint.kind === 'foreign',
  };
}

function surroundings(
  { kind, addresses, macvlan }: Endpoint,
  book: AddressBook,
): Pick<Attachment, 'prefixLengths' | 'gateways' | 'routes'> {
  if (kind === 'routed' || kind === 'handed') return { prefixLengths: addresses.map(wholeLength), gateways };
  const subnets = macvlan?.subnets ?? addresses.map((address) => poolSubnet(book, address));
  return {
    prefixLengths: subnets.map(({ prefixLength: length }) => length),
    gateways: macvlan?.defaultRoute === false ? {} : gatewaysOf(subnets),
    ...(macvlan === null ? {} : { routes: routesOf(addresses as Address[], macvlan) }),
  };
}

function gatewaysOf(subnets: readonly Subnet[]): Attachment['gateways'] {
  return Object.fromEntries(
    subnets.flatMap(({ gateway }) => (gateway === null ? [] : [[familyOf(gateway), gateway]])),
  );
}

type Subnet = MacvlanRecord['subnets'][number];

function subnetsOf({ given, book }: EndpointFacts, addresses: readonly Address[]): Subnet[] {
  if (given !== null) return given.map(subnetOf);
  return addresses.map((address) => poolSubnet(book, address));
}

function subnetOf({ prefixLength: length, gateway, routes }: GivenAddress): Subnet {
  return { prefixLength: length, gateway, routes: routes === undefined ? null : [...routes] };
}

/** The pool is the subnet where it has a gateway or is on a wire; else an address stands alone. */
function poolSubnet(book: AddressBook, address: Address): Subnet {
  const pool = book.viewOf(address)?.pool;
  if (pool === undefined || (pool.kind === 'routed' && pool.gateway === null))
    return { prefixLength: wholeLength(address), gateway: null, routes: null };
  return { prefixLength: prefixLength(pool.cidr), gateway: pool.gateway, routes: null };
}

function wholeLength(address: Address): number {
  return addressBits(familyOf(address));
}
