/**
 * Commands about nodes and the agent itself: `node show`, `node remove`, `node status`, `config show`, `version`.
 *
 * In: arguments. Out: what the agent reports; `node status` also as an exit code. Never: "healthy" while the agent names a
 * problem.
 */
import type { NodeItem, Removed, StatusItem, VersionItem } from '../api/schemas.ts';
import { printBgp } from './bgp-status.ts';
import { printChange } from './change.ts';
import { segment } from './client.ts';
import type { Command } from './command.ts';
import { CliError, exitCodes } from './exit.ts';
import type { Output, View } from './output.ts';
import { joined } from './table.ts';

interface ConfigItem {
  readonly key: string;
  readonly value: unknown;
  readonly source: string;
}

const nodeView: View<NodeItem> = {
  kind: 'node',
  name: ({ name }) => name,
  columns: [
    { header: 'NAME', value: ({ name }) => name },
    { header: 'ADDRESS4', value: ({ address4 }) => address4 },
    { header: 'ADDRESS6', value: ({ address6 }) => address6 },
    { header: 'AS', value: ({ asNumber }) => asNumber, alignRight: true },
    { header: 'REFLECTOR', value: ({ routeReflectorClusterId }) => routeReflectorClusterId },
    { header: 'VERSION', value: ({ version }) => version },
    { header: 'STARTED', value: ({ startedAt }) => startedAt },
    {
      header: 'LABELS',
      value: ({ labels }) => joined(Object.entries(labels).map(([key, value]) => `${key}=${value}`)),
      wide: true,
    },
  ],
};

const configView: View<ConfigItem> = {
  kind: 'setting',
  name: ({ key }) => key,
  columns: [
    { header: 'KEY', value: ({ key }) => key },
    { header: 'VALUE', value: ({ value }) => (typeof value === 'string' ? value : JSON.stringify(value)) },
    { header: 'SOURCE', value: ({ source }) => source },
  ],
};

export const agentCommands: readonly Command[] = [
  {
    words: 'node show',
    help: 'List the nodes.',
    async run({ api, output }) {
      await output.list(nodeView, (await api().send<{ items: NodeItem[] }>('GET', '/v1/nodes')).items);
    },
  },
  {
    words: 'node remove NAME',
    options: {
      force: { type: 'flag', help: 'also with containers: its blocks, addresses and endpoints go' },
    },
    help: 'Remove a node that will not come back, with all that it has.',
    async run({ args, api, output }) {
      const name = args.text('NAME');
      const path = `/v1/nodes/${segment(name)}${args.flag('force') ? '?force=true' : ''}`;
      const changed = await api().send<Removed>('DELETE', path);
      await printChange(output, 'node', name, `node ${name} removed`, changed);
    },
  },
  {
    words: 'node status',
    help: 'Show the state of this node; exit code 4 when it is not healthy.',
    async run({ api, output }) {
      const status = await api().send<StatusItem>('GET', '/v1/status');
      if (output.forPeople) printStatus(output, status);
      else await output.one('node', status.node, status, []);
      return status.healthy ? exitCodes.done : exitCodes.unhealthy;
    },
  },
  {
    words: 'config show',
    help: 'Show the effective configuration of the agent and where each value came from.',
    async run({ api, output }) {
      await output.list(configView, (await api().send<{ items: ConfigItem[] }>('GET', '/v1/config')).items);
    },
  },
  {
    words: 'version',
    help: 'Show the version of netctl and of the agent, if it can be reached.',
    async run({ api, output, version }) {
      const agent = await agentVersion(() => api().send<VersionItem>('GET', '/v1/version'));
      await output.one('version', version, { netctl: version, agent }, [
        ['netctl', version],
        ['agent', agent ?? 'not reachable'],
      ]);
    },
  },
];

async function agentVersion(ask: () => Promise<VersionItem>): Promise<string | null> {
  try {
    return (await ask()).version;
  } catch (error) {
    if (error instanceof CliError && error.exitCode === exitCodes.unreachable) return null;
    throw error;
  }
}

function printStatus(output: Output, status: StatusItem): void {
  const { agent, store, policy, endpoints, guard, bgp, problems } = status;
  const good = (ok: boolean, yes: string, no: string): string =>
    ok ? output.paint('green', yes) : output.paint('red', no);
  const since = store.since === null ? '' : ` since ${store.since}`;
  const counters = Object.entries(policy.counters).map(([name, count]) => `${name} ${count}`);
  const lines: [string, string][] = [
    ['Node', `${status.node}, ${good(status.healthy, 'healthy', 'not healthy')}`],
    ['Agent', `version ${agent.version}, process ${agent.pid}, started ${agent.startedAt}`],
    [
      'Store',
      `${store.type}, ${good(store.inSync, 'in sync', 'not in sync')}${since}, revision ${store.revision}`,
    ],
    ...(store.cluster === null ? [] : [clusterLine(store.cluster, good)]),
    [
      'Policy',
      [`${policy.backend}, ${good(policy.inSync, 'in sync', 'not in sync')}`, ...counters].join(', '),
    ],
    ['Endpoints', `${endpoints.total}, ${endpoints.unhealthy.length} unhealthy`],
    ['Held back', guard.held.length === 0 ? 'nothing' : `${guard.held.length}`],
  ];
  for (const [key, value] of lines) output.line(`${`${key}:`.padEnd(11)} ${value}`);
  if (bgp !== null) printBgp(output, bgp);
  if (problems.length === 0) return;
  output.line('');
  output.line(output.paint('bold', 'Problems:'));
  for (const problem of problems) output.line(`  ${output.paint('red', problem)}`);
}

function clusterLine(
  { reachable, since, held, waiting }: NonNullable<StatusItem['store']['cluster']>,
  good: (ok: boolean, yes: string, no: string) => string,
): [string, string] {
  const state =
    held === null
      ? good(reachable, 'reachable', `not reachable since ${since}`)
      : good(false, '', 'held back');
  return ['Cluster', `${state}, ${waiting} changes wait for it`];
}
