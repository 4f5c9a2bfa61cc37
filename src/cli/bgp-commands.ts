/**
 * `netctl bgp …`: peers, the mesh of the nodes, the default AS; and which node reflects routes.
 *
 * In: arguments, files with passwords. Out: requests to the API and what they answer. Never: a password as an argument, where the
 * list of processes and the shell's history would show it.
 */
import { readFileSync } from 'node:fs';
import type {
  BgpPeerAdd,
  BgpPeerItem,
  BgpSettingsItem,
  BgpSettingsSet,
  NodeSet,
} from '../api/bgp-record-schemas.ts';
import type { Broken, NodeItem, Removed } from '../api/schemas.ts';
import { type Changed, printChange } from './change.ts';
import { segment } from './client.ts';
import { type Arguments, type Command, type Context, type Option, UsageError } from './command.ts';
import { CliError } from './exit.ts';
import type { View } from './output.ts';
import { joined } from './table.ts';

const peerView: View<BgpPeerItem> = {
  kind: 'bgp-peer',
  name: ({ name }) => name,
  columns: [
    { header: 'NAME', value: ({ name }) => name },
    { header: 'PEER', value: ({ address, peerSelector }) => address ?? peerSelector },
    { header: 'AS', value: ({ asNumber }) => asNumber, alignRight: true },
    { header: 'OF', value: ({ node, nodeSelector }) => node ?? nodeSelector ?? 'all nodes' },
    { header: 'PASSWORD', value: ({ password }) => password },
    { header: 'IMPORT', value: ({ importFilters }) => joined(importFilters) },
    { header: 'EXPORT', value: ({ exportFilters }) => joined(exportFilters) },
    { header: 'PORT', value: ({ port }) => port, wide: true, alignRight: true },
    { header: 'HOLD', value: ({ holdSeconds }) => seconds(holdSeconds), wide: true, alignRight: true },
    { header: 'SOURCE', value: ({ sourceAddress }) => sourceAddress, wide: true },
    { header: 'LOCAL-AS', value: ({ localAsNumber }) => localAsNumber, wide: true, alignRight: true },
    { header: 'MULTIHOP', value: ({ multihop }) => yesNo(multihop), wide: true },
    { header: 'TTL-SECURITY', value: ({ ttlSecurityHops }) => ttlSecurityHops, wide: true, alignRight: true },
    { header: 'BFD', value: ({ bfd }) => yesNo(bfd), wide: true },
    { header: 'NEXT-HOP', value: ({ nextHop }) => nextHop, wide: true },
    { header: 'PREPEND', value: ({ prepend }) => prepend || null, wide: true, alignRight: true },
    { header: 'COMMUNITIES', value: ({ communities }) => joined(communities), wide: true },
    { header: 'MAX-PREFIXES', value: ({ maxPrefixes }) => maxPrefixes, wide: true, alignRight: true },
    { header: 'REVISION', value: ({ revision }) => revision, wide: true, alignRight: true },
  ],
};

const addOptions: Readonly<Record<string, Option>> = {
  address: { type: 'text', value: 'ADDRESS', help: 'of a router outside the cluster' },
  as: { type: 'number', value: 'N', help: 'AS number of that router' },
  port: { type: 'number', value: 'N', help: 'where it listens (default 179)' },
  node: { type: 'text', value: 'NODE', help: 'only this node talks to it' },
  'node-selector': {
    type: 'text',
    value: 'SELECTOR',
    help: 'only the nodes whose labels match, such as \'rack == "r1"\' (default: all nodes)',
  },
  'peer-selector': {
    type: 'text',
    value: 'SELECTOR',
    help: "instead of an address: the nodes of the cluster whose labels match, such as 'has(reflector)'",
  },
  'password-file': { type: 'text', value: 'FILE|-', help: 'file whose first line is the password (TCP MD5)' },
  hold: { type: 'number', value: 'SECONDS', help: 'hold time' },
  keepalive: { type: 'number', value: 'SECONDS', help: 'between two signs of life' },
  source: { type: 'text', value: 'ADDRESS', help: "on this side (default: the node's address)" },
  'local-as': { type: 'number', value: 'N', help: 'what the nodes call themselves towards it' },
  multihop: {
    type: 'text',
    value: 'on|off',
    help: 'it is behind routers (default: unless it is on a network of the node)',
  },
  'ttl-security': { type: 'number', value: 'HOPS', help: 'drop what came over more hops than this' },
  bfd: { type: 'text', value: 'on|off', help: 'watch it with BFD (default: off for routers outside)' },
  passive: { type: 'flag', help: 'wait for it to connect' },
  'next-hop': { type: 'text', value: 'self|keep', help: 'of what is passed on' },
  'extended-next-hop': { type: 'flag', help: 'IPv4 routes over the session of IPv6' },
  'allow-own-as': {
    type: 'number',
    value: 'N',
    help: 'take paths with our own AS in them, at most so often',
  },
  prepend: { type: 'number', value: 'N', help: 'put our own AS in front of the path so often' },
  community: { type: 'list', value: 'A:B', help: 'given to what is announced; may be repeated' },
  'import-filter': {
    type: 'list',
    value: 'NAME',
    help: 'bgp-filter for what it announces; may be repeated, tried in order',
  },
  'export-filter': {
    type: 'list',
    value: 'NAME',
    help: 'bgp-filter for what is announced to it; may be repeated, tried in order',
  },
  'max-prefixes': { type: 'number', value: 'N', help: 'end the session when it announces more' },
};

const meshOptions: Readonly<Record<string, Option>> = {
  'password-file': {
    type: 'text',
    value: 'FILE|-|none',
    help: 'file whose first line is the password between all nodes; none: no password',
  },
  bfd: { type: 'text', value: 'on|off', help: 'watch nodes with BFD' },
  'bfd-interval': { type: 'number', value: 'MILLISECONDS', help: 'between two signs of life of BFD' },
  'bfd-multiplier': { type: 'number', value: 'N', help: 'a node is dead after so many of them are missing' },
  hold: { type: 'number', value: 'SECONDS', help: 'hold time' },
  keepalive: {
    type: 'text',
    value: 'SECONDS|none',
    help: 'between two signs of life of BGP (default: a third of the hold time)',
  },
  'graceful-restart': {
    type: 'number',
    value: 'SECONDS',
    help: 'how long the routes of a node stay while its BIRD restarts',
  },
  community: { type: 'list', value: 'A:B', help: 'given to all that nodes announce; may be repeated; none' },
};

export const bgpCommands: readonly Command[] = [
  {
    words: 'bgp peer add NAME',
    options: addOptions,
    help: 'Add a peer: a router outside (--address, --as), or nodes of the cluster by label (--peer-selector).',
    async run(context) {
      const name = context.args.text('NAME');
      const body = { name, ...(await peerOf(context)) };
      const changed = await context.api().send<Changed<BgpPeerItem>>('POST', '/v1/bgp/peers', body);
      await printChange(context.output, 'bgp-peer', name, `bgp-peer ${name} added`, changed);
    },
  },
  {
    words: 'bgp peer remove NAME',
    help: 'Remove a peer; its sessions end.',
    async run({ args, api, output }) {
      const name = args.text('NAME');
      const changed = await api().send<Removed>('DELETE', `/v1/bgp/peers/${segment(name)}`);
      await printChange(output, 'bgp-peer', name, `bgp-peer ${name} removed`, changed);
    },
  },
  {
    words: 'bgp peer show [NAME]',
    help: 'List the peers, or show one; `netctl node status` shows how the sessions are.',
    async run({ args, api, output }) {
      const name = args.optionalText('NAME');
      if (name !== undefined)
        return output.list(peerView, [
          await api().send<BgpPeerItem>('GET', `/v1/bgp/peers/${segment(name)}`),
        ]);
      const list = await api().send<{ items: BgpPeerItem[]; broken: Broken }>('GET', '/v1/bgp/peers');
      for (const { key, reason } of list.broken) output.warn(`${key} in the store is not valid: ${reason}`);
      return output.list(peerView, list.items);
    },
  },
  {
    words: 'bgp mesh [STATE]',
    choices: { STATE: ['on', 'off'] },
    options: meshOptions,
    help: 'Show or set whether every node is a peer of every other, and how nodes talk to each other.',
    async run(context) {
      const { api, output } = context;
      const body = await meshChanges(context);
      if (Object.values(body).every((value) => value === undefined))
        return printSettings(context, await api().send<BgpSettingsItem>('GET', '/v1/bgp/settings'));
      const changed = await api().send<Changed<BgpSettingsItem>>('PATCH', '/v1/bgp/settings', body);
      const sentence = `mesh of the nodes ${changed.item.mesh ? 'on' : 'off'}`;
      return printChange(output, 'bgp-mesh', 'mesh', sentence, changed);
    },
  },
  {
    words: 'bgp default-as [N]',
    help: 'Show or set the AS of the nodes that have none of their own.',
    async run({ args, api, output }) {
      const asNumber = args.number('N');
      if (asNumber === undefined) {
        const settings = await api().send<BgpSettingsItem>('GET', '/v1/bgp/settings');
        return output.forPeople
          ? output.line(String(settings.asNumber))
          : output.one('default-as', String(settings.asNumber), { asNumber: settings.asNumber }, []);
      }
      const body: BgpSettingsSet = { asNumber };
      const changed = await api().send<Changed<BgpSettingsItem>>('PATCH', '/v1/bgp/settings', body);
      return printChange(output, 'default-as', String(asNumber), `default AS ${asNumber}`, changed);
    },
  },
  {
    words: 'node set NODE',
    options: {
      'route-reflector': {
        type: 'text',
        value: 'CLUSTER-ID|none',
        help: 'make it a route reflector of this cluster id, such as 244.0.0.1; it leaves the mesh',
      },
    },
    help: 'Change what is not in the configuration of the node itself.',
    async run({ args, api, output }) {
      const node = args.text('NODE');
      const id = args.optionalText('route-reflector');
      if (id === undefined) throw new UsageError('say what to change');
      const body: NodeSet = { routeReflectorClusterId: id === 'none' ? null : id };
      const changed = await api().send<Changed<NodeItem>>('PATCH', `/v1/nodes/${segment(node)}`, body);
      await printChange(output, 'node', node, `node ${node} set`, changed);
    },
  },
];

async function peerOf(context: Context): Promise<Omit<BgpPeerAdd, 'name'>> {
  const { args } = context;
  const password = args.optionalText('password-file');
  return {
    address: args.optionalText('address'),
    asNumber: args.number('as'),
    port: args.number('port'),
    node: args.optionalText('node'),
    nodeSelector: args.optionalText('node-selector'),
    peerSelector: args.optionalText('peer-selector'),
    password: password === undefined ? undefined : await passwordIn(context, password),
    holdSeconds: args.number('hold'),
    keepaliveSeconds: args.number('keepalive'),
    sourceAddress: args.optionalText('source'),
    localAsNumber: args.number('local-as'),
    multihop: onOrOff(args, 'multihop'),
    ttlSecurityHops: args.number('ttl-security'),
    bfd: onOrOff(args, 'bfd'),
    passive: args.flag('passive'),
    nextHop: args.optionalText('next-hop') as 'self' | undefined,
    extendedNextHop: args.flag('extended-next-hop'),
    allowOwnAsNumbers: args.number('allow-own-as'),
    prepend: args.number('prepend'),
    communities: args.list('community'),
    importFilters: args.list('import-filter'),
    exportFilters: args.list('export-filter'),
    maxPrefixes: args.number('max-prefixes'),
  };
}

async function meshChanges(context: Context): Promise<BgpSettingsSet> {
  const { args } = context;
  const state = args.optionalText('STATE');
  const password = args.optionalText('password-file');
  const communities = args.list('community');
  const keepalive = args.optionalText('keepalive');
  return {
    mesh: state === undefined ? undefined : state === 'on',
    meshPassword:
      password === undefined ? undefined : password === 'none' ? null : await passwordIn(context, password),
    bfd: onOrOff(args, 'bfd'),
    bfdIntervalMilliseconds: args.number('bfd-interval'),
    bfdMultiplier: args.number('bfd-multiplier'),
    holdSeconds: args.number('hold'),
    keepaliveSeconds: keepalive === 'none' ? null : args.number('keepalive'),
    gracefulRestartSeconds: args.number('graceful-restart'),
    communities: communities?.length === 1 && communities[0] === 'none' ? [] : communities,
  };
}

function printSettings({ output }: Context, settings: BgpSettingsItem): Promise<void> {
  const { mesh, asNumber, meshPassword, bfd, communities, keepaliveSeconds } = settings;
  const watched = `every ${settings.bfdIntervalMilliseconds} ms, dead after ${settings.bfdMultiplier}`;
  return output.one('bgp-mesh', 'mesh', settings, [
    ['mesh', mesh ? 'on' : 'off'],
    ['default AS', asNumber],
    ['password', meshPassword ?? 'none'],
    ['BFD', bfd ? watched : 'off'],
    ['hold time', `${settings.holdSeconds} s`],
    ['keepalive', keepaliveSeconds === null ? 'a third of it' : `${keepaliveSeconds} s`],
    ['restart time', `${settings.gracefulRestartSeconds} s`],
    ['communities', joined(communities)],
  ]);
}

/** The first line of the file. */
async function passwordIn({ readStdin }: Context, file: string): Promise<string> {
  let text: string;
  try {
    text =
      file === '-' ? await readStdin('netctl bgp … --password-file - < FILE') : readFileSync(file, 'utf8');
  } catch (error) {
    if (error instanceof CliError) throw error;
    throw new CliError(`cannot read ${file}: ${(error as Error).message}`);
  }
  return text.split(/\r?\n/)[0] ?? '';
}

function onOrOff(args: Arguments, option: string): boolean | undefined {
  const given = args.optionalText(option);
  if (given !== undefined && given !== 'on' && given !== 'off')
    throw new UsageError(`--${option}: "${given}" is neither on nor off`);
  return given === undefined ? undefined : given === 'on';
}

function seconds(value: number | null): string | null {
  return value === null ? null : `${value}s`;
}

function yesNo(value: boolean | null): string | null {
  return value === null ? null : value ? 'yes' : 'no';
}
