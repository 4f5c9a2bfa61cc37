/**
 * `netctl ipam port …`: ports of nodes, for containers of the host's network.
 *
 * In: arguments. Out: requests to the API and what they answer. Never: a reservation released at a generation that nobody looked at.
 */
import type { PortItem, PortReservationItem, PortReserveBody, PortsReleased } from '../api/port-schemas.ts';
import type { NodePorts } from '../model/port-records.ts';
import { segment } from './client.ts';
import { type Command, type Context, UsageError } from './command.ts';
import type { View } from './output.ts';
import { ownerOf } from './owner-text.ts';
import { joined } from './table.ts';

const portView: View<PortItem> = {
  kind: 'port',
  name: ({ node, protocol, port }) => `${node}/${protocol}-${port}`,
  columns: [
    { header: 'NODE', value: ({ node }) => node },
    { header: 'PORT', value: ({ port }) => port, alignRight: true },
    { header: 'PROTOCOL', value: ({ protocol }) => protocol },
    { header: 'ADDRESS', value: ({ hostIP }) => hostIP },
    { header: 'TAKEN-BY', value: ({ text }) => text },
  ],
};

const reservationView: View<PortReservationItem> = {
  kind: 'port-reservation',
  name: ({ node, id }) => `${node}/${id}`,
  columns: [
    { header: 'NODE', value: ({ node }) => node },
    { header: 'RESERVATION', value: ({ id }) => id },
    { header: 'OWNER', value: ({ tenant, app, instance }) => `${tenant}/${app}/${instance}` },
    { header: 'PORTS', value: ({ ports }) => portsText(ports) },
    { header: 'GENERATION', value: ({ generation }) => generation, alignRight: true },
    { header: 'EXPIRES', value: ({ expiresAt }) => expiresAt },
  ],
};

const onNode = { type: 'text', value: 'NODE', help: 'of this node only' } as const;
const ttl = {
  type: 'text',
  value: 'SECONDS',
  help: 'free again after this long (default 300); `none`: until it is released',
} as const;

export const portCommands: readonly Command[] = [
  {
    words: 'ipam port show',
    options: {
      node: onNode,
      reservations: { type: 'flag', help: 'the reservations, with their generations and ends' },
    },
    help: 'List the ports of nodes that somebody has: published by containers, or reserved.',
    async run({ args, api, output }) {
      const node = args.optionalText('node');
      const query = node === undefined ? '' : `?node=${encodeURIComponent(node)}`;
      const list = async <T>(path: string): Promise<T[]> =>
        (await api().send<{ items: T[] }>('GET', `${path}${query}`)).items;
      if (args.flag('reservations')) await output.list(reservationView, await list('/v1/port-reservations'));
      else await output.list(portView, await list('/v1/ports'));
    },
  },
  {
    words: 'ipam port reserve NODE PORT...',
    options: {
      id: { type: 'text', value: 'ID', help: 'how to call it; made up when absent' },
      owner: {
        type: 'text',
        value: 'TENANT/APP/INSTANCE',
        help: 'whose they will be (default default/netctl/reserved)',
      },
      ttl,
    },
    help: 'Reserve ports of a node: 8080/tcp, 30000-30009/udp, or 2of30000-30999/tcp for any two of a range; all of them or none.',
    async run({ args, api, output }) {
      const body: PortReserveBody = {
        id: args.optionalText('id'),
        node: args.text('NODE'),
        ...ownerOf(args.optionalText('owner') ?? 'default/netctl/reserved'),
        ports: (args.list('PORT') ?? []).map(wish),
        ttlSeconds: ttlOf(args.optionalText('ttl')),
      };
      const made = await api().send<PortReservationItem>('POST', '/v1/port-reservations', body);
      await output.one('port-reservation', made.id, made, [
        ['Reservation', made.id],
        ['Node', made.node],
        ['Ports', portsText(made.ports)],
        ['Generation', made.generation],
        ['Expires', made.expiresAt ?? 'when it is released'],
      ]);
    },
  },
  {
    words: 'ipam port extend NODE ID',
    options: {
      generation: {
        type: 'number',
        value: 'N',
        help: 'the generation that is meant (default: the one that it has now)',
      },
      ttl,
    },
    help: 'Give a reservation of ports a new end, or none.',
    async run(context) {
      const { args, api, output } = context;
      const path = pathOf(context);
      const generation = args.number('generation') ?? (await generationOf(context));
      const body = { generation, ttlSeconds: ttlOf(args.optionalText('ttl')) };
      const made = await api().send<PortReservationItem>('POST', `${path}/extend`, body);
      const until = made.expiresAt === null ? 'until it is released' : `until ${made.expiresAt}`;
      await output.changed('port-reservation', made.id, `reservation ${made.id} is kept ${until}`, made);
    },
  },
  {
    words: 'ipam port release NODE ID',
    options: {
      generation: {
        type: 'number',
        value: 'N',
        help: 'the generation that is meant (default: the one that it has now)',
      },
    },
    help: 'Give the ports of a reservation back.',
    async run(context) {
      const { args, api, output } = context;
      const generation = args.number('generation') ?? (await generationOf(context));
      const { freed } = await api().send<PortsReleased>('POST', `${pathOf(context)}/release`, { generation });
      const id = args.text('ID');
      await output.changed('port-reservation', id, `reservation ${id} released: free ${portsText(freed)}`, {
        freed,
      });
    },
  },
];

function pathOf({ args }: Context): string {
  return `/v1/port-reservations/${segment(args.text('NODE'))}/${segment(args.text('ID'))}`;
}

async function generationOf(context: Context): Promise<number> {
  return (await context.api().send<PortReservationItem>('GET', pathOf(context))).generation;
}

/** @throws UsageError */
function wish(text: string): PortReserveBody['ports'][number] {
  const [, count, from, to, protocol = 'tcp'] =
    /^(?:(\d{1,3})of)?(\d{1,5})(?:-(\d{1,5}))?(?:\/(tcp|udp|sctp))?$/.exec(text) ?? [];
  if (from === undefined)
    throw new UsageError(
      `"${text}" is not valid: expected PORT[-PORT][/tcp|udp|sctp], or 2of30000-30999/tcp`,
    );
  return {
    protocol: protocol as NodePorts['protocol'],
    from: Number(from),
    to: Number(to ?? from),
    count: count === undefined ? null : Number(count),
  };
}

function ttlOf(text = '300'): number | null {
  if (text === 'none') return null;
  const seconds = Number(text);
  if (!Number.isInteger(seconds))
    throw new UsageError(`--ttl: "${text}" is not valid: expected seconds, or none`);
  return seconds;
}

function portsText(ports: readonly NodePorts[]): string {
  return joined(
    ports.map(({ protocol, from, to }) => `${from === to ? from : `${from}-${to}`}/${protocol}`),
    ', ',
  );
}
