/**
 * `netctl ipam show`: how full pools, nodes, tenants and apps are, who has a block, an address, a reservation.
 *
 * In: options, of which each asks for another view. Out: what the API answers. Never: two views at once.
 */
import type { ReservationItem, UtilizationItem } from '../api/ipam-schemas.ts';
import type { AddressItem, BlockItem, UsageItem } from '../api/schemas.ts';
import { segment } from './client.ts';
import { type Command, type Context, UsageError } from './command.ts';
import type { View } from './output.ts';
import { joined } from './table.ts';

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

const reservationView: View<ReservationItem> = {
  kind: 'reservation',
  name: ({ id }) => id,
  columns: [
    { header: 'RESERVATION', value: ({ id }) => id },
    { header: 'OWNER', value: ({ tenant, app }) => `${tenant}/${app}` },
    { header: 'NODE', value: ({ node }) => node },
    { header: 'ADDRESSES', value: ({ addresses }) => joined(addresses) },
    { header: 'EXPIRES', value: ({ expiresAt }) => expiresAt },
    { header: 'CREATED', value: ({ createdAt }) => createdAt, wide: true },
  ],
};

const dimensions = ['pool', 'node', 'tenant', 'app'] as const;
type Dimension = (typeof dimensions)[number];

function utilizationView(by: Dimension): View<UtilizationItem> {
  const number = (key: Exclude<keyof UtilizationItem, 'key'>, wide = false) => ({
    header: key.replace('inUse', 'in-use').toUpperCase(),
    value: (item: UtilizationItem) => item[key] ?? null,
    alignRight: true,
    wide,
  });
  const states = (['reserved', 'bound', 'active', 'retained', 'quarantined'] as const).map((state) =>
    number(state, by === 'pool'),
  );
  const ofPool =
    by === 'pool' ? (['available', 'excluded', 'capacity'] as const).map((key) => number(key)) : [];
  const key = { header: by.toUpperCase(), value: ({ key }: UtilizationItem) => key };
  const columns = [key, number('inUse'), ...states, number('cooldown'), ...ofPool];
  return { kind: by, name: ({ key }) => key, columns };
}

export const showCommand: Command = {
  words: 'ipam show',
  options: {
    ip: { type: 'text', value: 'ADDRESS', help: 'who has this address' },
    blocks: { type: 'flag', help: 'the blocks and the nodes that claimed them' },
    by: { type: 'text', value: 'WHAT', help: `addresses in each state by ${dimensions.join(', ')}` },
    reservations: { type: 'flag', help: 'what is held for containers to come, and until when' },
  },
  help: 'Show how full the pools are.',
  async run(context) {
    const { args, output } = context;
    const ip = args.optionalText('ip');
    const by = args.optionalText('by');
    const views = Object.entries({
      ip,
      blocks: args.flag('blocks'),
      by,
      reservations: args.flag('reservations'),
    })
      .filter(([, value]) => value !== undefined && value !== false)
      .map(([name]) => `--${name}`);
    if (views.length > 1) throw new UsageError(`${views.join(' and ')} exclude each other`);
    if (ip !== undefined) return showAddress(context, ip);
    if (by !== undefined) {
      const dimension = dimensionOf(by);
      return output.list(utilizationView(dimension), await items(context, `/v1/utilization?by=${dimension}`));
    }
    if (args.flag('blocks')) return output.list(blockView, await items(context, '/v1/ipam/blocks'));
    if (args.flag('reservations'))
      return output.list(reservationView, await items(context, '/v1/reservations'));
    return output.list(usageView, await items(context, '/v1/ipam/usage'));
  },
};

async function items<T>({ api }: Context, path: string): Promise<T[]> {
  return (await api().send<{ items: T[] }>('GET', path)).items;
}

function dimensionOf(text: string): Dimension {
  const found = dimensions.find((dimension) => dimension === text);
  if (found === undefined)
    throw new UsageError(`--by: "${text}" is not valid: expected ${dimensions.join(', ')}`);
  return found;
}

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
    ['Container', item.container],
    ['Reservation', item.reservation],
    ['Cooldown until', item.cooldownUntil],
    ['Kept until', item.expiresAt],
    ['Conflict', item.conflict === null ? null : `${item.conflict.mac}, seen on ${item.conflict.node}`],
  ]);
}
