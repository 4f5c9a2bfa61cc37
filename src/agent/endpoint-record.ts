/**
 * The record of an endpoint, made of a request and what was assigned to it, and the attachment that a record is to its requester.
 *
 * In: checked requests, proposals of address management. Out: plain values. Never: a field that the caller's protocol has a word for.
 */
import type { AddressBook } from '../ipam/address-book.ts';
import type { Proposal } from '../ipam/assign.ts';
import { NetctlError } from '../lib/errors.ts';
import type { NetnsIdentity } from '../linux/ports.ts';
import { type Attachment, type AttachRequest, hostInterfaceName } from '../model/attachment.ts';
import { type Address, addressBits, familyOf, prefixLength } from '../model/ip.ts';
import type { MacvlanRecord } from '../model/macvlan.ts';
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
  readonly book: AddressBook;
}

export function endpointRecord(request: AttachRequest, proposal: Proposal, facts: EndpointFacts): Endpoint {
  const { macvlan } = request;
  return {
    network: request.network,
    containerId: request.containerId,
    interface: request.interface,
    kind: macvlan === null ? 'routed' : 'macvlan',
    macvlan: macvlan && { ...macvlan, subnets: subnetsOf(facts.book, proposal.addresses) },
    hostInterface: hostInterfaceName(facts.id),
    mac: proposal.mac,
    mtuBytes: facts.mtuBytes,
    addresses: [...proposal.addresses],
    profiles: [...facts.profiles],
    labels: { ...request.labels },
    extraSources: [...request.extraSources],
    rateLimits: null,
    netns: { path: request.netns.path, ...facts.netns },
    bootId: facts.bootId,
    createdAt: facts.now.toISOString(),
  };
}

export function attachmentOf(endpoint: Endpoint): Attachment {
  const { network, containerId, mac, mtuBytes, addresses, macvlan } = endpoint;
  return {
    network,
    containerId,
    interface: endpoint.interface,
    host: macvlan === null ? { interface: endpoint.hostInterface, mac: hostMac } : null,
    mac,
    mtuBytes,
    addresses,
    prefixLengths: addresses.map(
      (address, at) => macvlan?.subnets[at]?.prefixLength ?? addressBits(familyOf(address)),
    ),
    gateways: macvlan === null ? gateways : gatewaysOf(macvlan),
    netnsPath: endpoint.netns.path,
  };
}

/** Those that the container has a default route by way of. */
function gatewaysOf({ defaultRoute, subnets }: MacvlanRecord): Attachment['gateways'] {
  if (!defaultRoute) return {};
  return Object.fromEntries(
    subnets.flatMap(({ gateway }) => (gateway === null ? [] : [[familyOf(gateway), gateway]])),
  );
}

/** On a wire, the pool is the subnet. */
function subnetsOf(book: AddressBook, addresses: readonly Address[]): MacvlanRecord['subnets'] {
  return addresses.map((address) => {
    const pool = book.viewOf(address)?.pool;
    if (pool === undefined) throw new NetctlError('BUG', `address ${address} was proposed from no pool`);
    return { prefixLength: prefixLength(pool.cidr), gateway: pool.gateway };
  });
}
