/**
 * `netctl endpoint …`: the interfaces of containers, and which profiles they have.
 *
 * In: arguments. Out: requests to the API and what they answer. Never: an endpoint guessed: an id that may mean several is
 * refused by the agent.
 */
import type { CounterItem, CounterList } from '../api/counter-schemas.ts';
import type { EnforcementList } from '../api/enforcement-schemas.ts';
import type { EndpointItem, EndpointProfiles, EndpointSet } from '../api/schemas.ts';
import { mappingText, type PortMapping, parsePortMapping } from '../model/port-mapping.ts';
import { parseRate, rateText } from '../model/rate-limits.ts';
import { type Changed, printChange } from './change.ts';
import { type Client, segment } from './client.ts';
import { type Command, UsageError } from './command.ts';
import type { Output, View } from './output.ts';
import { joined } from './table.ts';

/** Container ids are long; docker and crictl show as much. */
const CONTAINER_CHARACTERS = 13;

/** Of the endpoints of the node that was asked. */
type Counted = ReadonlyMap<string, CounterItem>;

const endpointView = (counters: Counted): View<EndpointItem> => ({
  kind: 'endpoint',
  name: ({ id }) => id,
  columns: [
    { header: 'ENDPOINT', value: ({ id }) => id },
    { header: 'NODE', value: ({ node }) => node },
    { header: 'CONTAINER', value: ({ containerId }) => containerId.slice(0, CONTAINER_CHARACTERS) },
    { header: 'NETWORK', value: ({ network }) => network },
    { header: 'INTERFACE', value: (endpoint) => endpoint.interface },
    { header: 'ADDRESSES', value: ({ addresses }) => joined(addresses) },
    { header: 'PROFILES', value: ({ profiles }) => joined(profiles) },
    { header: 'HOST-INTERFACE', value: ({ hostInterface }) => hostInterface, wide: true },
    { header: 'MAC', value: ({ mac }) => mac, wide: true },
    { header: 'MTU', value: ({ mtuBytes }) => mtuBytes, wide: true, alignRight: true },
    { header: 'PORTS', value: ({ portMappings }) => joined(portMappings.map(mappingText)), wide: true },
    { header: 'LIMITS', value: limitsText, wide: true },
    {
      header: 'IN-BYTES',
      value: ({ id }) => counters.get(id)?.inBytes ?? null,
      wide: true,
      alignRight: true,
    },
    {
      header: 'OUT-BYTES',
      value: ({ id }) => counters.get(id)?.outBytes ?? null,
      wide: true,
      alignRight: true,
    },
    { header: 'CREATED', value: ({ createdAt }) => createdAt, wide: true },
  ],
});

export const endpointCommands: readonly Command[] = [
  {
    words: 'endpoint show',
    options: {
      detailed: { type: 'flag', help: 'everything about each' },
      node: { type: 'text', value: 'NODE', help: 'only those of this node' },
    },
    help: 'List the endpoints (one interface of one container each).',
    async run({ args, api, output }) {
      const node = args.optionalText('node');
      const path = node === undefined ? '/v1/endpoints' : `/v1/endpoints?node=${encodeURIComponent(node)}`;
      const { items } = await api().send<{ items: EndpointItem[] }>('GET', path);
      const isDetailed = args.flag('detailed') === true && output.forPeople;
      const isCounted = items.length > 0 && (isDetailed || output.format === 'wide');
      const read = isCounted ? (await api().send<CounterList>('GET', '/v1/counters')).items : [];
      const counters: Counted = new Map(read.map((item) => [item.endpoint, item]));
      if (isDetailed) await showDetailed(output, items, counters, await enforcementOf(api()));
      else await output.list(endpointView(counters), items);
    },
  },
  {
    words: 'endpoint profile ENDPOINT ACTION NAME...',
    choices: { ACTION: ['append', 'remove', 'set'] },
    options: { node: { type: 'text', value: 'NODE', help: 'the node that it is on' } },
    help: 'Change the profiles of an endpoint, named by its id, its container id (or the beginning of one) or an address.',
    async run({ args, api, output }) {
      const node = args.optionalText('node');
      const query = node === undefined ? '' : `?node=${encodeURIComponent(node)}`;
      const path = `/v1/endpoints/${segment(args.text('ENDPOINT'))}/profiles${query}`;
      const body = { action: args.text('ACTION'), profiles: args.list('NAME') ?? [] } as EndpointProfiles;
      const changed = await api().send<Changed<EndpointItem>>('POST', path, body);
      const { id, profiles } = changed.item;
      const has =
        profiles.length === 0
          ? 'has no profile: all its traffic is denied'
          : `has profiles ${profiles.join(', ')}`;
      await printChange(output, 'endpoint', id, `endpoint ${id} ${has}`, changed);
    },
  },
  {
    words: 'endpoint set ENDPOINT',
    options: {
      label: { type: 'list', value: 'KEY=VALUE', help: 'the new labels, all of them; `none` empties them' },
      publish: {
        type: 'list',
        value: '[ADDRESS:]PORT:PORT[/PROTOCOL]',
        help: 'ports of the host that lead to it (8080:80/tcp), all of them; `none` for none',
      },
      'extra-source': {
        type: 'list',
        value: 'CIDR',
        help: 'what it may send from besides its addresses, all of it; `none` empties it',
      },
      node: { type: 'text', value: 'NODE', help: 'the node that it is on' },
    },
    help: 'Change the labels, the published ports or the extra sources of an endpoint; what is not named stays.',
    async run({ args, api, output }) {
      const body: EndpointSet = {
        labels: labelsOf(given(args.list('label'))),
        extraSources: given(args.list('extra-source')),
        portMappings: mappingsOf(given(args.list('publish'))),
      };
      if (Object.values(body).every((value) => value === undefined))
        throw new UsageError('say what to change: --label, --publish or --extra-source');
      const node = args.optionalText('node');
      const query = node === undefined ? '' : `?node=${encodeURIComponent(node)}`;
      const path = `/v1/endpoints/${segment(args.text('ENDPOINT'))}${query}`;
      const changed = await api().send<Changed<EndpointItem>>('PATCH', path, body);
      const { id } = changed.item;
      await printChange(output, 'endpoint', id, `endpoint ${id} set`, changed);
    },
  },
  {
    words: 'endpoint limit ENDPOINT',
    options: {
      in: {
        type: 'text',
        value: 'RATE',
        help: 'what it may receive: 100mbit, 64kbit, 1.5gbit; `none` for no limit',
      },
      out: { type: 'text', value: 'RATE', help: 'what it may send' },
      node: { type: 'text', value: 'NODE', help: 'the node that it is on' },
    },
    help: 'Limit the rate of an endpoint, at once; what is not named stays.',
    async run({ args, api, output }) {
      const [into, out] = [args.optionalText('in'), args.optionalText('out')];
      if (into === undefined && out === undefined) throw new UsageError('say what to limit: --in or --out');
      const rateLimits = {
        ...(into === undefined ? {} : { inBitsPerSecond: rate(into, '--in') }),
        ...(out === undefined ? {} : { outBitsPerSecond: rate(out, '--out') }),
      };
      const node = args.optionalText('node');
      const query = node === undefined ? '' : `?node=${encodeURIComponent(node)}`;
      const path = `/v1/endpoints/${segment(args.text('ENDPOINT'))}${query}`;
      const body = { rateLimits } satisfies EndpointSet;
      const changed = await api().send<Changed<EndpointItem>>('PATCH', path, body);
      const { id } = changed.item;
      await printChange(output, 'endpoint', id, `endpoint ${id}: ${limitsText(changed.item)}`, changed);
    },
  },
];

function rate(text: string, option: string): number | null {
  try {
    return parseRate(text, option);
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

function limitsText({ rateLimits }: EndpointItem): string {
  return `in ${rateText(rateLimits?.inBitsPerSecond)}, out ${rateText(rateLimits?.outBitsPerSecond)}`;
}

function counterLines(counters: CounterItem | undefined): [string, string][] {
  if (counters === undefined) return [];
  const { inPackets, inBytes, inDropped, outPackets, outBytes, outDropped } = counters;
  return [
    ['Received', `${inPackets} packets, ${inBytes} bytes, ${inDropped} dropped`],
    ['Sent', `${outPackets} packets, ${outBytes} bytes, ${outDropped} dropped`],
  ];
}

/** `none` alone is the empty list. */
function given(list: string[] | undefined): string[] | undefined {
  return list?.length === 1 && list[0] === 'none' ? [] : list;
}

export function mappingsOf(texts: readonly string[] | undefined): PortMapping[] | undefined {
  try {
    return texts?.map((text) => parsePortMapping(text, '--publish'));
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

function labelsOf(pairs: readonly string[] | undefined): Record<string, string> | undefined {
  if (pairs === undefined) return undefined;
  const entries = pairs.map((pair): [string, string] => {
    const at = pair.indexOf('=');
    if (at < 1) throw new UsageError(`--label: "${pair}" is not valid: expected KEY=VALUE`);
    return [pair.slice(0, at), pair.slice(at + 1)];
  });
  return Object.fromEntries(entries);
}

/** `container and guard, advisory: …`, of the endpoints of the node that is asked. */
async function enforcementOf(api: Client): Promise<Map<string, string>> {
  const { items } = await api.send<EnforcementList>('GET', '/v1/enforcement');
  return new Map(
    items.map(({ endpoint, where, inSync, notice }) => [
      endpoint,
      joined([where, ...(inSync ? [] : ['not in sync']), ...(notice === null ? [] : [notice])], ', '),
    ]),
  );
}

async function showDetailed(
  output: Output,
  endpoints: readonly EndpointItem[],
  counters: Counted,
  enforcement: ReadonlyMap<string, string>,
): Promise<void> {
  if (endpoints.length === 0) return output.note('no endpoints');
  for (const [i, endpoint] of endpoints.entries()) {
    if (i > 0) output.line('');
    const { netns, labels } = endpoint;
    await output.one('endpoint', endpoint.id, endpoint, [
      ['Endpoint', endpoint.id],
      ['Node', endpoint.node],
      ['Container', endpoint.containerId],
      ['Network', endpoint.network],
      ['Kind', endpoint.kind],
      ['Interface', endpoint.interface],
      ['Host interface', endpoint.hostInterface],
      ['MAC', endpoint.mac],
      ['MTU', endpoint.mtuBytes],
      ['Addresses', joined(endpoint.addresses, ', ')],
      ['Profiles', joined(endpoint.profiles, ', ')],
      ['Extra sources', joined(endpoint.extraSources, ', ')],
      ['Published ports', joined(endpoint.portMappings.map(mappingText), ', ')],
      ['Rate limits', limitsText(endpoint)],
      ...counterLines(counters.get(endpoint.id)),
      ['Enforcement', enforcement.get(endpoint.id) ?? 'its own node knows'],
      [
        'Labels',
        joined(
          Object.entries(labels).map(([key, value]) => `${key}=${value}`),
          ', ',
        ),
      ],
      ['Network namespace', netns.path],
      ['Created', endpoint.createdAt],
    ]);
  }
}
