/**
 * The result of the plugin before us in a list: whether it has made the interface already, and what must be in our answer too.
 *
 * In: `prevResult` of the configuration. Out: the interface that we only police; the result to add ours to. Never: an interface of
 * another container taken for this one's.
 */
import { z } from 'zod';
import { type GivenAddress, hostInterfacePrefix } from '../model/attachment.ts';
import { parseInterfaceName } from '../model/names.ts';
import type { Config } from './config.ts';
import { givenAddress } from './delegate.ts';
import { CniError } from './errors.ts';

/** An interface that the plugin before us has made. */
export interface LinkBefore {
  /** The host's end, where rules can name it. */
  readonly hostInterface: string;
  readonly mac: string | null;
  readonly addresses: readonly GivenAddress[];
}

const previousSchema = z.object({
  interfaces: z
    .array(z.object({ name: z.string(), mac: z.string().nullish(), sandbox: z.string().nullish() }))
    .nullish(),
  ips: z
    .array(z.object({ address: z.string(), gateway: z.string().nullish(), interface: z.int().nullish() }))
    .nullish(),
});

/** null where the interface that we are asked for is ours to make. @throws CniError 2 when policy could not be enforced on it */
export function linkBefore(config: Config, containerInterface: string): LinkBefore | null {
  if (config.prevResult === undefined || config.prevResult === null) return null;
  const parsed = previousSchema.safeParse(config.prevResult);
  if (!parsed.success) throw new CniError(7, 'invalid network config: prevResult: expected a CNI result');
  const interfaces = parsed.data.interfaces ?? [];
  const index = interfaces.findIndex(({ name, sandbox }) => name === containerInterface && Boolean(sandbox));
  if (index < 0) return null;
  const host =
    interfaces.findLast(({ sandbox }, at) => !sandbox && at < index) ??
    interfaces.find(({ sandbox }) => !sandbox);
  if (host === undefined)
    throw new CniError(
      2,
      `unsupported field prevResult: ${containerInterface} has no end on the host, so netctl could not enforce policy on it`,
    );
  if (host.name.startsWith(hostInterfacePrefix))
    throw new CniError(
      7,
      `invalid network config: prevResult: ${host.name} is netctl's own: it can stand in a list once`,
    );
  const addresses = (parsed.data.ips ?? []).filter((ip) => (ip.interface ?? index) === index);
  if (addresses.length === 0)
    throw new CniError(7, `invalid network config: prevResult: ${containerInterface} has no address in ips`);
  return {
    hostInterface: parseInterfaceName(host.name, 'prevResult.interfaces.name'),
    mac: interfaces[index]?.mac ?? null,
    addresses: addresses.map(({ address, gateway }) => givenAddress(address, gateway)),
  };
}

/** As it came, since others may have put into it what we do not know. */
export function previousResult(stdin: string): Record<string, unknown> | null {
  const config = JSON.parse(stdin) as Record<string, unknown>;
  const key = Object.keys(config).find((candidate) => candidate.toLowerCase() === 'prevresult');
  const value = key === undefined ? null : config[key];
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : null;
}
