/**
 * Commands about the agent itself: `node status`, `check`, `config show`, `version`.
 *
 * In: arguments. Out: what the agent reports; `node status` also as an exit code. Never: "healthy" while the agent names a
 * problem.
 */
import type { StatusItem, VersionItem } from '../api/schemas.ts';
import { printBgp } from './bgp-status.ts';
import type { Command } from './command.ts';
import { CliError, exitCodes } from './exit.ts';
import type { Output, View } from './output.ts';

interface ConfigItem {
  readonly key: string;
  readonly value: unknown;
  readonly source: string;
}

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
    words: 'check',
    help: 'Say what enforces policy on this host and why, which iptables and BIRD it has, and what of others or of the kernel stands in the way; exit code 4 when not healthy.',
    async run({ api, output }) {
      const { node, healthy, problems, policy, bgp, host } = await api().send<StatusItem>(
        'GET',
        '/v1/status',
      );
      const { backend, reason, iptables, inSync, notices, lastRepair } = policy;
      const bird = bgp?.bird?.version ?? null;
      const item = {
        node,
        healthy,
        backend,
        reason,
        iptables,
        bird,
        inSync,
        notices,
        host,
        lastRepair,
        problems,
      };
      await output.one('check', node, item, [
        ['Policy', `${backend}, ${inSync ? 'in sync' : 'not in sync'}`],
        ['Because', reason],
        ['iptables', `iptables-${iptables}`],
        ['BIRD', bird ?? (bgp === null ? 'BGP is switched off' : 'does not run')],
        ['Last repair', lastRepair === null ? 'none' : `${lastRepair.at}: ${lastRepair.what.join('; ')}`],
        ...notices.map((notice): [string, string] => ['Others', notice]),
        ...host.notices.map((notice): [string, string] => ['Kernel', notice]),
        ...problems.map((problem): [string, string] => ['Problem', problem]),
      ]);
      return healthy ? exitCodes.done : exitCodes.unhealthy;
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
    ...policy.notices.map((notice): [string, string] => ['Others', notice]),
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
  { reachable, since, held, waiting, dropped, lease }: NonNullable<StatusItem['store']['cluster']>,
  good: (ok: boolean, yes: string, no: string) => string,
): [string, string] {
  const state =
    held === null
      ? good(reachable, 'reachable', `not reachable since ${since}`)
      : good(false, '', 'held back');
  const seen = good(lease.held, `lease since ${lease.since}`, `no lease since ${lease.since}`);
  const lost = dropped === 0 ? '' : `, ${dropped} changes lost with their blocks`;
  return ['Cluster', `${state}, ${waiting} changes wait for it${lost}, ${seen}`];
}
