/**
 * A container as far as the network sees it: a network namespace that joins and leaves networks by real CNI calls.
 *
 * In: a host, a conflist as a runtime reads it, CNI_ARGS. Out: what the plugin answered; programs and TCP in the namespace.
 * Never: a namespace or a server process left after close().
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { Host } from './host.ts';
import { mustRun, type Result, type RunOptions, run } from './run.ts';

/** As in /etc/cni/net.d. */
export interface Conflist {
  readonly cniVersion: string;
  readonly name: string;
  readonly plugins: readonly Readonly<Record<string, unknown>>[];
}

/** The part of a CNI result (1.0.0 and later) that the lab reads. */
export interface CniResult {
  readonly cniVersion: string;
  readonly interfaces: readonly { readonly name: string; readonly mac?: string; readonly sandbox?: string }[];
  readonly ips: readonly {
    readonly address: string;
    readonly gateway?: string;
    readonly interface?: number;
  }[];
  readonly routes?: readonly { readonly dst: string; readonly gw?: string }[];
  readonly dns?: { readonly nameservers?: readonly string[]; readonly search?: readonly string[] };
}

export interface CniCall {
  readonly interface?: string;
  /** `NETCTL_PROFILE=web;IP=10.0.0.9` */
  readonly args?: string;
  /** What the runtime knows, by capability; a plugin gets what its configuration says that it can. */
  readonly runtime?: Readonly<Record<string, unknown>>;
}

/** One connection to try. */
export interface Target {
  readonly address: string;
  readonly port: number;
  /** Source address, if not the one the kernel picks. */
  readonly from?: string;
}

export class Container {
  readonly name: string;
  readonly id: string;
  readonly netns: string;
  readonly #host: Host;
  readonly #servers: ChildProcess[] = [];
  /** What ADD answered, by network and interface. */
  readonly #results = new Map<string, unknown>();

  /** One that there is. @param netns name of its namespace below /run/netns on the host */
  constructor(host: Host, { name, id, netns }: { name: string; id: string; netns: string }) {
    this.#host = host;
    this.name = name;
    this.id = id;
    this.netns = netns;
  }

  /**
   * A namespace with loopback only, as a runtime hands it to CNI.
   * @param netns its name, for a host that has /run/netns for itself
   */
  static async create(host: Host, name: string, netns?: string): Promise<Container> {
    const id = `${name}-${randomBytes(4).toString('hex')}`;
    const container = new Container(host, { name, id, netns: netns ?? `nct-${id}` });
    await host.mustExec(['ip', 'netns', 'add', container.netns]);
    await container.mustExec(['ip', 'link', 'set', 'lo', 'up']);
    return container;
  }

  /** @throws with the plugin's error when ADD is refused */
  async cniAdd(conflist: Conflist, call: CniCall = {}): Promise<CniResult> {
    const { code, stdout, stderr } = await this.cni('ADD', conflist, call);
    if (code !== 0)
      throw new Error(`CNI ADD of ${this.name}: exit code ${code}: ${(stdout || stderr).trim()}`);
    return JSON.parse(stdout) as CniResult;
  }

  /** @throws with the plugin's error when DEL is refused */
  async cniDel(conflist: Conflist, call: CniCall = {}): Promise<void> {
    const { code, stdout, stderr } = await this.cni('DEL', conflist, call);
    if (code !== 0)
      throw new Error(`CNI DEL of ${this.name}: exit code ${code}: ${(stdout || stderr).trim()}`);
  }

  /**
   * Calls the plugins of a list as libcni does: ADD and CHECK in order, DEL in reverse, each with the result of the one before (CHECK
   * and DEL: with that of the whole ADD). What the last one printed is the answer; the first failure ends it.
   */
  async cni(command: string, conflist: Conflist, call: CniCall = {}): Promise<Result> {
    const { cniVersion, name, plugins } = conflist;
    const env = {
      CNI_COMMAND: command,
      CNI_CONTAINERID: this.id,
      CNI_NETNS: `/run/netns/${this.netns}`,
      CNI_IFNAME: call.interface ?? 'eth0',
      CNI_ARGS: call.args ?? '',
      CNI_PATH: `${this.#host.pluginDirectory}:/usr/lib/cni`,
    };
    const key = `${name} ${env.CNI_IFNAME}`;
    let previous = command === 'ADD' ? undefined : this.#results.get(key);
    let answer: Result = { code: 0, stdout: '', stderr: '' };
    for (const plugin of command === 'DEL' ? plugins.toReversed() : plugins) {
      // Also below another plugin, whose configuration is ours too.
      const socket = JSON.stringify(plugin).includes('"netctl') ? { socket: this.#host.cniSocket } : {};
      const capabilities = (plugin['capabilities'] ?? {}) as Record<string, boolean>;
      const wanted = Object.entries(call.runtime ?? {}).filter(([capability]) => capabilities[capability]);
      const runtimeConfig = wanted.length > 0 ? { runtimeConfig: Object.fromEntries(wanted) } : {};
      const prevResult = previous === undefined ? {} : { prevResult: previous };
      const config = { ...prevResult, ...runtimeConfig, ...plugin, ...socket, cniVersion, name };
      answer = await this.#host.exec([this.#host.plugin(String(plugin['type']))], {
        env,
        stdin: JSON.stringify(config),
      });
      if (answer.code !== 0) return answer;
      if (command === 'ADD') previous = JSON.parse(answer.stdout);
    }
    if (command === 'ADD') this.#results.set(key, previous);
    if (command === 'DEL') this.#results.delete(key);
    return answer;
  }

  /** Serves TCP (echo) on the ports until close(). */
  async serve(ports: readonly number[]): Promise<void> {
    await this.#background(['serve', ports.join(',')]);
  }

  /** Takes what `rate` sends, until close(). */
  async sink(ports: readonly number[]): Promise<void> {
    await this.#background(['sink', ports.join(',')]);
  }

  /** Sends to a sink for a while: the bits of payload a second that arrived. */
  async rate(target: Target, milliseconds: number): Promise<number> {
    const command = [process.execPath, tcpProgram(), 'send', JSON.stringify(target), String(milliseconds)];
    return Number(await this.mustExec(command));
  }

  /** Opens one connection and talks on it until asked for the report. */
  async hold(target: Target): Promise<() => Promise<HoldReport>> {
    const child = await this.#background(['hold', JSON.stringify(target)]);
    return () =>
      new Promise((answer, reject) => {
        child.once('exit', () => reject(new Error(`the connection from ${this.name} was gone`)));
        createInterface({ input: child.stdout! }).once('line', (line) =>
          answer(JSON.parse(line) as HoldReport),
        );
        child.stdin!.end();
      });
  }

  /** Tries all connections at once: true where one was made within the time. */
  connect(targets: readonly Target[], timeoutMs: number): Promise<boolean[]> {
    return connectFrom((command) => this.mustExec(command), targets, timeoutMs);
  }

  /** Runs a program in the container's namespace. */
  exec(command: readonly string[], options: RunOptions = {}): Promise<Result> {
    return run(this.command(command), options);
  }

  /** As exec, for programs that must succeed. */
  mustExec(command: readonly string[], options: RunOptions = {}): Promise<string> {
    return mustRun(this.command(command), options);
  }

  /** Ends the servers and removes the namespace (with what CNI may have left in it). */
  async close(): Promise<void> {
    for (const server of this.#servers) server.kill('SIGKILL');
    await this.#host.exec(['ip', 'netns', 'delete', this.netns]);
  }

  /** The command line that runs a program in the container's namespace. */
  command(command: readonly string[]): string[] {
    return this.#host.place.command(command, this.netns);
  }

  /** Starts lab/tcp.ts and waits for its first line, which says that it is ready. */
  #background(args: readonly string[]): Promise<ChildProcess> {
    const [program, ...rest] = this.command([process.execPath, tcpProgram(), ...args]) as [
      string,
      ...string[],
    ];
    const child = spawn(program, rest, { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#servers.push(child);
    return new Promise((ready, reject) => {
      child.once('error', reject);
      child.once('exit', (code) =>
        reject(new Error(`tcp ${args.join(' ')} in ${this.name}: exit code ${code}`)),
      );
      child.stdout.once('data', () => {
        child.removeAllListeners('exit');
        ready(child);
      });
    });
  }
}

/** What a held connection lived through. */
export interface HoldReport {
  /** Messages that came back. */
  readonly echoes: number;
  /** The longest time without one. */
  readonly longestGapMs: number;
}

/** As Container.connect, for any way to run a command in a namespace (the host's, for instance). */
export async function connectFrom(
  mustExec: (command: readonly string[]) => Promise<string>,
  targets: readonly Target[],
  timeoutMs: number,
): Promise<boolean[]> {
  return JSON.parse(
    await mustExec([process.execPath, tcpProgram(), 'connect', JSON.stringify(targets), String(timeoutMs)]),
  );
}

/** Not a constant: in a bundle of the command line, which does not use it, there is no such file. */
function tcpProgram(): string {
  return fileURLToPath(new URL('tcp.ts', import.meta.url));
}
