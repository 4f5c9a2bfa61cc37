/**
 * The network configuration of a CNI call, as the runtime hands it to a plugin.
 *
 * In: text from standard input. Out: checked values, and the whole as it came for plugins that we call ourselves. Never: a dependence
 * on the spelling of keys (Go folds case, and runtimes rely on it), a value of the wrong shape.
 */
import { z } from 'zod';
import { checkJson, exactObject } from '../model/check.ts';
import { CniError } from './errors.ts';
import { supportedVersions } from './result.ts';

const texts = z.array(z.string()).nullish();

/** Without one, the oldest, as the reference plugins have it. */
const version = z.preprocess((given) => given || '0.1.0', z.enum(supportedVersions));

const networkName = z
  .string()
  .regex(/^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/, 'a network name of letters, digits, "_", "." and "-"');

const attachments = z.array(z.object({ containerID: z.string(), ifname: z.string() })).nullish();

/** mesos.proto, NetworkInfo; the port mapper that calls us sees to its ports. */
const networkInfo = z.object({
  ip_addresses: z.array(z.object({ ip_address: z.string().nullish() })).nullish(),
  groups: texts,
  labels: z
    .object({ labels: z.array(z.object({ key: z.string(), value: z.string().nullish() })).nullish() })
    .nullish(),
});

/** In configurations and in results. */
export const dnsSchema = z.object({
  nameservers: texts,
  domain: z.string().nullish(),
  search: texts,
  options: texts,
});

const configSchema = z.object({
  cniVersion: version,
  name: networkName,
  mode: z.enum(['routed', 'macvlan']).nullish(),
  parent: z.string().nullish(),
  vlan: z.int().min(0).max(4094).nullish(),
  macvlanMode: z.string().nullish(),
  hostAccess: z.string().nullish(),
  duplicateDetection: z.string().nullish(),
  gatewayCheck: z.string().nullish(),
  defaultRoute: z.boolean().nullish(),
  profiles: texts,
  pools: texts,
  mtu: z.int().min(0).max(65535).nullish(),
  dns: dnsSchema.nullish(),
  ipam: z
    .object({
      type: z.string().nullish(),
      pools: texts,
      routes: z.array(z.object({ dst: z.string(), gw: z.string().nullish() })).nullish(),
    })
    .nullish(),
  prevResult: z.unknown().optional(),
  runtimeConfig: z
    .object({
      ips: texts,
      mac: z.string().nullish(),
      dns: z.object({ servers: texts, searches: texts, options: texts }).nullish(),
      bandwidth: z
        .object({
          ingressRate: z.number().nullish(),
          ingressBurst: z.number().nullish(),
          egressRate: z.number().nullish(),
          egressBurst: z.number().nullish(),
        })
        .nullish(),
      portMappings: z
        .array(
          z.object({
            hostPort: z.int().nullish(),
            containerPort: z.int().nullish(),
            protocol: z.string().nullish(),
            hostIP: z.string().nullish(),
          }),
        )
        .nullish(),
      ipRanges: z.array(z.unknown()).nullish(),
      deviceID: z.string().nullish(),
      infinibandGUID: z.string().nullish(),
      'io.kubernetes.cri.pod-annotations': z.record(z.string(), z.string()).nullish(),
    })
    .nullish(),
  args: z
    .object({
      'org.apache.mesos': z.object({ network_info: networkInfo.nullish() }).nullish(),
      cni: z
        .object({
          ips: texts,
          labels: z.array(z.object({ key: z.string(), value: z.string() })).nullish(),
          netctl: exactObject({
            profiles: texts,
            pools: texts,
            owner: z.string().nullish(),
            reservation: z.string().nullish(),
            onRelease: z.string().nullish(),
            retainSeconds: z.union([z.string(), z.number()]).nullish(),
            extraSources: texts,
          }).nullish(),
        })
        .nullish(),
    })
    .nullish(),
  'cni.dev/valid-attachments': attachments,
  'cni.dev/attachments': attachments,
});
export type Config = z.infer<typeof configSchema>;

/** Below another main plugin: the words of its own, `mode` and `mtu` among them, are none of ours. */
const ipamSchema = configSchema.omit({
  mode: true,
  parent: true,
  vlan: true,
  macvlanMode: true,
  hostAccess: true,
  duplicateDetection: true,
  gatewayCheck: true,
  defaultRoute: true,
  profiles: true,
  mtu: true,
  dns: true,
});

const deletionSchema = z.object({
  cniVersion: version,
  name: networkName,
  mode: configSchema.shape.mode.catch(null),
  ipam: z
    .object({ type: z.string().nullish().catch(null) })
    .nullish()
    .catch(null),
});
export type DeletionConfig = z.infer<typeof deletionSchema>;

const knownKeys = [
  'cniVersion',
  'prevResult',
  'runtimeConfig',
  'portMappings',
  'hostPort',
  'containerPort',
  'hostIP',
  'ipRanges',
  'deviceID',
  'infinibandGUID',
  'ingressRate',
  'ingressBurst',
  'egressRate',
  'egressBurst',
  'containerID',
  'extraSources',
  'onRelease',
  'retainSeconds',
  'macvlanMode',
  'hostAccess',
  'duplicateDetection',
  'gatewayCheck',
  'defaultRoute',
];
const foldedKeys = new Map(knownKeys.map((key) => [key.toLowerCase(), key]));

/** @param isIpamOnly the configuration is another main plugin's @throws CniError 6 or 7 naming the field */
export function parseConfig(stdin: string, isIpamOnly: boolean): Config {
  return parse<Config>(isIpamOnly ? ipamSchema : configSchema, stdin);
}

/** What a DEL goes by: what else the configuration says may be wrong by now, and that keeps no container from going. @throws as parseConfig */
export function parseDeletionConfig(stdin: string): DeletionConfig {
  return parse(deletionSchema, stdin);
}

function parse<T>(schema: z.ZodType<T>, stdin: string): T {
  let json: unknown;
  try {
    json = JSON.parse(stdin);
  } catch (error) {
    throw new CniError(6, `error unmarshall network config: ${(error as Error).message}`);
  }
  try {
    return checkJson(schema, fold(json, 8));
  } catch (error) {
    throw new CniError(7, `invalid network config: ${(error as Error).message}`);
  }
}

/** Go matches JSON keys without regard to case; so does this, for objects down to `depth`. */
function fold(value: unknown, depth: number): unknown {
  if (typeof value !== 'object' || value === null || depth === 0) return value;
  if (Array.isArray(value)) return value.map((item) => fold(item, depth - 1));
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => {
      const lower = key.toLowerCase();
      return [foldedKeys.get(lower) ?? lower, fold(item, depth - 1)];
    }),
  );
}
