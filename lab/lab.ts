/**
 * Several hosts on one machine: a switch with etcd, hosts with agents on it, and a router of another autonomous system if wanted.
 *
 *     ┌ machine "switch": bridge lan ──────────────────────────────────┐
 *     │  ├── node1 ── containers     each host: its own network, mount, │
 *     │  ├── node2 ── containers     process and host-name namespaces,  │
 *     │  ├── etcd                    /run/netctl, agent, BIRD           │
 *     │  └── router (AS 65000)                                          │
 *     └────────────────────────────────────────────────────────────────┘
 *
 * In: how many hosts, what else. Out: up, down, the hosts. The switch's first process holds everything, so that its end is
 * the lab's end, however it comes. Never: a link, namespace, process or setting outside of it.
 */
import { existsSync, writeFileSync } from 'node:fs';
import { isRunning } from './daemon.ts';
import { Etcd } from './etcd.ts';
import { Machine } from './machine.ts';
import * as network from './network.ts';
import { LabNode } from './node.ts';
import { LabDirectory, type LabRecord, labNames } from './record.ts';
import { type RouterKind, routerPlan } from './router.ts';
import { mustRun } from './run.ts';
import { lateSettings, type Request, reflectorLabels, sessionsOf, settings } from './settings.ts';
import { apiOf, converged } from './state.ts';
import { atSwitch, Station, stationDirectory } from './station.ts';

export interface LabOptions {
  /** Of the lab; several may be up at once. */
  readonly name?: string;
  readonly nodes?: number;
  /** That many nodes, the first ones, reflect routes; there is no mesh then. */
  readonly reflectors?: number;
  readonly router?: RouterKind | null;
  /** Ends the attempt; what was made so far is taken down. */
  readonly signal?: AbortSignal;
  readonly progress?: (step: string, done: number, all: number) => void;
}

/** Agents are mostly waiting for each other's processor while they start. */
const atOnce = 4;

export class Lab {
  readonly name: string;
  readonly nodes: readonly LabNode[];
  readonly #directory: LabDirectory;
  readonly #switch: Machine;
  readonly #record: LabRecord;
  /** The store of all hosts. */
  readonly etcd: Etcd;
  readonly #router: Station | null;
  readonly #stations: Station[] = [];

  private constructor(name: string, directory: LabDirectory, onSwitch: Machine, record: LabRecord) {
    this.name = name;
    this.#directory = directory;
    this.#switch = onSwitch;
    this.#record = record;
    const own = Array.from({ length: record.nodes }, (_, i) => network.nodeAddresses(i + 1));
    const all = [network.routerAddresses, network.etcdAddresses, ...own];
    const station = (name: string, addresses: network.Addresses, loopback: readonly string[] = []) => {
      const process = record.machines[name];
      const made = new Station({
        name,
        addresses,
        loopback,
        neighbours: all.filter((one) => one !== addresses),
        directory: `${directory.path}/${name}`,
        onSwitch,
        machine: process !== undefined && isRunning(process) ? new Machine(process) : null,
      });
      this.#stations.push(made);
      return made;
    };
    this.etcd = new Etcd(station('etcd', network.etcdAddresses));
    const { address4, address6 } = network.outside;
    const router = () => station('router', network.routerAddresses, [`${address4}/32`, `${address6}/128`]);
    this.#router = record.router === null ? null : router();
    this.nodes = own.map(
      (addresses, i) =>
        new LabNode(station(`node${i + 1}`, addresses), i < record.reflectors ? reflectorLabels : {}),
    );
  }

  /** Returns once every agent is healthy and every session is there. @throws with the reason; nothing is left then */
  static async up(options: LabOptions = {}): Promise<Lab> {
    const { name = 'default', nodes = 3, reflectors = 0, router = null, signal } = options;
    if (!Number.isInteger(nodes) || nodes < 1 || nodes > network.mostNodes)
      throw new Error(`${nodes} nodes: a lab has 1 to ${network.mostNodes}`);
    if (!Number.isInteger(reflectors) || reflectors < 0 || reflectors > nodes)
      throw new Error(`${reflectors} reflectors: a lab of ${nodes} nodes has 0 to ${nodes}`);
    if (process.getuid?.() !== 0) throw new Error('a lab is made of namespaces: that needs root');
    requirePrograms(router);
    const directory = new LabDirectory(name);
    if (directory.exists) throw new Error(`there is a lab ${name} already: netctl lab down --name ${name}`);
    directory.create();
    const record: LabRecord = { nodes, reflectors, router, machines: {} };
    let onSwitch: Machine | null = null;
    try {
      directory.write(record);
      onSwitch = await Machine.boot({ name: 'switch', record: directory.switchRecord });
      const lab = new Lab(name, directory, onSwitch, record);
      await lab.#build(options);
      return lab;
    } catch (error) {
      await onSwitch?.kill();
      directory.remove();
      throw signal?.aborted ? new Error('interrupted; nothing is left of the lab') : error;
    }
  }

  /** One that is up. @throws when it is not */
  static open(name = 'default'): Lab {
    const directory = new LabDirectory(name);
    if (!directory.exists) {
      const others = labNames();
      const which = others.length === 0 ? '' : ` (there is: ${others.join(', ')})`;
      throw new Error(`there is no lab ${name}${which}: netctl lab up makes one`);
    }
    const process = directory.readSwitch();
    if (process === null || !isRunning(process))
      throw new Error(`lab ${name} is not running any more: netctl lab down removes what is left of it`);
    return new Lab(name, directory, new Machine(process), directory.read());
  }

  /** Ends one in whatever state it is. @returns false when there was none */
  static async down(name = 'default'): Promise<boolean> {
    const directory = new LabDirectory(name);
    if (!directory.exists) return false;
    const process = directory.readSwitch();
    if (process !== null) await new Machine(process).kill();
    directory.remove();
    return true;
  }

  /** @throws when there is no such host */
  node(name: string): LabNode {
    const found = this.nodes.find((node) => node.name === name);
    if (found === undefined)
      throw new Error(
        `lab ${this.name} has no host ${name}: it has ${this.nodes[0]?.name} to ${this.nodes.at(-1)?.name}`,
      );
    return found;
  }

  /** The machine in the middle, to run programs on. @throws when there is none */
  get router(): Station {
    if (this.#router === null) throw new Error(`lab ${this.name} has no router: netctl lab up --router bird`);
    return this.#router;
  }

  /** A host that crashed, again, with its agent. */
  async reboot(node: LabNode): Promise<void> {
    await node.boot();
    this.#remember();
    await node.start();
  }

  async down(): Promise<void> {
    await Lab.down(this.name);
  }

  async #build({ signal, progress = () => undefined }: LabOptions): Promise<void> {
    const { reflectors, router } = this.#record;
    const step = <T>(name: string, items: readonly T[], work: (item: T, i: number) => Promise<void>) =>
      each(items, work, signal, (done) => progress(name, done, items.length));
    await atSwitch(this.#switch, network.switchCommands());
    await step('etcd', [this.etcd], (etcd) => etcd.start());
    await step('hosts', this.nodes, (node) => node.boot());
    if (router !== null && this.#router !== null)
      await step(`router (${router})`, [this.#router], (station) => this.#startRouter(station, router));
    this.#remember();
    // What holds for all comes before most are there: else a mesh of all would be made first, to be given up at once.
    const first = this.nodes.slice(0, Math.max(1, reflectors));
    await step(reflectors > 0 ? 'reflectors' : 'first agent', first, (node) => node.start());
    const tell = async ({ method, path, body }: Request) => {
      await apiOf(this.nodes[0]!).send(method, path, body);
    };
    await step('settings', settings(this.#record), tell);
    await step('other agents', this.nodes.slice(first.length), (node) => node.start());
    for (const request of lateSettings(this.#record)) await tell(request);
    await step('convergence', this.nodes, (node, i) =>
      converged(node, { nodes: this.nodes.length, sessions: sessionsOf(i, this.#record) }, signal),
    );
  }

  async #startRouter(station: Station, kind: RouterKind): Promise<void> {
    await station.boot();
    const plan = routerPlan(kind, stationDirectory);
    for (const [name, text] of Object.entries(plan.files))
      writeFileSync(`${station.directory}/${name}`, text);
    const forward = ['net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1'];
    for (const command of [['sysctl', '-q', '-w', ...forward], ...plan.prepare])
      await mustRun(station.command(command));
    for (const { name, command, listens } of plan.programs) {
      const program = station.daemon(name);
      await program.start(command);
      if (listens === true) await station.listening(program, 179);
    }
  }

  #remember(): void {
    const up = this.#stations.filter(({ isUp }) => isUp);
    const machines = Object.fromEntries(up.map(({ name, machine }) => [name, machine.process]));
    this.#directory.write({ ...this.#record, machines });
  }
}

function requirePrograms(router: RouterKind | null): void {
  const needed: [string, string][] = [
    ['/usr/bin/etcd', 'etcd-server'],
    ['/usr/sbin/bird', 'bird2'],
  ];
  if (router !== null) {
    const plan = routerPlan(router, '/');
    needed.push([plan.executable, plan.package]);
  }
  const missing = needed.filter(([path]) => !existsSync(path)).map(([, name]) => name);
  if (missing.length > 0)
    throw new Error(
      `not installed: ${missing.join(', ')}: apt-get install --no-install-recommends ${missing.join(' ')}`,
    );
}

/** A few at a time; the first failure ends it, after those that are under way. */
async function each<T>(
  items: readonly T[],
  work: (item: T, i: number) => Promise<void>,
  signal: AbortSignal | undefined,
  done: (count: number) => void,
): Promise<void> {
  const waiting = [...items.entries()];
  const failures: unknown[] = [];
  let count = 0;
  done(0);
  const worker = async () => {
    for (let next = waiting.shift(); next !== undefined && failures.length === 0; next = waiting.shift()) {
      try {
        signal?.throwIfAborted();
        await work(next[1], next[0]);
        done(++count);
      } catch (error) {
        failures.push(error);
      }
    }
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
  if (failures.length > 0) throw failures[0];
}
