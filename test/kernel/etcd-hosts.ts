/**
 * Hosts with real agents on one real etcd that they reach over a wire of their own, which can be pulled.
 *
 * In: names, flags for the agents. Out: hosts, containers, the command line and the API of each. Never: a namespace, process or
 * port left behind after close().
 */
import assert from 'node:assert/strict';
import { request } from 'node:http';
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { type CniCall, type Conflist, Container } from '../../lab/container.ts';
import { Host } from '../../lab/host.ts';
import { eventually, mustRun } from '../../lab/run.ts';
import { type Cluster, startEtcd } from './etcd-harness.ts';

export const conflist: Conflist = { cniVersion: '1.0.0', name: 'edge', plugins: [{ type: 'netctl' }] };

export interface Joined {
  readonly container: Container;
  readonly address: string;
  readonly mac: string;
}

export class EtcdHosts {
  readonly etcd: Cluster;
  readonly hosts: Host[] = [];
  readonly #containers: Container[] = [];
  readonly #gate: Server;
  readonly #open = new Set<Socket>();
  readonly #flags = new Map<string, readonly string[]>();

  readonly #scheme: string;

  private constructor(etcd: Cluster) {
    this.etcd = etcd;
    this.#scheme = new URL(etcd.endpoints[0]!).protocol;
    const port = Number(new URL(etcd.endpoints[0]!).port);
    this.#gate = createServer((socket) => {
      this.#open.add(socket.once('close', () => this.#open.delete(socket)));
      const onward = createConnection(port, '127.0.0.1');
      for (const [from, to] of [
        [socket, onward],
        [onward, socket],
      ] as const) {
        from.pipe(to);
        from.on('error', () => to.destroy());
        from.on('close', () => to.destroy());
      }
    });
  }

  /** @param tag part of the hosts' names, short and unique among the test files @param flags for each agent @param etcd if not a plain one */
  static async create(
    tag: string,
    count: number,
    flags: readonly string[] = [],
    etcd?: Cluster,
  ): Promise<EtcdHosts> {
    const all = new EtcdHosts(etcd ?? (await startEtcd()));
    try {
      await new Promise<void>((listening) => all.#gate.listen(0, '0.0.0.0', listening));
      for (let i = 0; i < count; i++) await all.#add(`${tag}${i}x${process.pid}`, `198.18.${i}`, flags);
      return all;
    } catch (error) {
      await all.close();
      throw error;
    }
  }

  async #add(name: string, subnet: string, flags: readonly string[]): Promise<void> {
    const host = await Host.create({ name, address: `${subnet}.1` });
    this.hosts.push(host);
    await mustRun(['ip', 'address', 'add', `${subnet}.254/24`, 'dev', `up-${name}`]);
    const etcd = ['--datastore', 'etcd', '--etcd-endpoints', `${this.#scheme}//${subnet}.254:${this.port}`];
    this.#flags.set(name, [...etcd, ...flags]);
    await this.start(host);
  }

  /** On which etcd is reached, at every address of the caller's namespace. */
  get port(): number {
    return (this.#gate.address() as { port: number }).port;
  }

  /** The agent of a host, with more flags than at first. */
  async start(host: Host, more: readonly string[] = []): Promise<void> {
    await host.start([...this.#flags.get(host.name)!, ...more]);
  }

  /** The wire to everything else, as a cable that is pulled. */
  async wire(host: Host, state: 'up' | 'down'): Promise<void> {
    await mustRun(['ip', 'link', 'set', `up-${host.name}`, state]);
  }

  /** A new container joins; with `args` as CNI_ARGS. */
  async join(host: Host, name: string, call: CniCall = {}): Promise<Joined> {
    const container = await Container.create(host, name);
    this.#containers.push(container);
    const { ips, interfaces } = await container.cniAdd(conflist, call);
    const { mac = '' } = interfaces[ips[0]!.interface ?? 0]!;
    return { container, address: ips[0]!.address.replace(/\/.*/, ''), mac };
  }

  /** `netctl WORDS`, which must succeed. */
  async ok(host: Host, ...words: string[]): Promise<string> {
    const { code, stdout, stderr } = await host.netctl(words);
    assert.equal(code, 0, `${words.join(' ')}: ${stderr}`);
    return stdout;
  }

  async json<T>(host: Host, ...words: string[]): Promise<T> {
    return JSON.parse(await this.ok(host, ...words, '-o', 'json')) as T;
  }

  /** A request to the agent's API. */
  // biome-ignore lint/suspicious/noExplicitAny: each test says what it expects
  api(host: Host, method: string, path: string, body?: object): Promise<{ status: number; body: any }> {
    const socketPath = join(host.runDirectory, 'api.sock');
    const headers = body === undefined ? {} : { 'content-type': 'application/json' };
    return new Promise((answer, reject) => {
      const call = request({ socketPath, method, path, headers }, (response) => {
        let text = '';
        response.setEncoding('utf8').on('data', (part: string) => {
          text += part;
        });
        response.on('end', () => answer({ status: response.statusCode ?? 0, body: JSON.parse(text) }));
      });
      call.on('error', reject);
      call.end(body === undefined ? undefined : JSON.stringify(body));
    });
  }

  /** Links of endpoints that the host has. */
  async links(host: Host): Promise<string[]> {
    return (await host.mustExec(['ip', '-o', 'link'])).match(/nctl[0-9a-f]{11}/g) ?? [];
  }

  healthy(host: Host): Promise<true> {
    return eventually(`${host.name} is healthy`, 30_000, async () =>
      (await host.netctl(['node', 'status'])).code === 0 ? (true as const) : null,
    );
  }

  async close(): Promise<void> {
    await Promise.all(this.#containers.map((container) => container.close()));
    await Promise.all(this.hosts.map((host) => host.close()));
    this.#gate.close();
    for (const socket of this.#open) socket.destroy();
    await this.etcd.dispose();
  }
}
