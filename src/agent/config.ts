/**
 * The agent's configuration: one table of keys, read once from flags, environment, file and defaults (in this order of
 * precedence) into one frozen value that also knows where each part came from.
 *
 * In: argv, the environment, the text of the YAML file. Out: Config and its explanation for `netctl config show`. Never: a key
 * that nobody reads, a value unchecked, another reader of the environment.
 */
import { parseArgs } from 'node:util';
import { parse as parseYaml } from 'yaml';
import { invalid, NetctlError } from '../lib/errors.ts';
import type { Address } from '../model/ip.ts';
import { options } from './config-options.ts';

export interface Config {
  readonly node: {
    readonly name: string;
    readonly address4: Address | null;
    readonly address6: Address | null;
    readonly asNumber: number | null;
    readonly interface: string | null;
    readonly labels: Readonly<Record<string, string>>;
  };
  readonly datastore: {
    readonly type: 'embedded' | 'etcd';
    readonly endpoints: readonly string[];
    readonly prefix: string;
    readonly ca: string | null;
    readonly cert: string | null;
    readonly key: string | null;
    readonly username: string | null;
    readonly passwordFile: string | null;
  };
  readonly dataplane: {
    readonly policy: 'auto' | 'nftables' | 'iptables';
    readonly iptablesBackend: 'auto' | 'nft' | 'legacy';
    /** Rules of others may stand above our jumps in iptables. */
    readonly foreignFirst: boolean;
    readonly endpointToHost: 'drop' | 'accept' | 'return';
    readonly macvlanPrivileged: 'flag' | 'refuse';
    /** `tcp:22`; likewise failsafeOutbound. */
    readonly failsafeInbound: readonly string[];
    readonly failsafeOutbound: readonly string[];
    /** 0: that of the interface that has the node's address. */
    readonly mtuBytes: number;
    readonly resyncSeconds: number;
    readonly confirmMassDeletion: boolean;
  };
  readonly ipam: {
    /** 0: never by itself. */
    readonly collectSeconds: number;
    readonly collectGraceSeconds: number;
  };
  readonly api: {
    /** HOST:PORT; null: on the unix socket only. */
    readonly listen: string | null;
    readonly tls: {
      readonly cert: string | null;
      readonly key: string | null;
      readonly clientCa: string | null;
    };
  };
  readonly metrics: { readonly listen: string | null };
  readonly bgp: {
    readonly enabled: boolean;
    readonly birdPath: string;
    readonly listenPort: number;
  };
  /** Where Docker finds its plugin; null: nowhere. */
  readonly docker: { readonly socket: string | null };
  readonly log: { readonly level: 'debug' | 'info' | 'warn' | 'error'; readonly format: 'json' | 'text' };
  readonly runDir: string;
  readonly stateDir: string;
  readonly cniConfigDir: string;
}

export interface Setting {
  readonly key: string;
  readonly value: unknown;
  readonly source: 'flag' | 'environment' | 'file' | 'default';
}

export interface ConfigInput {
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Text of the file, or null where it does not exist. */
  readFile(path: string): string | null;
}

export const defaultConfigPath = '/etc/netctl/netctld.yaml';

/** @throws INVALID that names key, value and what is accepted; NOT_FOUND for a named file that is not there */
export function loadConfig(input: ConfigInput): { config: Config; settings: readonly Setting[] } {
  const flags = readFlags(input.argv);
  const file = readFile(input, flags);
  const settings = options.map((option): Setting => {
    const variable = `NETCTL_${option.flag.toUpperCase().replaceAll('-', '_')}`;
    const candidates: [Setting['source'], string, unknown][] = [
      ['flag', `--${option.flag}`, flags.get(option.flag)],
      ['environment', variable, input.env[variable]],
      ['file', option.key, file.get(option.key)],
    ];
    const [source, name, raw] = candidates.find(([, , value]) => value !== undefined) ?? [
      'default',
      option.key,
      option.fallback,
    ];
    return { key: option.key, value: option.parse(raw, name), source };
  });
  const config = nest(settings);
  checkDatastore(config);
  checkApi(config);
  return { config, settings };
}

/** What no single key can tell. */
function checkDatastore({ datastore }: Config): void {
  if (datastore.type === 'etcd' && datastore.endpoints.length === 0) {
    throw invalid('datastore.endpoints', [], 'at least one address when datastore.type is etcd');
  }
  const kinds = new Set(datastore.endpoints.map((url) => url.startsWith('https:')));
  if (kinds.size > 1) throw invalid('datastore.endpoints', datastore.endpoints, 'all http or all https');
  const files = [datastore.ca, datastore.cert].filter((file) => file !== null);
  if (files.length > 0 && !kinds.has(true)) {
    throw invalid(
      'datastore.endpoints',
      datastore.endpoints,
      'https addresses, since certificates are given',
    );
  }
  for (const [given, needed] of [
    ['cert', 'key'],
    ['key', 'cert'],
    ['username', 'passwordFile'],
    ['passwordFile', 'username'],
  ] as const) {
    if (datastore[given] !== null && datastore[needed] === null) {
      throw invalid(`datastore.${needed}`, null, `a value, since datastore.${given} is set`);
    }
  }
}

/** The API is never served over TCP in the clear. */
function checkApi({ api: { listen, tls } }: Config): void {
  for (const file of ['cert', 'key', 'clientCa'] as const) {
    if (listen !== null && tls[file] === null)
      throw invalid(
        `api.tls.${file}`,
        null,
        'a file, since api.listen is set: over TCP there is mutual TLS only',
      );
  }
}

function readFlags(argv: readonly string[]): Map<string, string> {
  const known = Object.fromEntries(
    options.map(({ flag, fallback }) => [
      flag,
      { type: typeof fallback === 'boolean' ? ('boolean' as const) : ('string' as const) },
    ]),
  );
  try {
    const { values } = parseArgs({
      args: [...argv],
      options: { ...known, config: { type: 'string' } },
      strict: true,
      allowNegative: true,
      allowPositionals: false,
    });
    return new Map(Object.entries(values).map(([flag, value]) => [flag, String(value)]));
  } catch (error) {
    throw new NetctlError('INVALID', `${(error as Error).message.split('.')[0]}: see netctld --help`);
  }
}

/** The file's keys as paths (`node.name`). A key that is not in the table is refused, with what is accepted at its place. */
function readFile(input: ConfigInput, flags: ReadonlyMap<string, string>): Map<string, unknown> {
  const named = flags.get('config') ?? input.env['NETCTL_CONFIG'];
  const path = named ?? defaultConfigPath;
  const text = input.readFile(path);
  if (text === null && named !== undefined)
    throw new NetctlError('NOT_FOUND', `--config: there is no file ${path}`);
  const values = new Map<string, unknown>();
  let document: unknown;
  try {
    document = parseYaml(text ?? '') ?? {};
  } catch (error) {
    throw new NetctlError(
      'INVALID',
      `${path}: not YAML: ${(error as Error).message.split('\n')[0]?.replace(/:$/, '')}`,
    );
  }
  collect(document, '', path, values);
  return values;
}

function collect(value: unknown, key: string, path: string, into: Map<string, unknown>): void {
  if (options.some((option) => option.key === key)) {
    into.set(key, value);
    return;
  }
  const below = options
    .filter((option) => key === '' || option.key.startsWith(`${key}.`))
    .map((option) => option.key);
  if (below.length === 0) {
    const parent = key.includes('.') ? `${key.slice(0, key.lastIndexOf('.'))}.` : '';
    const accepted = options.filter((option) => option.key.startsWith(parent)).map((option) => option.key);
    throw new NetctlError('INVALID', `${path}: unknown key ${key}: accepted are ${accepted.join(', ')}`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw invalid(`${path}: ${key === '' ? 'the file' : key}`, value, `an object with ${below.join(', ')}`);
  }
  for (const [name, inner] of Object.entries(value))
    collect(inner, key === '' ? name : `${key}.${name}`, path, into);
}

function nest(settings: readonly Setting[]): Config {
  const root: Record<string, unknown> = {};
  for (const { key, value } of settings) {
    const parts = key.split('.');
    const last = parts.pop() ?? key;
    let at = root;
    for (const part of parts) {
      at[part] ??= {};
      at = at[part] as Record<string, unknown>;
    }
    at[last] = value;
  }
  return root as unknown as Config;
}

/** By which the others, and its containers, know this host. */
export function nodeAddresses({ node: { address4, address6 } }: Config): Address[] {
  return [address4, address6].filter((address) => address !== null);
}
