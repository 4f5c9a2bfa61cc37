/**
 * `netctl ipam …`: reserve and release addresses, check and mend the records.
 *
 * In: arguments. Out: requests to the API and what they answer. Never: an address released at a generation that nobody looked at; a
 * repair before its plan was shown.
 */
import type {
  Cancelled,
  CheckAnswer,
  FindingItem,
  Released,
  ReleasedOwner,
  ReserveBody,
  ReservedItem,
} from '../api/ipam-schemas.ts';
import type { AddressItem } from '../api/schemas.ts';
import { segment } from './client.ts';
import { collectCommand } from './collect-command.ts';
import { type Command, type Context, UsageError } from './command.ts';
import { exitCodes } from './exit.ts';
import { showCommand } from './ipam-show.ts';
import type { View } from './output.ts';
import { ownerOf } from './owner-text.ts';
import { joined } from './table.ts';

type Checked = FindingItem & { readonly outcome?: string };

const findingView = (withOutcome: boolean): View<Checked> => ({
  kind: 'finding',
  name: ({ key }) => key,
  columns: [
    { header: 'KIND', value: ({ kind }) => kind },
    { header: 'FOUND', value: ({ message }) => message },
    { header: 'REMEDY', value: ({ action }) => action },
    ...(withOutcome ? [{ header: 'OUTCOME', value: ({ outcome }: Checked) => outcome ?? null }] : []),
  ],
});

export const ipamCommands: readonly Command[] = [
  showCommand,
  {
    words: 'ipam reserve',
    options: {
      count4: {
        type: 'number',
        value: 'N',
        help: 'how many IPv4 addresses (default 1 when nothing is named)',
      },
      count6: { type: 'number', value: 'N', help: 'how many IPv6 addresses' },
      ip: { type: 'list', value: 'ADDRESS', help: 'exactly this address; may be repeated' },
      owner: {
        type: 'text',
        value: 'TENANT/APP/INSTANCE',
        help: 'whose they will be (default default/netctl/reserved)',
      },
      pool: { type: 'list', value: 'POOL', help: 'from this pool; may be repeated, the first that has some' },
      node: { type: 'text', value: 'NODE', help: 'for this node only' },
      ttl: {
        type: 'number',
        value: 'SECONDS',
        help: 'free again after this long unless bound (default 300)',
      },
    },
    help: 'Hold addresses for containers to come; all that are asked for, or none.',
    async run(context) {
      const answer = await context.api().send<ReservedItem>('POST', '/v1/reservations', reservation(context));
      await context.output.one('reservation', answer.id, answer, [
        ['Reservation', answer.id],
        ['Expires', answer.expiresAt],
        [
          'Addresses',
          joined(
            answer.addresses.map(({ address }) => address),
            ', ',
          ),
        ],
      ]);
    },
  },
  {
    words: 'ipam release',
    options: {
      ip: { type: 'text', value: 'ADDRESS', help: 'this address, when no container has it' },
      generation: {
        type: 'number',
        value: 'N',
        help: 'the generation that is meant (default: the one that it has now)',
      },
      reservation: { type: 'text', value: 'ID', help: 'what this reservation still holds' },
      owner: { type: 'text', value: 'TENANT/APP/INSTANCE', help: 'what is kept for this owner' },
      force: { type: 'flag', help: 'also what is in use or kept for ever; logged by the agent' },
    },
    help: 'Give addresses back: one, those of a reservation, or those kept for an owner.',
    async run(context) {
      const { args } = context;
      const ip = args.optionalText('ip');
      const reservation = args.optionalText('reservation');
      const owner = args.optionalText('owner');
      if ([ip, reservation, owner].filter((given) => given !== undefined).length !== 1)
        throw new UsageError('name what to release by one of --ip, --reservation and --owner');
      if (ip === undefined && args.number('generation') !== undefined)
        throw new UsageError('--generation goes with --ip');
      if (ip !== undefined) return releaseAddress(context, ip);
      if (owner !== undefined) return releaseOwner(context, owner);
      if (args.flag('force')) throw new UsageError('--force goes with --ip or --owner');
      return cancelReservation(context, reservation ?? '');
    },
  },
  {
    words: 'ipam check',
    options: { fix: { type: 'flag', help: 'carry out the remedies that need no decision of yours' } },
    help: 'Look for records that contradict each other; exit code 4 when something is found and not fixed.',
    run: checkRecords,
  },
  collectCommand,
];

function reservation({ args }: Context): ReserveBody {
  const addresses = args.list('ip');
  const [count4, count6] = [args.number('count4'), args.number('count6')];
  if (addresses !== undefined && (count4 !== undefined || count6 !== undefined))
    throw new UsageError('--ip names the addresses: it excludes --count4 and --count6');
  const { instance, ...owner } = ownerOf(args.optionalText('owner') ?? 'default/netctl/reserved');
  const nothingNamed = addresses === undefined && count4 === undefined && count6 === undefined;
  return {
    ...owner,
    instances: [instance],
    ipv4: nothingNamed ? 1 : count4,
    ipv6: count6,
    addresses: addresses as ReserveBody['addresses'],
    pools: args.list('pool'),
    node: args.optionalText('node'),
    ttlSeconds: args.number('ttl'),
  };
}

async function releaseAddress({ args, api, output }: Context, ip: string): Promise<void> {
  const force = args.flag('force') ?? false;
  let generation = args.number('generation');
  if (generation === undefined && !force) {
    const item = await api().send<AddressItem>('GET', `/v1/ipam/addresses/${segment(ip)}`);
    generation = item.generation;
  }
  const answer = await api().send<Released>('POST', `/v1/allocations/${segment(ip)}/release`, {
    generation,
    force,
  });
  const now = answer.outcome === 'cooldown' ? 'free when its cooldown is over' : 'free';
  const forced = answer.forced ? ' by force' : '';
  const sentence = `address ${answer.address} released${forced}: ${now}`;
  await output.changed('address', answer.address, sentence, answer);
}

async function releaseOwner({ args, api, output }: Context, text: string): Promise<void> {
  const answer = await api().send<ReleasedOwner>('POST', '/v1/allocations/release', {
    owner: ownerOf(text),
    force: args.flag('force') ?? false,
  });
  const { freed, later, kept } = answer;
  const parts = [
    ...(freed.length === 0 ? [] : [`released ${joined(freed, ', ')}`]),
    ...(later.length === 0 ? [] : [`when their containers go ${later.join(', ')}`]),
    ...(kept.length === 0 ? [] : [`kept for ever unless forced ${kept.join(', ')}`]),
  ];
  await output.changed(
    'owner',
    text,
    `owner ${text}: ${parts.join('; ') || 'nothing to release (any more)'}`,
    answer,
  );
}

async function cancelReservation({ api, output }: Context, id: string): Promise<void> {
  const answer = await api().send<Cancelled>('POST', `/v1/reservations/${segment(id)}/cancel`, {});
  const { freed } = answer;
  const sentence =
    freed.length === 0
      ? `reservation ${id} held no address (any more)`
      : `reservation ${id} cancelled: free ${freed.join(', ')}`;
  await output.changed('reservation', id, sentence, answer);
}

async function checkRecords({ args, api, output }: Context): Promise<number> {
  const fix = args.flag('fix') ?? false;
  if (!fix || output.forPeople) {
    const { items } = await api().send<{ items: FindingItem[] }>('GET', '/v1/ipam/check');
    await output.list(findingView(false), items);
    if (!fix || items.length === 0) return items.length === 0 ? exitCodes.done : exitCodes.unhealthy;
    output.line('');
  }
  const { items, remaining } = await api().send<CheckAnswer>('POST', '/v1/ipam/check', { fix });
  await output.list(findingView(true), items);
  return remaining.length === 0 ? exitCodes.done : exitCodes.unhealthy;
}
