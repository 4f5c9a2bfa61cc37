/**
 * `netctl pool …`: the prefixes that addresses come from, and who may take which of them.
 *
 * In: arguments. Out: requests to the API and what they answer. Never: an option swallowed: what the agent does not support, the
 * agent refuses.
 */
import type { PoolAdd, PoolItem, PoolSet, Removed } from '../api/schemas.ts';
import { type Changed, printChange } from './change.ts';
import { segment } from './client.ts';
import { type Arguments, type Command, type Option, UsageError } from './command.ts';
import type { View } from './output.ts';
import { joined } from './table.ts';

const poolView: View<PoolItem> = {
  kind: 'pool',
  name: ({ name }) => name,
  columns: [
    { header: 'NAME', value: ({ name }) => name },
    { header: 'CIDR', value: ({ cidr }) => cidr },
    { header: 'KIND', value: ({ kind }) => kind },
    {
      header: 'BLOCK',
      value: ({ kind, blockSize }) => (kind === 'macvlan' ? null : `/${blockSize}`),
      alignRight: true,
    },
    { header: 'COOLDOWN', value: ({ cooldownSeconds }) => `${cooldownSeconds}s`, alignRight: true },
    { header: 'EXCLUDES', value: ({ excludes }) => joined(excludes) },
    { header: 'STATE', value: ({ disabled }) => (disabled ? 'disabled' : 'enabled') },
    { header: 'NAT', value: ({ natOutgoing }) => (natOutgoing ? 'yes' : 'no'), wide: true },
    { header: 'GATEWAY', value: ({ gateway }) => gateway, wide: true },
    { header: 'RANGES', value: ({ ranges }) => joined(ranges), wide: true },
    { header: 'TENANTS', value: ({ tenants }) => joined(tenants), wide: true },
    { header: 'MAX-BLOCKS', value: ({ maxBlocksPerNode }) => maxBlocksPerNode, wide: true, alignRight: true },
    {
      header: 'MAX-ADDRESSES',
      value: ({ maxAddressesPerNode }) => maxAddressesPerNode,
      wide: true,
      alignRight: true,
    },
    { header: 'NODE-SELECTOR', value: ({ nodeSelector }) => nodeSelector, wide: true },
    { header: 'REVISION', value: ({ revision }) => revision, wide: true, alignRight: true },
  ],
};

const settable: Readonly<Record<string, Option>> = {
  exclude: {
    type: 'list',
    value: 'CIDR',
    help: 'prefix or address that is never given out; may be repeated',
  },
  cooldown: {
    type: 'number',
    value: 'SECONDS',
    help: 'how long a released address is not given out again (default 60)',
  },
  'nat-outgoing': { type: 'flag', help: 'translate what leaves the pools to the address of the host' },
  'node-selector': {
    type: 'text',
    value: 'SELECTOR',
    help: 'only for nodes whose labels match, such as \'rack == "r1"\'',
  },
  gateway: { type: 'text', value: 'ADDRESS', help: 'told to reservations, and never given out' },
  range: {
    type: 'list',
    value: 'FIRST-LAST',
    help: 'part that is given out (default: the whole prefix); may be repeated',
  },
  tenant: { type: 'list', value: 'TENANT', help: 'only for this tenant; may be repeated' },
  'max-blocks': { type: 'number', value: 'N', help: 'how many blocks a node may claim' },
  'max-addresses': { type: 'number', value: 'N', help: 'how many addresses a node may have in use' },
};

export const poolCommands: readonly Command[] = [
  {
    words: 'pool add CIDR',
    options: {
      name: {
        type: 'text',
        value: 'NAME',
        help: '`default` if no pool has that name yet, else made from the prefix',
      },
      kind: { type: 'text', value: 'KIND', help: 'routed (default) or macvlan' },
      'block-size': {
        type: 'number',
        value: 'BITS',
        help: 'prefix length of the blocks that nodes claim (default 26, IPv6 122)',
      },
      ...settable,
    },
    help: 'Add a pool of addresses.',
    async run({ args, api, output }) {
      const body = {
        cidr: args.text('CIDR'),
        name: args.optionalText('name'),
        kind: args.optionalText('kind'),
        blockSize: args.number('block-size'),
        ...settings(args),
      } as PoolAdd;
      const changed = await api().send<Changed<PoolItem>>('POST', '/v1/pools', body);
      const { name, cidr } = changed.item;
      await printChange(output, 'pool', name, `pool ${name} (${cidr}) added`, changed);
    },
  },
  {
    words: 'pool remove NAME',
    help: 'Remove a pool that no address is in use of.',
    async run({ args, api, output }) {
      const name = args.text('NAME');
      const changed = await api().send<Removed>('DELETE', `/v1/pools/${segment(name)}`);
      await printChange(output, 'pool', name, `pool ${name} removed`, changed);
    },
  },
  {
    words: 'pool show [NAME]',
    help: 'List the pools, or show one.',
    async run({ args, api, output }) {
      const name = args.optionalText('NAME');
      const items =
        name === undefined
          ? (await api().send<{ items: PoolItem[] }>('GET', '/v1/pools')).items
          : [await api().send<PoolItem>('GET', `/v1/pools/${segment(name)}`)];
      await output.list(poolView, items);
    },
  },
  {
    words: 'pool set NAME',
    options: {
      ...settable,
      exclude: {
        type: 'list',
        value: 'CIDR',
        help: 'the new list of what is never given out',
      },
      'no-nat-outgoing': { type: 'flag', help: 'leave what leaves the pools as it is' },
      disabled: { type: 'flag', help: 'give out no more addresses of it' },
      enabled: { type: 'flag', help: 'give out addresses of it again' },
      cidr: { type: 'text', help: 'refused: fixed when the pool is added', hidden: true },
      kind: { type: 'text', help: 'refused: fixed when the pool is added', hidden: true },
      'block-size': { type: 'number', help: 'refused: fixed when the pool is added', hidden: true },
    },
    help: 'Change a pool; what is not named stays, and `none` clears a list, a limit, a selector or a gateway.',
    async run({ args, api, output }) {
      const name = args.text('NAME');
      const changed = await api().send<Changed<PoolItem>>(
        'PATCH',
        `/v1/pools/${segment(name)}`,
        changes(args),
      );
      await printChange(output, 'pool', name, `pool ${name} set`, changed);
    },
  },
];

function changes(args: Arguments): PoolSet {
  if (args.flag('disabled') && args.flag('enabled'))
    throw new UsageError('--disabled and --enabled exclude each other');
  if (args.flag('nat-outgoing') && args.flag('no-nat-outgoing'))
    throw new UsageError('--nat-outgoing and --no-nat-outgoing exclude each other');
  const body: PoolSet = {
    ...settings(args),
    ...(args.flag('no-nat-outgoing') ? { natOutgoing: false } : {}),
    disabled: args.flag('disabled') ? true : args.flag('enabled') ? false : undefined,
    cidr: args.optionalText('cidr'),
    kind: args.optionalText('kind'),
    blockSize: args.number('block-size'),
  };
  if (Object.values(body).every((value) => value === undefined)) throw new UsageError('say what to change');
  return body;
}

/** What `add` and `set` share; absent options stay absent. */
function settings(args: Arguments): PoolSet {
  return {
    excludes: listOf(args, 'exclude'),
    cooldownSeconds: args.number('cooldown'),
    natOutgoing: args.flag('nat-outgoing'),
    nodeSelector: textOrNone(args, 'node-selector'),
    gateway: textOrNone(args, 'gateway'),
    ranges: listOf(args, 'range'),
    tenants: listOf(args, 'tenant'),
    maxBlocksPerNode: numberOrNone(args, 'max-blocks'),
    maxAddressesPerNode: numberOrNone(args, 'max-addresses'),
  };
}

function listOf(args: Arguments, option: string): string[] | undefined {
  const given = args.list(option);
  return given?.length === 1 && given[0] === 'none' ? [] : given;
}

function textOrNone(args: Arguments, option: string): string | null | undefined {
  const given = args.optionalText(option);
  return given === 'none' ? null : given;
}

function numberOrNone(args: Arguments, option: string): number | null | undefined {
  return textOrNone(args, option) === null ? null : args.number(option);
}
