/**
 * The options that netctl knows on Docker's command line: `-o KEY=VALUE` of a network, `driver-opt=KEY=VALUE` of a container on it, and
 * a container's `-p`.
 *
 * In: options as Docker hands them over, its own among them. Out: checked values. Never: an option of ours that is misspelt and silently
 * without effect.
 */
import { z } from 'zod';
import { invalid } from '../lib/errors.ts';
import type { AttachRequest } from '../model/attachment.ts';
import { checkJson } from '../model/check.ts';
import { parseName } from '../model/names.ts';
import {
  hostPortText,
  type PortMapping,
  type PortProtocol,
  portMappingsSchema,
  portProtocolNumbers,
  portProtocols,
} from '../model/port-mapping.ts';
import { ownerSchema, type ReleasePolicy, releasePolicies } from '../model/records.ts';

/** Options by name, in Docker's JSON. */
export type Options = Readonly<Record<string, unknown>>;

export type Wanted = Pick<
  AttachRequest,
  'profiles' | 'owner' | 'onRelease' | 'retainSeconds' | 'labels' | 'mtuBytes' | 'portMappings'
>;

/** moby, libnetwork/types: PortBinding. */
const bindings = z
  .array(
    z.object({
      Proto: z.int(),
      Port: z.int(),
      HostIP: z.string().nullish(),
      HostPort: z.int(),
      HostPortEnd: z.int().nullish(),
    }),
  )
  .nullish();

const prefix = 'netctl.';
const mtuOption = 'com.docker.network.driver.mtu';
const portsOption = 'com.docker.network.portmap';
const forContainers = ['profile', 'owner', 'labels', 'on-release', 'retain-seconds'] as const;
type Key = (typeof forContainers)[number] | 'network' | 'pool';

/** @throws INVALID for an option that no driver knows */
export function checkNetworkOptions(options: Options): void {
  for (const key of Object.keys(options)) {
    if (key.startsWith('com.docker.')) continue;
    refuseUnknown(key, [...forContainers, 'network']);
  }
  wanted(options, {});
}

/** The container's options come before its network's. @throws INVALID naming the option */
export function wanted(network: Options, container: Options): Wanted {
  for (const key of Object.keys(container)) if (key.startsWith(prefix)) refuseUnknown(key, forContainers);
  const option = (key: Key): string | undefined =>
    textOf(container, prefix + key) ?? textOf(network, prefix + key);
  const owner = option('owner');
  return {
    profiles: listOf(option('profile')).map((name) => parseName(name, `${prefix}profile`)),
    owner: owner === undefined ? null : parseOwner(owner),
    ...releaseOf(
      option('on-release'),
      option('retain-seconds'),
      owner === undefined ? 'delete' : 'immutable',
    ),
    labels: Object.fromEntries(listOf(option('labels')).map(labelOf)),
    mtuBytes: mtuOf(textOf(container, mtuOption) ?? textOf(network, mtuOption)),
    portMappings: publishedBy(container[portsOption]),
  };
}

/** By what name netctl knows the network. Docker tells no driver its own name for it. */
export function networkName(options: Options, networkId: string): string {
  const name = textOf(options, `${prefix}network`);
  return name === undefined ? `docker-${networkId.slice(0, 12)}` : parseName(name, `${prefix}network`);
}

/** Of `--ipam-opt`. */
export function poolNames(options: Options): string[] {
  for (const key of Object.keys(options)) refuseUnknown(key, ['pool']);
  return listOf(textOf(options, `${prefix}pool`)).map((name) => parseName(name, `${prefix}pool`));
}

function refuseUnknown(key: string, known: readonly Key[]): void {
  if (known.some((name) => key === prefix + name)) return;
  throw invalid('option', key, known.map((name) => prefix + name).join(', '));
}

function textOf(options: Options, key: string): string | undefined {
  const value = options[key];
  return typeof value === 'string' && value !== '' ? value : undefined;
}

const listOf = (text: string | undefined): string[] => (text ?? '').split(',').filter((part) => part !== '');

function parseOwner(text: string): AttachRequest['owner'] {
  const [tenant, app, instance, ...more] = text.split('/');
  const parsed = ownerSchema.safeParse({ tenant, app, instance });
  if (!parsed.success || more.length > 0) throw invalid(`${prefix}owner`, text, 'tenant/app/instance');
  return parsed.data;
}

function releaseOf(
  policy: string | undefined,
  seconds: string | undefined,
  fallback: ReleasePolicy,
): Pick<Wanted, 'onRelease' | 'retainSeconds'> {
  const onRelease = policy === undefined ? fallback : releasePolicies.find((each) => each === policy);
  if (onRelease === undefined) throw invalid(`${prefix}on-release`, policy, releasePolicies.join(', '));
  if (seconds === undefined) return { onRelease, retainSeconds: null };
  if (onRelease !== 'ttl' || !/^[1-9]\d{0,8}$/.test(seconds))
    throw invalid(`${prefix}retain-seconds`, seconds, `a number of seconds, with ${prefix}on-release=ttl`);
  return { onRelease, retainSeconds: Number(seconds) };
}

function labelOf(pair: string): [string, string] {
  const at = pair.indexOf(':');
  if (at < 1) throw invalid(`${prefix}labels`, pair, 'key:value,key:value');
  return [pair.slice(0, at), pair.slice(at + 1)];
}

/** Docker leaves the choice of a port to its driver, and is not told which it was: so each must be named. @throws INVALID */
function publishedBy(given: unknown): PortMapping[] {
  const mappings = (checkJson(bindings, given, portsOption) ?? []).map(
    ({ Proto, Port, HostIP, HostPort, HostPortEnd }) => {
      const mapping = {
        protocol:
          portProtocols.find((name) => portProtocolNumbers[name] === Proto) ??
          (String(Proto) as PortProtocol),
        hostPort: HostPort,
        containerPort: Port,
        hostIP: HostIP || null,
      };
      if (HostPort === 0 || (HostPortEnd || HostPort) !== HostPort)
        throw invalid(
          '-p',
          hostPortText({ ...mapping, hostPort: Port, hostIP: null }),
          'one port of the host for it, as in -p 8080:80',
        );
      return mapping;
    },
  );
  return checkJson(portMappingsSchema, mappings, '-p');
}

function mtuOf(text: string | undefined): number {
  if (text === undefined) return 0;
  const mtu = Number(text);
  if (!Number.isInteger(mtu) || mtu < 68 || mtu > 65535) throw invalid(mtuOption, text, '68 to 65535');
  return mtu;
}
