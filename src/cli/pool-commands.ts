/**
 * `netctl pool …` and `netctl ipam …`: the prefixes that addresses come from, and who has which.
 *
 * In: arguments. Out: requests to the API and what they answer. Never: an option swallowed: what the agent does not support, the
 * agent refuses.
 */
import type {
  AddressItem,
  BlockItem,
  PoolAdd,
  PoolItem,
  PoolSet,
  Removed,
  UsageItem,
} from '../api/schemas.ts';
import { type Changed, printChange } from './change.ts';
import { segment } from './client.ts';
import { type Arguments, type Command, type Context, type Option, UsageError } from './command.ts';
import type { View } from './output.ts';
import { joined } from './table.ts';

const poolView: View<PoolItem> = {
  kind: 'pool',
  name: ({ name }) => name,
  columns: [
    { header: 'NAME', value: ({ name }) => name },
    { header: 'CIDR', value: ({ cidr }) => cidr },
    { header: 'KIND', value: ({ kind }) => kind },
    { header: 'BLOCK', value: ({ blockSize }) => `/${blockSize}`, alignRight: true },
    { header: 'COOLDOWN', value: ({ cooldownSeconds }) => `${cooldownSeconds}s`, alignRight: true },
    { header: 'EXCLUDES', value: ({ excludes }) => joined(excludes) },
    { header: 'STATE', value: ({ disabled }) => (disabled ? 'disabled' : 'enabled') },
    { header: 'NAT', value: ({ natOutgoing }) => (natOutgoing ? 'yes' : 'no'), wide: true },
    { header: 'GATEWAY', value: ({ gateway }) => gateway, wide: true },
    { header: 'NODE-SELECTOR', value: ({ nodeSelector }) => nodeSelector, wide: true },
    { header: 'REVISION', value: ({ revision }) => revision, wide: true, alignRight: true },
  ],
};

const usageView: View<UsageItem> = {
  kind: 'pool',
  name: ({ pool }) => pool,
  columns: [
    { header: 'POOL', value: ({ pool }) => pool },
    { header: 'CIDR', value: ({ cidr }) => cidr },
    { header: 'SIZE', value: ({ size }) => shortSize(size), alignRight: true },
    { header: 'USED', value: ({ used }) => used, alignRight: true },
    { header: 'COOLDOWN', value: ({ cooldown }) => cooldown, alignRight: true },
    { header: 'BLOCKS', value: ({ blocks }) => blocks, alignRight: true },
    { header: 'NODES', value: ({ nodes }) => nodes, alignRight: true },
  ],
};

const blockView: View<BlockItem> = {
  kind: 'block',
  name: ({ cidr }) => cidr,
  columns: [
    { header: 'BLOCK', value: ({ cidr }) => cidr },
    { header: 'POOL', value: ({ pool }) => pool },
    { header: 'NODE', value: ({ node }) => node },
    { header: 'USED', value: ({ used, size }) => `${used}/${shortSize(size)}`, alignRight: true },
    { header: 'CLAIMED', value: ({ claimedAt }) => claimedAt },
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
  'node-selector': { type: 'text', value: 'SELECTOR', help: 'only for nodes whose labels match' },
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
        help: 'the new list of what is never given out; `none` empties it',
      },
      disabled: { type: 'flag', help: 'give out no more addresses of it' },
      enabled: { type: 'flag', help: 'give out addresses of it again' },
      cidr: { type: 'text', help: 'refused: fixed when the pool is added', hidden: true },
      kind: { type: 'text', help: 'refused: fixed when the pool is added', hidden: true },
      'block-size': { type: 'number', help: 'refused: fixed when the pool is added', hidden: true },
    },
    help: 'Change a pool; what is not named stays.',
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
  {
    words: 'ipam show',
    options: {
      ip: { type: 'text', value: 'ADDRESS', help: 'who has this address' },
      blocks: { type: 'flag', help: 'the blocks and the nodes that claimed them' },
    },
    help: 'Show how full the pools are.',
    async run(context) {
      const { args, api, output } = context;
      const ip = args.optionalText('ip');
      if (ip !== undefined && args.flag('blocks'))
        throw new UsageError('--ip and --blocks exclude each other');
      if (ip !== undefined) return showAddress(context, ip);
      if (args.flag('blocks'))
        return output.list(
          blockView,
          (await api().send<{ items: BlockItem[] }>('GET', '/v1/ipam/blocks')).items,
        );
      return output.list(
        usageView,
        (await api().send<{ items: UsageItem[] }>('GET', '/v1/ipam/usage')).items,
      );
    },
  },
];

/** Sizes are powers of two; long ones say so. */
function shortSize(size: string): string {
  return size.length > 10 ? `2^${BigInt(size).toString(2).length - 1}` : size;
}

async function showAddress({ api, output }: Context, ip: string): Promise<void> {
  const item = await api().send<AddressItem>('GET', `/v1/ipam/addresses/${segment(ip)}`);
  const { tenant, app, instance } = item.owner;
  await output.one('address', item.address, item, [
    ['Address', item.address],
    ['Pool', item.pool],
    ['State', item.state],
    ['Owner', `${tenant}/${app}/${instance}`],
    ['Node', item.node],
    ['Endpoint', item.endpoint],
    ['MAC', item.mac],
    ['On release', item.onRelease],
    ['Generation', item.generation],
    ['Allocated', item.allocatedAt],
    ['Cooldown until', item.cooldownUntil],
  ]);
}

function changes(args: Arguments): PoolSet {
  if (args.flag('disabled') && args.flag('enabled'))
    throw new UsageError('--disabled and --enabled exclude each other');
  const body: PoolSet = {
    ...settings(args),
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
  const excludes = args.list('exclude');
  return {
    excludes: excludes?.length === 1 && excludes[0] === 'none' ? [] : excludes,
    cooldownSeconds: args.number('cooldown'),
    natOutgoing: args.flag('nat-outgoing'),
    nodeSelector: args.optionalText('node-selector'),
  };
}
