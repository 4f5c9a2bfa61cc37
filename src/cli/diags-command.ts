/**
 * `netctl diags`: what somebody who helps from afar asks for first, in one text.
 *
 *     netctl diags > diags.txt
 *
 * In: the agent's answers, and what programs say of this host's kernel where the agent is on this host. Out: one section after the other; what
 * could not be had says why. Never: a password or key (the API shows none), a change, an end before the last section.
 */
import type { StatusItem } from '../api/schemas.ts';
import { run } from '../lib/process.ts';
import type { Client } from './client.ts';
import type { Command } from './command.ts';
import { CliError, exitCodes } from './exit.ts';

const programTimeoutMs = 10_000;

/** By name: a path of the API, all of it GET. */
const asked: Readonly<Record<string, string>> = {
  version: '/v1/version',
  config: '/v1/config',
  nodes: '/v1/nodes',
  settings: '/v1/settings',
  pools: '/v1/pools',
  blocks: '/v1/ipam/blocks',
  'ipam check': '/v1/ipam/check',
  endpoints: '/v1/endpoints',
  enforcement: '/v1/enforcement',
  profiles: '/v1/documents?kind=profile',
  policies: '/v1/documents?kind=policy',
  'address sets': '/v1/documents?kind=address-set',
  'host endpoints': '/v1/documents?kind=host-endpoint',
  'BGP peers': '/v1/bgp/peers',
  'BGP settings': '/v1/bgp/settings',
};

/** What reads the kernel, and only that. */
const programs: readonly string[] = [
  'uname -a',
  'ip -d link',
  'ip address',
  'ip route show table all',
  'ip -6 route show table all',
  'ip rule',
  'ip -6 rule',
  'ip neighbour',
  'tc qdisc',
  'sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding net.ipv4.conf.all.rp_filter',
  'nft list ruleset',
  'iptables-save -c',
  'ip6tables-save -c',
  'ipset list',
  'ls -l /etc/cni/net.d',
  'journalctl --no-pager -u netctld -n 1000',
];

type Section = readonly [title: string, content: unknown];

export const diagsCommands: readonly Command[] = [
  {
    words: 'diags',
    help: 'Print all that helps to find a fault: what the agent says, and the kernel of this host; exit code 4 when not healthy, 3 without an agent.',
    async run({ args, api, output }) {
      const client = api();
      const here = !(args.optionalText('api') ?? '').startsWith('https:');
      const [status, code] = await statusOf(client);
      const sections: Section[] = [['status', status]];
      if (code !== exitCodes.unreachable)
        for (const [title, path] of Object.entries(asked))
          sections.push([title, await answered(() => client.send('GET', path))]);
      if (code !== exitCodes.unreachable)
        sections.push(['metrics', await answered(() => client.text('/metrics'))]);
      if (here)
        for (const line of programs) {
          const [program = '', ...words] = line.split(' ');
          sections.push([`$ ${line}`, await answered(() => outputOf(program, words))]);
        }
      if (output.forPeople)
        for (const [title, content] of sections) output.line(`== ${title}\n${text(content)}\n`);
      else await output.data(Object.fromEntries(sections));
      return code;
    },
  },
];

async function statusOf(client: Client): Promise<[content: unknown, code: number]> {
  try {
    const status = await client.send<StatusItem>('GET', '/v1/status');
    return [status, status.healthy ? exitCodes.done : exitCodes.unhealthy];
  } catch (error) {
    return [reason(error), error instanceof CliError ? error.exitCode : exitCodes.refused];
  }
}

async function outputOf(program: string, words: readonly string[]): Promise<string> {
  return (await run(program, words, { timeoutMs: programTimeoutMs })).stdout;
}

/** What it says, or why it says nothing. */
async function answered(ask: () => Promise<unknown>): Promise<unknown> {
  try {
    return await ask();
  } catch (error) {
    return reason(error);
  }
}

function reason(error: unknown): string {
  return `not to be had: ${error instanceof Error ? error.message : String(error)}`;
}

function text(content: unknown): string {
  return typeof content === 'string' ? content.trimEnd() : JSON.stringify(content, null, 1);
}
