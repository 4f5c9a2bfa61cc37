/**
 * `netctl node show` and `netctl node remove`.
 *
 * In: arguments. Out: nodes and whether their agents live; the removal of one. Never: a removal whose plan was neither shown nor
 * waved through by `--yes`.
 */
import type { NodeHoldings, NodeItem } from '../api/schemas.ts';
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
    { header: 'SINCE', value: ({ since }) => since },
    { header: 'ADDRESS4', value: ({ address4 }) => address4 },
    { header: 'ADDRESS6', value: ({ address6 }) => address6 },
    { header: 'AS', value: ({ asNumber }) => asNumber, alignRight: true },
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

export const nodeCommands: readonly Command[] = [
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
