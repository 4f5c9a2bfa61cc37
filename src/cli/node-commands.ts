/**
 * `netctl node …`: who is there, and taking a node out of use or out of the cluster.
 *
 * In: arguments. Out: nodes and whether their agents live; the removal of one. Never: a removal whose plan was neither shown nor
 * waved through by `--yes`.
 */
import type { NodeHoldings, NodeItem } from '../api/schemas.ts';
import type { NodeAffected } from '../api/upkeep-schemas.ts';
import { segment } from './client.ts';
import type { Command, Context } from './command.ts';
import { exitCodes } from './exit.ts';
import type { View } from './output.ts';
import { joined } from './table.ts';

const nodeView: View<NodeItem> = {
  kind: 'node',
  name: ({ name }) => name,
  columns: [
    { header: 'NAME', value: ({ name }) => name },
    { header: 'ALIVE', value: ({ alive }) => (alive === null ? 'unknown' : alive ? 'yes' : 'no') },
    { header: 'STATE', value: ({ state }) => state },
    { header: 'SINCE', value: ({ since }) => since },
    { header: 'ADDRESS4', value: ({ address4 }) => address4 },
    { header: 'ADDRESS6', value: ({ address6 }) => address6 },
    { header: 'AS', value: ({ asNumber }) => asNumber, alignRight: true },
    { header: 'REFLECTOR', value: (node) => node.routeReflectorClusterId },
    { header: 'VERSION', value: ({ version }) => version },
    { header: 'INTERFACE', value: (node) => node.interface, wide: true },
    {
      header: 'LABELS',
      value: ({ labels }) => joined(Object.entries(labels).map(([key, value]) => `${key}=${value}`)),
      wide: true,
    },
    { header: 'PROBLEMS', value: ({ problems }) => joined(problems), wide: true },
  ],
};

const affectedView: View<NodeAffected['items'][number]> = {
  kind: 'address',
  plural: 'addresses in use there',
  name: ({ address }) => address,
  columns: [
    { header: 'ADDRESS', value: ({ address }) => address },
    { header: 'OWNER', value: ({ owner }) => `${owner.tenant}/${owner.app}/${owner.instance}` },
    { header: 'STATE', value: ({ state }) => state },
    { header: 'ON-RELEASE', value: ({ onRelease }) => onRelease },
    { header: 'CONTAINER', value: ({ container }) => container },
    { header: 'GENERATION', value: ({ generation }) => generation, alignRight: true },
  ],
};

const verbs = {
  drain: 'Give a node no more addresses; what runs there stays.',
  fence: 'Say that a node is dead: it gets no more addresses, and fixed ones can be moved away from it.',
  readmit: 'Let a node that was drained or fenced have addresses again.',
} as const;

export const nodeCommands: readonly Command[] = [
  ...(['drain', 'fence'] as const).map(
    (verb): Command => ({
      words: `node ${verb} NAME`,
      help: verbs[verb],
      async run({ args, api, output }) {
        const name = args.text('NAME');
        const answer = await api().send<NodeAffected>('POST', `/v1/nodes/${segment(name)}/${verb}`, {});
        if (output.forPeople) output.line(`node ${name} is ${answer.state}`);
        await output.list(affectedView, answer.items);
      },
    }),
  ),
  {
    words: 'node readmit NAME',
    help: verbs.readmit,
    async run({ args, api, output }) {
      const name = args.text('NAME');
      const answer = await api().send<object>('POST', `/v1/nodes/${segment(name)}/readmit`, {});
      await output.changed('node', name, `node ${name} is in use again`, answer);
    },
  },
  {
    words: 'node show',
    help: 'List the nodes, and whether their agents live.',
    async run({ api, output }) {
      await output.list(nodeView, (await api().send<{ items: NodeItem[] }>('GET', '/v1/nodes')).items);
    },
  },
  {
    words: 'node remove NAME',
    options: {
      yes: { type: 'flag', help: 'do it; without, only show what would go' },
      force: { type: 'flag', help: 'also a node whose agent is running: it tears its endpoints down' },
    },
    help: 'Take a node out of the cluster, with its blocks, endpoints, addresses and reservations; fixed addresses are kept for their owners.',
    run: removeNode,
  },
];

async function removeNode({ args, api, output }: Context): Promise<number> {
  const name = args.text('NAME');
  const path = `/v1/nodes/${segment(name)}`;
  if (args.flag('yes') !== true) {
    const holdings = await api().send<NodeHoldings>('GET', `${path}/holdings`);
    await output.changed('node', name, `node ${name} has ${sentence(holdings)}`, holdings);
    output.warn('nothing was removed: repeat it with --yes to do so');
    return exitCodes.refused;
  }
  const query = args.flag('force') === true ? '?force=true' : '';
  const removed = await api().send<NodeHoldings>('DELETE', `${path}${query}`);
  await output.changed('node', name, `node ${name} removed: ${sentence(removed)}`, removed);
  return exitCodes.done;
}

function sentence({ blocks, endpoints, released, retained, reservations, registered }: NodeHoldings): string {
  const count = (number: number, one: string, many = `${one}s`): string =>
    `${number} ${number === 1 ? one : many}`;
  return [
    count(blocks, 'block'),
    count(endpoints, 'endpoint'),
    `${count(released, 'address', 'addresses')} to be free`,
    `${retained} kept for ${retained === 1 ? 'its owner' : 'their owners'}`,
    count(reservations, 'reservation'),
    registered ? 'its record' : 'no record',
  ].join(', ');
}
