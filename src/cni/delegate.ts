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
import type { Delegate } from '../model/delegate.ts';
import { familyOf, parseAddress } from '../model/ip.ts';

/** Below the whole call's limit in native/shim/PROTOCOL.md. */
const timeLimitsMs = { ADD: 60_000, DEL: 15_000, CHECK: 15_000, GC: 20_000, STATUS: 1_500 } as const;
type Command = keyof typeof timeLimitsMs;

/** What one attachment is to a plugin. */
export interface DelegateCall {
  readonly delegate: Delegate;
  readonly id: AttachmentId;
  /** As the runtime gave it; may be empty but for ADD. */
  readonly netnsPath: string;
}

/** @throws NetctlError with the plugin's own words */
export async function allocate(call: DelegateCall): Promise<GivenAddress[]> {
  try {
    const given = parseResult(call.delegate.type, await execute('ADD', call.delegate, call));
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

const entry = z.object({ address: z.string(), gateway: z.string().nullish() });
const legacyEntry = z.object({ ip: z.string(), gateway: z.string().nullish() });
const resultSchema = z.object({
  ips: z.array(entry).nullish(),
  ip4: legacyEntry.nullish(),
  ip6: legacyEntry.nullish(),
});

/** Of every version of the specification. @throws INVALID when it is not a result */
export function parseResult(type: string, text: string): GivenAddress[] {
  const parsed = resultSchema.safeParse(json(text));
  if (!parsed.success)
    throw new NetctlError('INVALID', `IPAM plugin ${type}: its answer is not a CNI result`);
  const { ips, ip4, ip6 } = parsed.data;
  const legacy = [ip4, ip6].flatMap((one) => (one ? [{ address: one.ip, gateway: one.gateway }] : []));
  return [...(ips ?? []), ...legacy].map(({ address, gateway }) => givenAddress(address, gateway));
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
