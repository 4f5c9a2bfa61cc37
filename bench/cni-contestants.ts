/**
 * Who takes part in the bench of ADD and DEL, and one measured run of calls.
 *
 * In: a started etcd. Out: netctl with its embedded store and on etcd, the reference plugins of Debian's containernetworking-plugins with
 * host-local, and a program that only asks the kernel for the same links and routes. Never: two that share a host's namespace with
 * netctl, a run with a failed call in it.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Host, type NamespaceHost } from '../lab/host.ts';
import { type Cluster, startEtcd } from '../test/kernel/etcd-harness.ts';

const built = resolve(import.meta.dirname, '../dist/bench');

export interface Contestant {
  readonly name: string;
  readonly host: Host;
  readonly program: string;
  readonly plugin: Readonly<Record<string, unknown>>;
}

export interface Calls {
  /** Milliseconds of each, in the order in which they ended. */
  readonly times: readonly number[];
  /** Milliseconds of the connections made after each, where some were asked for. */
  readonly connections: readonly number[];
  readonly perSecond: number;
}

export class Contest {
  readonly embedded: Contestant;
  readonly etcd: Contestant;
  readonly macvlan: Contestant;
  readonly limit: Contestant;
  readonly references: readonly Contestant[];
  readonly #hosts: readonly NamespaceHost[];
  readonly #cluster: Cluster;
  readonly #directory: string;

  private constructor(hosts: readonly NamespaceHost[], cluster: Cluster) {
    const [alone, clustered, others] = hosts as unknown as [Host, Host, Host];
    this.#hosts = hosts;
    this.#cluster = cluster;
    this.#directory = mkdtempSync(join(tmpdir(), 'host-local-'));
    const ours = (name: string, host: Host): Contestant => ({
      name,
      host,
      program: host.programs.cni,
      plugin: { type: 'netctl', socket: host.cniSocket },
    });
    this.embedded = ours('netctl', alone);
    this.etcd = ours('netctl, etcd', clustered);
    const wired = ours('netctl, macvlan', alone);
    this.macvlan = { ...wired, plugin: { ...wired.plugin, mode: 'macvlan', parent: 'eth0', pools: ['lan'] } };
    this.limit = { name: 'only the kernel (C)', host: others, program: join(built, 'cni-limit'), plugin: {} };
    const reference = (type: string, net: number, plugin: object): Contestant => {
      const ipam = { type: 'host-local', subnet: `10.${net}.0.0/16`, dataDir: join(this.#directory, type) };
      return {
        name: `${type} + host-local`,
        host: others,
        program: `/usr/lib/cni/${type}`,
        plugin: { type, ipam, ...plugin },
      };
    };
    this.references = [
      reference('ptp', 71, {}),
      reference('bridge', 72, { bridge: 'bench0', isGateway: true }),
      reference('macvlan', 73, { master: 'eth0' }),
    ];
  }

  /** Each has served some hundred calls: what is measured is an agent as it is after weeks, not one whose code is still cold. */
  static async open(containers: number, warmUps: number): Promise<Contest> {
    const cluster = await startEtcd();
    const hosts: NamespaceHost[] = [];
    try {
      hosts.push(await Host.create({ name: 'alone', address: '192.168.78.21' }));
      // In the sandbox's own namespace, where etcd is.
      hosts.push(await Host.create({ name: 'clustered', address: '192.168.79.21', netns: null }));
      hosts.push(await Host.create({ name: 'others', address: '192.168.80.21' }));
      const contest = new Contest(hosts, cluster);
      const etcd = ['--datastore', 'etcd', '--etcd-endpoints', cluster.endpoints.join(',')];
      for (const { host } of contest.ours) {
        await host.start(['--no-bgp', ...(host === contest.etcd.host ? etcd : [])]);
        await host.mustNetctl(['pool', 'add', '10.65.0.0/16', '--cooldown', '1']);
      }
      const lan = ['10.67.0.0/16', '--kind', 'macvlan', '--name', 'lan', '--cooldown', '1'];
      await contest.macvlan.host.mustNetctl(['pool', 'add', ...lan]);
      await contest.limit.host.mustExec(
        [join(built, 'cni-calls'), 'namespaces', '-', '1', '0', `${containers}`],
        {
          deadlineMs: 120_000,
        },
      );
      for (let i = 0; i < warmUps; i += 50)
        for (const one of [...contest.ours, contest.macvlan])
          for (const command of ['ADD', 'DEL'] as const)
            await calls(one, command, i % 100 === 0 ? 1 : 10, 0, 50);
      return contest;
    } catch (error) {
      for (const host of hosts) await host.close();
      await cluster.dispose();
      throw error;
    }
  }

  get ours(): readonly Contestant[] {
    return [this.embedded, this.etcd];
  }

  get all(): readonly Contestant[] {
    return [...this.ours, this.macvlan, this.limit, ...this.references];
  }

  async close(): Promise<void> {
    for (const host of this.#hosts) await host.close();
    await this.#cluster.dispose();
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

/**
 * Calls the plugin for the containers `from` to `to` - 1, up to `parallel` at once.
 * @param connects whether a connection into the container is made after each
 * @throws when one fails, with what it printed
 */
export async function calls(
  one: Contestant,
  command: 'ADD' | 'DEL',
  parallel: number,
  from: number,
  to: number,
  connects = false,
): Promise<Calls> {
  const stdin = JSON.stringify({ cniVersion: '1.0.0', name: 'bench', ...one.plugin });
  const numbers = [parallel, from, to].map(String);
  const printed = await one.host.mustExec(
    [join(built, 'cni-calls'), command, one.program, ...numbers, ...(connects ? ['connect'] : [])],
    { stdin, deadlineMs: 300_000 },
  );
  const lines = printed.trim().split('\n');
  const total = Number(lines.pop()!.split(' ')[1]) / 1e6;
  const columns = lines.map((line) => line.split(' ').map((text) => Number(text) / 1000));
  return {
    times: columns.map(([time]) => time!),
    connections: columns.flatMap((row) => row.slice(1)),
    perSecond: (to - from) / total,
  };
}
