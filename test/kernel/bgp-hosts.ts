/**
 * Hosts with an agent and a BIRD each, on one switch, with one etcd: what the tests of routed traffic between hosts stand on.
 *
 * In: how many. Out: the hosts, containers on them, counts of what their kernels say about routes. Never: anything left after close().
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { type Conflist, Container } from '../../lab/container.ts';
import { Host, type NamespaceHost } from '../../lab/host.ts';
import { eventually, follow, mustRun, run } from '../../lab/run.ts';
import { type Cluster, startEtcd } from './etcd-harness.ts';

export const conflist: Conflist = { cniVersion: '1.0.0', name: 'edge', plugins: [{ type: 'netctl' }] };

export interface Joined {
  readonly container: Container;
  readonly address4: string;
  readonly address6: string;
}

export class BgpHosts {
  readonly hosts: NamespaceHost[] = [];
  readonly #containers: Container[] = [];
  readonly #bridge = `brb${process.pid}`;
  readonly #sockets = new Set<Socket>();
  readonly #watches: (() => Promise<string>)[] = [];
  readonly #flags: readonly string[];
  #etcd: Cluster | null = null;
  #gate: Server | null = null;

  private constructor(flags: readonly string[]) {
    this.#flags = flags;
  }

  /** The hosts are `b1x…`, `b2x…` at 192.0.2.1, .2 and so on (fd00:1::1 …), agents started, two pools made. @param flags for all agents */
  static async create(count: number, flags: readonly string[] = []): Promise<BgpHosts> {
    const all = new BgpHosts(flags);
    try {
      await all.#begin(count);
      return all;
    } catch (error) {
      await all.close();
      throw error;
    }
  }

  async close(): Promise<void> {
    // A test that failed has not ended its own, and the test runner waits for their pipes.
    await Promise.all(this.#watches.map((stop) => stop()));
    await Promise.all(this.#containers.map((container) => container.close()));
    await Promise.all(this.hosts.map((host) => host.close()));
    await run(['ip', 'link', 'delete', this.#bridge]);
    this.#gate?.close();
    for (const socket of this.#sockets) socket.destroy();
    await this.#etcd?.dispose();
  }

  flags(i: number): string[] {
    return [
      ...['--address6', `fd00:1::${i + 1}`, '--resync-seconds', '5'],
      ...['--datastore', 'etcd', '--etcd-endpoints', 'http://192.0.2.254:2379'],
      ...this.#flags,
    ];
  }

  /** The cable between the hosts and etcd. */
  async cutEtcd(): Promise<void> {
    this.#gate?.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  async healEtcd(): Promise<void> {
    await this.#openGate();
  }

  async join(host: Host, name: string, args = ''): Promise<Joined> {
    const container = await Container.create(host, name);
    this.#containers.push(container);
    const { ips } = await container.cniAdd(conflist, { args });
    const [address4 = '', address6 = ''] = ips.map(({ address }) => address.split('/')[0]!);
    return { container, address4, address6 };
  }

  /** Waits until every host has a session with every other. */
  async converged(hosts: readonly Host[] = this.hosts): Promise<void> {
    for (const host of hosts) {
      await eventually(`${host.name} is healthy`, 20_000, async () => {
        const { code } = await host.netctl(['node', 'status']);
        return code === 0;
      }).catch(async (error: Error) => {
        const { stdout } = await host.netctl(['node', 'status', '-o', 'json']);
        throw new Error(`${error.message}: ${stdout}\n${host.log().slice(-3000)}`);
      });
    }
  }

  /**
   * What the host's kernel says about routes, of both families, to prefixes that match. Left out is a route written over itself: the
   * kernel tells of it for IPv6 (BIRD does so once after a restart), and no packet can notice.
   */
  async watchRoutes(host: Host, pattern: RegExp): Promise<() => Promise<string[]>> {
    const stop = await follow(host.command(['ip', 'monitor', 'route']));
    this.#watches.push(stop);
    const known = new Set((await this.routes(host)).split('\n').map((line) => line.trim()));
    return async () =>
      (await stop()).split('\n').filter((line) => pattern.test(line) && !known.has(line.trim()));
  }

  /** Of both families, as `ip` prints them. */
  async routes(host: Host): Promise<string> {
    return (await host.mustExec(['ip', 'route'])) + (await host.mustExec(['ip', '-6', 'route']));
  }

  birdPid(host: Host): number {
    return Number(readFileSync(join(host.runDirectory, 'bird.pid'), 'utf8'));
  }

  async #begin(count: number): Promise<void> {
    this.#etcd = await startEtcd();
    await this.#openGate();
    await mustRun(['ip', 'link', 'add', this.#bridge, 'type', 'bridge', 'mcast_snooping', '0']);
    await mustRun(['ip', 'link', 'set', this.#bridge, 'up', 'addrgenmode', 'none']);
    await mustRun(['ip', 'address', 'add', '192.0.2.254/24', 'dev', this.#bridge]);
    for (let i = 0; i < count; i++) {
      const host = await Host.create({ name: `b${i + 1}x${process.pid}`, address: `192.0.2.${i + 1}` });
      this.hosts.push(host);
      await mustRun(['ip', 'link', 'set', `up-${host.name}`, 'master', this.#bridge]);
      await host.mustExec(['ip', 'address', 'add', `fd00:1::${i + 1}/64`, 'dev', 'eth0', 'nodad']);
      await host.start(this.flags(i));
    }
    for (const pool of ['10.65.0.0/16', 'fd00:65::/64']) {
      const { code, stderr } = await this.hosts[0]!.netctl(['pool', 'add', pool, '--cooldown', '0']);
      assert.equal(code, 0, stderr);
    }
    for (const host of this.hosts)
      await eventually('both pools are on the host', 5000, async () =>
        (await host.netctl(['pool', 'show', '-o', 'json'])).stdout.includes('fd00:65'),
      );
    await this.converged();
  }

  async #openGate(): Promise<void> {
    const port = Number(new URL(this.#etcd!.endpoints[0]!).port);
    this.#gate = createServer((socket) => {
      const onward = createConnection(port, '127.0.0.1');
      for (const [from, to] of [
        [socket, onward],
        [onward, socket],
      ] as const) {
        this.#sockets.add(from.once('close', () => this.#sockets.delete(from)));
        from.pipe(to);
        from.on('error', () => to.destroy());
      }
    });
    await new Promise<void>((listening) => this.#gate!.listen(2379, '0.0.0.0', listening));
  }
}
