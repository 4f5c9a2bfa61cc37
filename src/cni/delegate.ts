/**
 * Delegation: calls another IPAM plugin (host-local, static, …) as the runtime would call it (CNI specification 1.1.0, section 4).
 *
 * In: the plugin's name, where plugins are, the configuration as we got it. Out: the addresses it gave. Never: a program outside
 * CNI_PATH, the agent's own environment handed on, a plugin that is waited for longer than the caller waits for us.
 */
import { existsSync } from 'node:fs';
import { isAbsolute, join } from 'node:path';
import { z } from 'zod';
import { NetctlError } from '../lib/errors.ts';
import { ProgramError, run } from '../lib/process.ts';
import type { AttachmentId, GivenAddress } from '../model/attachment.ts';
import { type Delegate, needsLink } from '../model/delegate.ts';
import {
  type Address,
  addressValue,
  type Cidr,
  cidrBase,
  everything,
  type Family,
  familyOf,
  hostCidr,
  networkOf,
  parseAddress,
  parseCidr,
} from '../model/ip.ts';
import { mostRoutes, type WireRoute } from '../model/macvlan.ts';
import { dnsSchema } from './config.ts';
import { type Dns, dnsTold } from './result.ts';

/** Below the whole call's limit in native/shim/PROTOCOL.md. */
const timeLimitsMs = {
  ADD: 60_000,
  DEL: 15_000,
  CHECK: 15_000,
  GC: 20_000,
  STATUS: 1_500,
  VERSION: 1_500,
} as const;
type Command = keyof typeof timeLimitsMs;

/** What one attachment is to a plugin. */
export interface DelegateCall {
  readonly delegate: Delegate;
  readonly id: AttachmentId;
  /** As the runtime gave it; may be empty but for ADD. */
  readonly netnsPath: string;
}

/** @param hear of what it says of DNS @throws NetctlError with the plugin's own words */
export async function allocate(call: DelegateCall, hear: (dns: Dns) => void): Promise<GivenAddress[]> {
  try {
    const said = await execute('ADD', call.delegate, call);
    const given = parseResult(call.delegate.type, said);
    hear(parseDns(said));
    if (given.length > 0) return given;
    throw new NetctlError('POOL_EXHAUSTED', `IPAM plugin ${call.delegate.type} gave no address`);
  } catch (error) {
    // Section 4: whoever fails an ADD is sent a DEL, for what it may have done by then. The failure of the ADD is what is told.
    await release(call).catch(() => undefined);
    throw error;
  }
}

/** @throws NetctlError with the plugin's own words */
export async function release(call: DelegateCall): Promise<void> {
  await execute('DEL', call.delegate, call);
}

/**
 * Whether the plugin may be asked to CHECK. A `dhcp` before 1.2.0 (Debian has 1.1.1) takes a second lease for each CHECK, which nobody gives
 * back; those that know version 1.1.0 of the specification (1.5.0) are newer than that.
 * @throws NetctlError with the plugin's own words
 */
export async function mayCheck(delegate: Delegate): Promise<boolean> {
  if (!needsLink(delegate)) return true;
  const about = versionsSchema.safeParse(json(await execute('VERSION', delegate, null)));
  return about.success && about.data.supportedVersions.includes('1.1.0');
}

/** CHECK, and those about no single attachment: GC and STATUS. @throws NetctlError with the plugin's own words */
export async function relay(
  command: 'CHECK' | 'GC' | 'STATUS',
  delegate: Delegate,
  about: Omit<DelegateCall, 'delegate'> | null,
): Promise<void> {
  await execute(command, delegate, about);
}

async function execute(
  command: Command,
  { type, path, args, config }: Delegate,
  about: Omit<DelegateCall, 'delegate'> | null,
): Promise<string> {
  const program = find(type, path);
  const env = {
    CNI_COMMAND: command,
    CNI_CONTAINERID: about?.id.containerId ?? '',
    CNI_NETNS: about?.netnsPath ?? '',
    CNI_IFNAME: about?.id.interface ?? '',
    CNI_ARGS: args,
    CNI_PATH: path,
    PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
  };
  try {
    const { stdout } = await run(program, [], { stdin: config, timeoutMs: timeLimitsMs[command], env });
    return stdout;
  } catch (error) {
    throw error instanceof ProgramError ? failure(type, command, error) : error;
  }
}

/** @throws INVALID */
function find(type: string, path: string): string {
  const directories = path.split(':').filter(isAbsolute);
  const found = type.includes('/')
    ? undefined
    : directories.map((directory) => join(directory, type)).find((file) => existsSync(file));
  if (found !== undefined) return found;
  throw new NetctlError(
    'INVALID',
    `ipam.type: there is no plugin ${JSON.stringify(type)} in CNI_PATH ${path}`,
    {
      field: 'ipam.type',
      value: type,
    },
  );
}

const errorSchema = z.object({ code: z.int(), msg: z.string(), details: z.string().optional() });

/** A plugin says what is wrong on its standard output. */
function failure(type: string, command: Command, { stdout, message }: ProgramError): NetctlError {
  const said = errorSchema.safeParse(json(stdout));
  const words = said.success ? [said.data.msg, said.data.details].filter(Boolean).join(': ') : message;
  // 11: try again later (CNI specification 1.1.0, section 5).
  const code = said.success && said.data.code === 11 ? 'TRY_AGAIN' : 'CONFLICT';
  return new NetctlError(code, `IPAM plugin ${type} (${command}): ${words}`, { plugin: type });
}

const versionsSchema = z.object({ supportedVersions: z.array(z.string()) });
const route = z.object({ dst: z.string(), gw: z.string().nullish() });
const routes = z.array(route).max(mostRoutes).nullish();
const entry = z.object({ address: z.string(), gateway: z.string().nullish() });
const legacyEntry = z.object({ ip: z.string(), gateway: z.string().nullish(), routes });
const resultSchema = z.object({
  ips: z.array(entry).nullish(),
  routes,
  ip4: legacyEntry.nullish(),
  ip6: legacyEntry.nullish(),
});

/** Of every version of the specification; routes are with the first address of their family. @throws INVALID when it is not a result */
export function parseResult(type: string, text: string): GivenAddress[] {
  const parsed = resultSchema.safeParse(json(text));
  if (!parsed.success)
    throw new NetctlError('INVALID', `IPAM plugin ${type}: its answer is not a CNI result`);
  const { ips, ip4, ip6 } = parsed.data;
  const legacy = [ip4, ip6].flatMap((one) => (one ? [{ address: one.ip, gateway: one.gateway }] : []));
  const given = [...(ips ?? []), ...legacy].map(({ address, gateway }) => givenAddress(address, gateway));
  const told = [...(parsed.data.routes ?? []), ...(ip4?.routes ?? []), ...(ip6?.routes ?? [])];
  return given.map((one, at) => {
    const family = familyOf(one.address);
    const isFirst = given.findIndex(({ address }) => familyOf(address) === family) === at;
    const own = told.map((each) => givenRoute(type, each, one.gateway)).filter(isOf(family));
    return isFirst && own.length > 0 ? { ...one, routes: whole(type, own, one) } : one;
  });
}

/** What it says of DNS, as far as it has the form; empty lists say nothing. */
function parseDns(text: string): Dns {
  const parsed = z.object({ dns: dnsSchema }).safeParse(json(text));
  return parsed.success ? dnsTold(parsed.data.dns) : {};
}

/** @throws INVALID */
function givenRoute(type: string, { dst, gw }: z.infer<typeof route>, gateway: Address | null): WireRoute {
  const by = gw ? parseAddress(gw, 'routes.gw') : gateway;
  // What a DHCP server says is on the wire itself.
  const isOnWire = by === null || addressValue(by) === 0n;
  return { destination: destinationOf(type, dst), gateway: isOnWire ? null : by };
}

/** Option 33 of DHCP names addresses without lengths, and the plugin writes the length of the class even behind a host's. */
function destinationOf(type: string, dst: string): Cidr {
  const [base, length = ''] = dst.split('/');
  if (!needsLink({ type }) || !/^(8|16|24)$/.test(length)) return parseCidr(dst, 'routes.dst');
  const address = parseAddress(base, 'routes.dst');
  const network = networkOf(address, Number(length));
  return cidrBase(network) === address ? network : hostCidr(address);
}

function isOf(family: Family): (route: WireRoute) => boolean {
  return ({ destination }) => familyOf(destination) === family;
}

/** A DHCP server that says routes has said all (RFC 3442); the routes of others are beside the one by the gateway. */
function whole(type: string, told: readonly WireRoute[], { address, gateway }: GivenAddress): WireRoute[] {
  const destination = everything[familyOf(address)];
  const isMissing = !told.some((each) => each.destination === destination);
  if (needsLink({ type }) || gateway === null || !isMissing) return [...told];
  return [...told, { destination, gateway }];
}

/** @param text `10.0.0.5/24` @throws INVALID */
export function givenAddress(text: string, gateway: string | null | undefined): GivenAddress {
  const [ip, length] = text.split('/');
  const address = parseAddress(ip, 'ips.address');
  const most = familyOf(address) === 4 ? 32 : 128;
  const prefixLength = length === undefined ? most : Number(length);
  if (!Number.isInteger(prefixLength) || prefixLength < 0 || prefixLength > most)
    throw new NetctlError(
      'INVALID',
      `ips.address: ${JSON.stringify(text)} is not an address with a prefix length`,
    );
  return { address, prefixLength, gateway: gateway ? parseAddress(gateway, 'ips.gateway') : null };
}

function json(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
