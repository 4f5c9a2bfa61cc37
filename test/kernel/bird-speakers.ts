/**
 * BIRDs without agents, each in a namespace of its own: what configurations do when real ones meet.
 *
 * In: names with the place at a switch or behind a router, configurations. Out: their kernels' routes, what they say. Never: a
 * namespace or process left after close().
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually, mustRun, run } from '../../lab/run.ts';
import { parseConfigureReply } from '../../src/bgp/reply.ts';
import { parseSessions } from '../../src/bgp/status.ts';
import type { Bird } from '../../src/linux/bird.ts';
import { createBird } from '../../src/linux/real/bird.ts';

const program = '/usr/sbin/bird';

export class Speakers {
  readonly #directory = mkdtempSync(join(tmpdir(), 'bird-speakers-'));
  readonly #names = new Set<string>();
  readonly #switch: string;
  readonly #label: string;

  private constructor(label: string) {
    this.#label = label;
    this.#switch = this.#space('switch');
  }

  /** The switch is a router too: 192.0.2.254 and fd00:1::fd on the first network, 198.51.100.254 on the second. */
  static async create(label: string): Promise<Speakers> {
    const all = new Speakers(`${label}${process.pid}`);
    try {
      await mustRun(['ip', 'netns', 'add', all.#switch]);
      const exec = (...command: string[]) => mustRun(['ip', 'netns', 'exec', all.#switch, ...command]);
      for (const [bridge, addresses] of [
        ['near', ['192.0.2.254/24', 'fd00:1::fd/64']],
        ['far', ['198.51.100.254/24']],
      ] as const) {
        await exec('ip', 'link', 'add', bridge, 'type', 'bridge', 'mcast_snooping', '0');
        for (const address of addresses) await exec('ip', 'address', 'add', address, 'dev', bridge);
        await exec('ip', 'link', 'set', bridge, 'up');
      }
      await exec('sysctl', '-qw', 'net.ipv4.ip_forward=1');
      return all;
    } catch (error) {
      await all.close();
      throw error;
    }
  }

  /** A namespace with `eth0` on the network and `c0`, which stands for the interface of a container. */
  async add(name: string, network: 'near' | 'far', addresses: readonly string[]): Promise<void> {
    const space = this.#space(name);
    this.#names.add(name);
    await mustRun(['ip', 'netns', 'add', space]);
    await mustRun([
      'ip',
      '-n',
      this.#switch,
      'link',
      'add',
      name,
      'type',
      'veth',
      'peer',
      'eth0',
      'netns',
      space,
    ]);
    await mustRun(['ip', '-n', this.#switch, 'link', 'set', name, 'master', network, 'up']);
    await this.ip(name, 'link', 'set', 'lo', 'up');
    for (const address of addresses) await this.ip(name, 'address', 'add', address, 'dev', 'eth0', 'nodad');
    await this.ip(name, 'link', 'set', 'eth0', 'up');
    await this.ip(name, 'link', 'add', 'c0', 'type', 'veth', 'peer', 'c1');
    await this.ip(name, 'link', 'set', 'c0', 'up');
    await this.ip(name, 'link', 'set', 'c1', 'up');
  }

  ip(name: string, ...command: string[]): Promise<string> {
    return mustRun(['ip', '-n', this.#space(name), ...command]);
  }

  async start(name: string, text: string): Promise<void> {
    const directory = this.#place(name);
    mkdirSync(directory);
    await this.#bird(name).install(text);
    const [config, control, pid] = ['conf', 'ctl', 'pid'].map((end) => join(directory, `bird.${end}`));
    const command = [program, '-c', config!, '-s', control!, '-P', pid!];
    await mustRun(['ip', 'netns', 'exec', this.#space(name), ...command]);
  }

  async configure(name: string, text: string): Promise<void> {
    await this.#bird(name).install(text);
    const { accepted, message } = parseConfigureReply(await this.ask(name, 'configure'));
    if (!accepted) throw new Error(message);
  }

  async ask(name: string, command: string): Promise<string> {
    const session = await this.#bird(name).connect({ onLog: () => undefined, onEnd: () => undefined });
    if (session === null) throw new Error(`the BIRD of ${name} does not answer`);
    try {
      return await session.ask(command);
    } finally {
      session.close();
    }
  }

  async established(...names: string[]): Promise<void> {
    for (const name of names)
      await eventually(`the sessions of ${name} stand`, 20_000, async () => {
        const sessions = parseSessions(await this.ask(name, 'show protocols all'));
        return sessions.length > 0 && sessions.every(({ state }) => state === 'Established');
      });
  }

  /** What BIRD wrote there, sorted: `10.0.0.0/8 via 192.0.2.1`. */
  async learned(name: string): Promise<string[]> {
    const lines = [
      ...(await this.ip(name, '-4', 'route', 'show', 'proto', 'bird')).split('\n'),
      ...(await this.ip(name, '-6', 'route', 'show', 'proto', 'bird')).split('\n'),
    ];
    return lines
      .filter((line) => line.trim() !== '')
      .map((line) => line.replace(/ (dev|metric|pref) .*$/, '').trim())
      .sort();
  }

  async close(): Promise<void> {
    for (const name of this.#names) {
      const pid = this.#bird(name).pid();
      if (pid !== null) process.kill(pid, 'SIGKILL');
    }
    for (const name of [...this.#names, 'switch']) await run(['ip', 'netns', 'delete', this.#space(name)]);
    rmSync(this.#directory, { recursive: true, force: true });
  }

  #space(name: string): string {
    return `${this.#label}-${name}`;
  }

  #place(name: string): string {
    return join(this.#directory, name);
  }

  /** Installs, is asked, but is not started by it: that happens in the namespace. */
  #bird(name: string): Bird {
    return createBird({ program, directory: this.#place(name) });
  }
}
