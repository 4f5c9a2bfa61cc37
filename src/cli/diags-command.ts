/**
 * `netctl diags`: what whoever helps wants to see, in one go: what the agent says, and what this machine's kernel, BIRD and log have.
 *
 * In: the API, programs of this machine. Out: sections with a title each. Never: a change, a password, an end of it because a part cannot
 * be asked (then that part says why).
 */
import { run } from '../lib/process.ts';
import type { Client } from './client.ts';
import type { Command } from './command.ts';

const paths: readonly string[] = [
  ...['/v1/version', '/v1/status', '/v1/config', '/v1/nodes', '/v1/settings', '/v1/enforcement'],
  ...['/v1/pools', '/v1/ipam/blocks', '/v1/ipam/usage', '/v1/ipam/check', '/v1/endpoints', '/v1/ports'],
  ...['/v1/profiles', '/v1/bgp/settings', '/v1/bgp/peers'],
  ...['policy', 'address-set', 'host-endpoint', 'bgp-filter'].map((kind) => `/v1/documents?kind=${kind}`),
];

const programs: readonly string[] = [
  ...[
    'uname -a',
    'ip -d link',
    'ip address',
    'ip rule',
    'ip -6 rule',
    'ip route',
    'ip -6 route',
    'ip neighbour',
  ],
  ...['tc qdisc', 'nft list ruleset', 'iptables-save -c', 'ip6tables-save -c', 'ipset list'],
  'sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding net.ipv4.conf.all.rp_filter',
  ...['journalctl --no-pager --lines=1000 --unit=netctld', 'ls -l /etc/cni/net.d'],
];
const timeoutMs = 10_000;

export const diagsCommands: readonly Command[] = [
  {
    words: 'diags',
    help: 'Print what the agent says and what this machine has in kernel, BIRD and log, for whoever helps: netctl diags > diags.txt',
    async run({ api, output }) {
      const agent = paths.map((path): Section => [`GET ${path}`, () => api().send('GET', path)]);
      const machine = [...programs, await birdc(api)].map((line): Section => [line, () => printed(line)]);
      const sections: Record<string, unknown> = {};
      for (const [title, ask] of [...agent, ...machine]) {
        const found = await ask().catch((error: unknown) => `cannot be asked: ${(error as Error).message}`);
        if (output.forPeople) output.write(`==== ${title}\n${textOf(found)}\n\n`);
        sections[title] = found;
      }
      if (!output.forPeople) await output.data(sections);
    },
  },
];

type Section = readonly [title: string, ask: () => Promise<unknown>];

async function printed(line: string): Promise<string> {
  const [program = '', ...args] = line.split(' ');
  return (await run(program, args, { timeoutMs })).stdout;
}

/** The agent knows where its BIRD listens. */
async function birdc(api: () => Client): Promise<string> {
  const config = await api()
    .send<{ items: { key: string; value: unknown }[] }>('GET', '/v1/config')
    .catch(() => ({ items: [] }));
  const directory = config.items.find(({ key }) => key === 'runDir')?.value ?? '/run/netctl';
  return `birdc -r -s ${directory}/bird.ctl show protocols all`;
}

const textOf = (found: unknown): string =>
  typeof found === 'string' ? found.trimEnd() : JSON.stringify(found, null, 2);
