/**
 * A CNI call as we understand it: environment and network configuration, checked, with the precedence of the CNI conventions
 * (runtimeConfig, then args.cni, then CNI_ARGS, then the configuration itself).
 *
 * In: the frame that the shim sent. Out: a CniCall. Never: a key that asks for something that we would silently not do
 * (those are refused by name), a dependence on the spelling of keys (Go folds case, and runtimes rely on it).
 */
import { z } from 'zod';
import { invalid } from '../lib/errors.ts';
import {
  type AttachmentId,
  type AttachRequest,
  type AttachWish,
  type ForeignIpam,
  ownProfile,
} from '../model/attachment.ts';
import { checkJson } from '../model/check.ts';
import { type Delegate, needsLink } from '../model/delegate.ts';
import { labelsSchema } from '../model/host-endpoint.ts';
import { type Address, addressBits, familyOf, parseAddress, parseAddressOrCidr } from '../model/ip.ts';
import { parseMac } from '../model/mac.ts';
import { parseName } from '../model/names.ts';
import { checkHostAddress, type PortMapping, portMappingsSchema } from '../model/port-mapping.ts';
import { orNone, type RateLimits, rateLimitsSchema } from '../model/rate-limits.ts';
import {
  longestTtlSeconds,
  type Owner,
  ownerSchema,
  type ReleasePolicy,
  releasePolicies,
} from '../model/records.ts';
import { type Config, type DeletionConfig, parseConfig, parseDeletionConfig } from './config.ts';
import { commaList, labelsTold, toldByAnnotations, toldByMesos } from './conventions.ts';
import { allocate, type DelegateCall } from './delegate.ts';
import {
  attachmentId,
  cniArgs,
  isIpamOnly,
  namedId,
  netnsOpenPath,
  netnsPath,
  queuedAt,
} from './environment.ts';
import { CniError } from './errors.ts';
import type { Request } from './frame.ts';
import { macvlanOf } from './macvlan.ts';
import { type LinkBefore, linkBefore, previousResult } from './previous.ts';
import { type AnswerForm, type CniVersion, type Dns, dnsTold } from './result.ts';

export type CniCall =
  | {
      readonly command: 'ADD';
      readonly cniVersion: CniVersion;
      readonly attach: AttachRequest;
      readonly answer: AnswerForm;
    }
  | {
      readonly command: 'DEL';
      readonly cniVersion: CniVersion;
      readonly id: AttachmentId;
      readonly queuedAt: Date | null;
      /** Who gave the addresses, if not our pools; it hears of every DEL. */
      readonly delegate: DelegateCall | null;
    }
  | {
      readonly command: 'CHECK';
      readonly cniVersion: CniVersion;
      readonly id: AttachmentId;
      readonly expected: { readonly addresses: readonly Address[]; readonly netnsOpen: string };
      readonly delegate: DelegateCall | null;
    }
  | {
      readonly command: 'GC';
      readonly cniVersion: CniVersion;
      readonly network: string;
      /** null: the runtime gave no list, which says nothing about any attachment. */
      readonly valid: readonly Omit<AttachmentId, 'network'>[] | null;
      readonly delegate: Delegate | null;
    }
  | {
      readonly command: 'STATUS';
      readonly cniVersion: CniVersion;
      readonly wanted: AttachWish;
      readonly delegate: Delegate | null;
    };

/** @throws CniError, or INVALID naming the field */
export function parseCall(request: Request): CniCall {
  const command = request.env.get('CNI_COMMAND') ?? '';
  if (command === 'DEL') return deletion(request);
  const config = parseConfig(request.stdin, isIpamOnly(request));
  const cniVersion = config.cniVersion;
  const delegate = delegateOf(request, config);
  switch (command) {
    case 'ADD': {
      let ipamDns: Dns = {};
      const attach = attachRequest(request, config, delegate, (dns) => {
        ipamDns = dns;
      });
      return { command, cniVersion, attach, answer: answerForm(request, config, () => ipamDns) };
    }
    case 'CHECK': {
      const id = attachmentId(request.env, config.name);
      return {
        command,
        cniVersion,
        id,
        expected: expectation(request, config),
        delegate: delegate && { delegate, id, netnsPath: netnsPath(request) },
      };
    }
    case 'GC':
      return { command, cniVersion, network: config.name, valid: validAttachments(config), delegate };
    case 'STATUS':
      return { command, cniVersion, wanted: wish(request, config, delegate), delegate };
    default:
      throw new CniError(4, `unknown CNI_COMMAND: ${command}`);
  }
}

/** Names are all that it needs; what the ADD would have refused has left nothing. */
function deletion(request: Request): CniCall {
  const config = parseDeletionConfig(request.stdin);
  const id = namedId(request.env, config.name);
  let delegate: Delegate | null = null;
  try {
    delegate = delegateOf(request, config);
  } catch {
    // No such plugin was ever called.
  }
  return {
    command: 'DEL',
    cniVersion: config.cniVersion,
    id,
    queuedAt: queuedAt(request.env),
    delegate: delegate && { delegate, id, netnsPath: netnsPath(request) },
  };
}

/** @throws as attachRequest, for what the configuration alone says */
function wish(request: Request, config: Config, delegate: Delegate | null): AttachWish {
  const profiles = config.profiles ?? [];
  for (const profile of profiles) parseName(profile, 'profile');
  if (profiles.length === 0 && !isIpamOnly(request)) parseName(config.name, ownProfile);
  const macvlan = macvlanOf(config);
  const pools = first(config.pools, config.ipam?.pools).map((pool) => parseName(pool, 'pool'));
  const mtuBytes = checkedMtu(config.mtu ?? 0);
  return {
    macvlan,
    mtuBytes,
    addresses: delegate === null ? { kind: macvlan ? 'macvlan' : 'routed', pools } : null,
  };
}

/** @param hearDns of what a plugin that gives the addresses says of it */
function attachRequest(
  request: Request,
  config: Config,
  delegate: Delegate | null,
  hearDns: (dns: Dns) => void,
): AttachRequest {
  refuseUnsupported(config, delegate);
  const id = attachmentId(request.env, config.name);
  const before = isIpamOnly(request) ? null : linkBefore(config, id.interface);
  const args = cniArgs(request.env.get('CNI_ARGS') ?? '');
  const cni = config.args?.cni;
  const runtime = config.runtimeConfig;
  const pod = toldByAnnotations(config);
  const mesos = toldByMesos(config);
  const ips = first(runtime?.ips, pod.addresses, cni?.ips, mesos.addresses, commaList(args.get('IP')));
  const owner = cni?.netctl?.owner ?? args.get('NETCTL_OWNER');
  const reservation = cni?.netctl?.reservation ?? args.get('NETCTL_RESERVATION');
  const mac = before?.mac ?? runtime?.mac ?? args.get('MAC');
  const profiles = first(
    pod.profiles,
    cni?.netctl?.profiles,
    mesos.profiles,
    commaList(args.get('NETCTL_PROFILE')),
    config.profiles,
  );
  const pools = first(
    pod.pools,
    cni?.netctl?.pools,
    commaList(args.get('NETCTL_POOL')),
    config.pools,
    config.ipam?.pools,
  );
  return {
    ...id,
    netns: { open: netnsOpenPath(request), path: netnsPath(request) },
    profiles: profiles.map((profile) => parseName(profile, 'profile')),
    pools: pools.map((pool) => parseName(pool, 'pool')),
    addresses: askedAddresses(ips),
    mac: mac ? parseMac(mac) : null,
    mtuBytes: checkedMtu(config.mtu ?? 0),
    owner: owner ? parseOwner(owner) : null,
    reservation: reservation ? parseReservation(reservation) : null,
    ...release(
      cni?.netctl?.onRelease ?? args.get('NETCTL_ON_RELEASE'),
      cni?.netctl?.retainSeconds ?? args.get('NETCTL_RETAIN_SECONDS'),
      owner ? 'immutable' : 'delete',
    ),
    extraSources: (cni?.netctl?.extraSources ?? []).map((net) => parseAddressOrCidr(net, 'extraSources')),
    labels: parseLabels(labelsTold(config, args)),
    rateLimits: bandwidthOf(config),
    portMappings: portMappingsOf(config),
    attachedBy: request.env.get('NETCTL_ATTACHED_BY') === 'operator' ? 'operator' : 'runtime',
    macvlan: before === null && !isIpamOnly(request) ? macvlanOf(config) : null,
    foreignLink: isIpamOnly(request)
      ? { hostInterface: null }
      : before && { hostInterface: before.hostInterface },
    foreignIpam: foreignIpam(before, delegate && { delegate, id, netnsPath: netnsPath(request) }, hearDns),
  };
}

/** The addresses of a link that was there before us come with it. */
function foreignIpam(
  before: LinkBefore | null,
  call: DelegateCall | null,
  hearDns: (dns: Dns) => void,
): ForeignIpam | null {
  if (before !== null) return { allocate: async () => before.addresses, delegate: null };
  return call && { allocate: () => allocate(call, hearDns), delegate: call.delegate };
}

/** `ipam.type` names another IPAM plugin; our own name, or none, means our pools. */
function delegateOf(
  request: Request,
  config: Pick<Config & DeletionConfig, 'ipam' | 'mode'>,
): Delegate | null {
  const type = config.ipam?.type;
  if (!type || ownIpam.has(type) || isIpamOnly(request)) return null;
  if (type.includes('/'))
    throw new CniError(7, `invalid network config: ipam.type: ${JSON.stringify(type)} is not a name`);
  const path = request.env.get('CNI_PATH') ?? '';
  const delegate = { type, path, args: request.env.get('CNI_ARGS') ?? '', config: request.stdin };
  if (needsLink(delegate) && config.mode !== 'macvlan')
    throw new CniError(
      7,
      `invalid network config: ipam.type: ${type} only with mode macvlan: it asks on the wire`,
    );
  return delegate;
}

const ownIpam: ReadonlySet<string> = new Set(['netctl', 'netctl-ipam']);

function answerForm(request: Request, config: Config, ipamDns: () => Dns): AnswerForm {
  return {
    dns: dnsOf(config),
    ipamDns,
    ipamRoutes: isIpamOnly(request) ? (config.ipam?.routes ?? []) : null,
    before: config.prevResult ? previousResult(request.stdin) : null,
  };
}

/** @throws INVALID naming the label */
function parseLabels(labels: Record<string, string>): Record<string, string> {
  if (Object.keys(labels).length === 0) return labels;
  const parsed = labelsSchema.safeParse(labels);
  if (parsed.success) return parsed.data;
  const key = String(parsed.error.issues[0]?.path[0] ?? '');
  throw invalid(`label ${key.slice(0, 80)}`, labels[key], parsed.error.issues[0]?.message ?? 'another label');
}

/** Ranges are for who gives the addresses. */
function refuseUnsupported(config: Config, delegate: Delegate | null): void {
  for (const field of ['ipRanges', 'deviceID', 'infinibandGUID'] as const)
    if (config.runtimeConfig?.[field]?.length && (field !== 'ipRanges' || delegate === null))
      throw unsupported(`runtimeConfig.${field}`, config.runtimeConfig[field]);
}

/** CNI convention `bandwidth`: bits, `ingress` is what the container receives; no rate or 0 is no limit. */
function bandwidthOf({ runtimeConfig }: Config): RateLimits | null {
  if (!runtimeConfig?.bandwidth) return null;
  const { ingressRate, ingressBurst, egressRate, egressBurst } = runtimeConfig.bandwidth;
  const limits = {
    inBitsPerSecond: ingressRate || null,
    outBitsPerSecond: egressRate || null,
    inBurstBytes: burstBytes(ingressBurst),
    outBurstBytes: burstBytes(egressBurst),
  };
  return orNone(checkJson(rateLimitsSchema, limits, 'runtimeConfig.bandwidth'));
}

/** CNI convention `portMappings`: without a port of the host, a port is not published. */
function portMappingsOf({ runtimeConfig }: Config): PortMapping[] {
  if (!runtimeConfig?.portMappings?.length) return [];
  const mappings = runtimeConfig.portMappings
    .filter(({ hostPort }) => hostPort)
    .map(({ hostPort, containerPort, protocol, hostIP }) => ({
      protocol: protocol?.toLowerCase() || 'tcp',
      hostPort,
      containerPort,
      hostIP: hostIP ? checkHostAddress(hostIP, 'runtimeConfig.portMappings.hostIP') : null,
    }));
  return checkJson(portMappingsSchema, mappings, 'runtimeConfig.portMappings');
}

/** Runtimes that have no burst to say give the largest number that they have, which no bucket is meant to hold. */
function burstBytes(bits: number | null | undefined): number | null {
  return bits && bits < 2 ** 31 - 1 ? Math.ceil(bits / 8) : null;
}

const unsupported = (field: string, value: unknown): CniError =>
  new CniError(2, `unsupported field ${field}: ${JSON.stringify(value).slice(0, 200)}`);

function checkedMtu(mtu: number): number {
  if (mtu !== 0 && mtu < 68) throw invalid('mtu', mtu, '0 (the default) or 68 to 65535');
  return mtu;
}

/** With or without the length of a prefix, which an address for host-local has. @throws INVALID */
function askedAddresses(texts: readonly string[]): Address[] {
  const addresses = texts.map((text) => {
    const [ip, length] = text.split('/', 2);
    const address = parseAddress(ip, 'ip');
    if (length !== undefined && !(/^\d+$/.test(length) && Number(length) <= addressBits(familyOf(address))))
      throw invalid('ip', text, 'an address, with or without the length of its prefix');
    return address;
  });
  const twice = addresses.find((address, at) => addresses.indexOf(address) < at);
  if (twice !== undefined) throw invalid('ip', twice, 'each address once');
  return addresses;
}

/** CHECK must be given the result of ADD, in the format of the configuration's version. */
function expectation(request: Request, config: Config): { addresses: Address[]; netnsOpen: string } {
  const schema = z.object({
    ips: z.array(z.object({ address: z.string(), interface: z.int().nullish() })).nullish(),
  });
  if (!config.prevResult) throw new CniError(7, 'required prevResult missing');
  const parsed = schema.safeParse(config.prevResult);
  if (!parsed.success)
    throw new CniError(7, 'invalid network config: prevResult: expected a CNI result with ips');
  return {
    addresses: (parsed.data.ips ?? []).map((ip) =>
      parseAddress(ip.address.split('/')[0], 'prevResult.ips.address'),
    ),
    netnsOpen: netnsOpenPath(request),
  };
}

function validAttachments(config: Config): Omit<AttachmentId, 'network'>[] | null {
  // libcni writes the list twice, since the text of the specification had another name for it.
  const key = (['cni.dev/valid-attachments', 'cni.dev/attachments'] as const).find((each) => each in config);
  if (key === undefined) return null;
  return (config[key] ?? []).map(({ containerID, ifname }) => ({
    containerId: containerID,
    interface: ifname,
  }));
}

function parseOwner(text: string): Owner {
  const [tenant, app, instance, ...more] = text.split('/');
  const parsed = ownerSchema.safeParse({ tenant, app, instance });
  if (!parsed.success || more.length > 0) throw invalid('owner', text, 'tenant/app/instance');
  return parsed.data;
}

function parseReservation(text: string): string {
  if (!/^[A-Za-z0-9_-]{1,64}$/.test(text))
    throw invalid('reservation', text, 'the id of a reservation: 1 to 64 letters, digits, "-" or "_"');
  return text;
}

/** @param fallback who names an owner wants the address again for it */
function release(
  policy: string | undefined,
  seconds: string | number | undefined,
  fallback: ReleasePolicy,
): Pick<AttachRequest, 'onRelease' | 'retainSeconds'> {
  const onRelease = policy ? releasePolicies.find((each) => each === policy) : fallback;
  if (onRelease === undefined) throw invalid('onRelease', policy, releasePolicies.join(', '));
  if (seconds === undefined || seconds === '') return { onRelease, retainSeconds: null };
  const retainSeconds = Number(seconds);
  if (onRelease !== 'ttl')
    throw invalid('retainSeconds', seconds, `no value with onRelease ${onRelease}: it is for ttl`);
  if (!Number.isInteger(retainSeconds) || retainSeconds < 1 || retainSeconds > longestTtlSeconds)
    throw invalid('retainSeconds', seconds, `a whole number of seconds from 1 to ${longestTtlSeconds}`);
  return { onRelease, retainSeconds };
}

/** What the runtime says stands before what the configuration says. */
function dnsOf(config: Config): Dns {
  const { servers, searches, options } = config.runtimeConfig?.dns ?? {};
  return dnsTold({
    domain: config.dns?.domain,
    nameservers: first(servers, config.dns?.nameservers),
    search: first(searches, config.dns?.search),
    options: first(options, config.dns?.options),
  });
}

/** The first list that says something. */
function first(...lists: (readonly string[] | null | undefined)[]): readonly string[] {
  return (
    lists.find((candidate) => candidate !== null && candidate !== undefined && candidate.length > 0) ?? []
  );
}
