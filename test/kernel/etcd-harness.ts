/**
 * Real etcd servers and a bad network for the tests of the etcd store.
 *
 * In: how many members, flags. Out: processes in a directory of their own, on free ports of 127.0.0.1; a proxy that cuts and
 * swallows. Never: a process, directory or port left behind.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { systemClock } from '../../src/lib/clock.ts';
import type { Logger } from '../../src/lib/logger.ts';
import { type EtcdOptions, EtcdStore } from '../../src/store/etcd.ts';

const silent = () => {};
const quiet: Logger = { debug: silent, info: silent, warn: silent, error: silent };

/** One member. `stop` and `start` keep its data and ports. */
export class Member {
  readonly directory: string;
  readonly endpoint: string;
  readonly #arguments: readonly string[];
  #process: ChildProcess | null = null;

  constructor(directory: string, endpoint: string, flags: readonly string[]) {
    this.directory = directory;
    this.endpoint = endpoint;
    this.#arguments = flags;
  }

  start(): void {
    assert.equal(this.#process, null);
    this.#process = spawn('/usr/bin/etcd', this.#arguments, { stdio: 'ignore' });
  }

  /** SIGSTOP, and waits until it has come: on a busy machine the process still works for a while. */
  async freeze(): Promise<void> {
    const child = this.#process!;
    child.kill('SIGSTOP');
    const state = () => readFileSync(`/proc/${child.pid}/stat`, 'utf8').split(') ')[1]?.[0];
    await waitFor(() => state() === 'T', 'the member to freeze');
  }

  thaw(): void {
    this.#process!.kill('SIGCONT');
  }

  /** SIGKILL, and waits for its end. */
  async kill(): Promise<void> {
    const child = this.#process;
    if (!child) return;
    this.#process = null;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await ended;
  }

  async wipe(): Promise<void> {
    await rm(this.directory, { recursive: true, force: true });
  }
}

export interface Cluster {
  readonly members: readonly Member[];
  readonly endpoints: readonly string[];
  ctl(...args: string[]): Promise<string>;
  /** The store on these servers (or through these endpoints). Closed with the cluster. */
  open(options?: Partial<EtcdOptions>): EtcdStore;
  dispose(): Promise<void>;
}

/** Starts members and waits until they have a leader. `ctl` are flags for etcdctl, for example certificates. */
export async function startEtcd(
  count = 1,
  { flags = [] as string[], ctl = [] as string[], scheme = 'http' } = {},
): Promise<Cluster> {
  const root = await mkdtemp(join(tmpdir(), 'netctl-etcd-'));
  const ports = await freePorts(2 * count);
  const peers = Array.from({ length: count }, (_, index) => `m${index}=http://127.0.0.1:${ports[index]}`);
  const members = peers.map((peer, index) => {
    const endpoint = `${scheme}://127.0.0.1:${ports[count + index]}`;
    const directory = join(root, `m${index}`);
    const [name = '', peerUrl = ''] = peer.split('=');
    return new Member(directory, endpoint, [
      ...['--name', name, '--data-dir', directory, '--logger', 'zap', '--log-level', 'error'],
      ...['--listen-client-urls', endpoint, '--advertise-client-urls', endpoint],
      ...['--listen-peer-urls', peerUrl, '--initial-advertise-peer-urls', peerUrl],
      ...['--initial-cluster', peers.join(','), '--initial-cluster-token', root],
      ...['--heartbeat-interval', '50', '--election-timeout', '500'],
      ...flags,
    ]);
  });
  const endpoints = members.map((member) => member.endpoint);
  const stores: EtcdStore[] = [];
  const cluster: Cluster = {
    members,
    endpoints,
    ctl: async (...args) => {
      const common = ['--endpoints', endpoints.join(','), '--command-timeout', '2s', ...ctl];
      const env = { PATH: '/usr/bin:/bin', ETCDCTL_API: '3' };
      return (await promisify(execFile)('/usr/bin/etcdctl', [...common, ...args], { env })).stdout;
    },
    open: (options = {}) => {
      const store = new EtcdStore({
        endpoints,
        prefix: '/test/',
        clock: systemClock,
        logger: quiet,
        ...options,
      });
      stores.push(store);
      return store;
    },
    dispose: async () => {
      await Promise.all(stores.map((store) => store.close()));
      for (const member of members) await member.kill();
      await rm(root, { recursive: true, force: true });
    },
  };
  for (const member of members) member.start();
  await healthy(cluster);
  return cluster;
}

export async function healthy(cluster: Cluster): Promise<void> {
  for (let tries = 0; ; tries++) {
    try {
      await cluster.ctl('endpoint', 'health');
      return;
    } catch (error) {
      if (tries === 100) throw error;
      await sleep(50);
    }
  }
}

/** Waits until the condition holds. */
export async function waitFor(
  condition: () => boolean,
  what: string | (() => string),
  milliseconds = 15_000,
): Promise<void> {
  for (const end = performance.now() + milliseconds; !condition(); await sleep(5)) {
    if (performance.now() > end)
      assert.fail(`waited ${milliseconds} ms for ${typeof what === 'string' ? what : what()}`);
  }
}

/** A TCP proxy in front of a member: it cuts, refuses, swallows. */
export class TcpProxy {
  readonly #target: number;
  readonly #server: Server;
  readonly #pairs = new Set<[Socket, Socket]>();
  #port = 0;
  /** Answers are swallowed: requests go through. */
  dropAnswers = false;
  /** Bytes of answers that were swallowed. */
  dropped = 0;
  /** New connections are closed at once. */
  refuse = false;
  /** Connections that were accepted. */
  accepted = 0;
  /** Cuts all connections each time that so many bytes of answers have passed, `cuts` times. */
  cutEach = Number.POSITIVE_INFINITY;
  cuts = 0;
  #passed = 0;

  constructor(endpoint: string) {
    this.#target = Number(new URL(endpoint).port);
    this.#server = createServer((client) => this.#connect(client));
  }

  static async to(endpoint: string): Promise<TcpProxy> {
    const proxy = new TcpProxy(endpoint);
    await new Promise<void>((resolve) => proxy.#server.listen(0, '127.0.0.1', resolve));
    // A test that fails before it closes the proxy must not keep the process.
    proxy.#server.unref();
    proxy.#port = (proxy.#server.address() as { port: number }).port;
    return proxy;
  }

  endpoint(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  cut(): void {
    for (const [client, server] of this.#pairs) {
      client.destroy();
      server.destroy();
    }
  }

  async close(): Promise<void> {
    this.cut();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #connect(client: Socket): void {
    client.on('error', silent);
    this.accepted += 1;
    if (this.refuse) {
      client.destroy();
      return;
    }
    const server = createConnection(this.#target, '127.0.0.1');
    server.on('error', silent);
    const pair: [Socket, Socket] = [client, server];
    this.#pairs.add(pair);
    client.on('data', (bytes) => server.write(bytes));
    server.on('data', (bytes) => {
      if (this.dropAnswers) {
        this.dropped += bytes.length;
        return;
      }
      client.write(bytes);
      this.#passed += bytes.length;
      if (this.#passed < this.cutEach || this.cuts === 0) return;
      this.#passed = 0;
      this.cuts -= 1;
      // What was written is on its way: the cut comes after it.
      setImmediate(() => this.cut());
    });
    const close = () => {
      this.#pairs.delete(pair);
      client.destroy();
      server.destroy();
    };
    client.on('close', close);
    server.on('close', close);
  }
}

/**
 * Below those that the kernel gives to outgoing connections (32768 on): a member that starts again has its port again, which such a
 * connection of anybody here may have taken meanwhile.
 */
async function freePorts(count: number): Promise<number[]> {
  const ports = new Set<number>();
  while (ports.size < count) {
    const port = randomInt(10_000, 32_768);
    if (await isFree(port)) ports.add(port);
  }
  return [...ports];
}

function isFree(port: number): Promise<boolean> {
  const server = createServer();
  return new Promise((answer) => {
    server.once('error', () => answer(false));
    server.listen(port, '127.0.0.1', () => server.close(() => answer(true)));
  });
}
