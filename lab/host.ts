/**
 * A host: a network namespace with a run and a state directory of its own, and the agent that lives there.
 *
 * In: a name, an address, flags for the agent. Out: start, kill and restart of the agent, the command line against it, any
 * program in the namespace. Never: anything outside the namespace and the temporary directory, anything left after close().
 */
import { type ChildProcess, spawn } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  symlinkSync,
} from 'node:fs';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { eventually, mustRun, type Result, type RunOptions, run } from './run.ts';

/** Where `make build` puts the programs. */
export const programs = resolve(import.meta.dirname, '../dist/bin');

export interface HostOptions {
  readonly name: string;
  readonly address: string;
  /** The namespace to make; null lives in the caller's own (one host per sandbox, no detour by nsenter). */
  readonly netns?: string | null;
}

export class Host {
  readonly name: string;
  readonly address: string;
  readonly netns: string | null;
  readonly directory: string;
  #agent: ChildProcess | null = null;
  #lastArgs: readonly string[] = [];

  private constructor(options: HostOptions) {
    this.name = options.name;
    this.address = options.address;
    this.netns = options.netns === undefined ? `nct-${options.name}` : options.netns;
    this.directory = mkdtempSync(join(tmpdir(), `netctl-${options.name}-`));
    mkdirSync(this.runDirectory, { mode: 0o700 });
    mkdirSync(this.stateDirectory, { mode: 0o700 });
  }

  /** Makes the namespace, with an uplink that has the host's address. The agent is not started. */
  static async create(options: HostOptions): Promise<Host> {
    const host = new Host(options);
    try {
      if (host.netns !== null) await mustRun(['ip', 'netns', 'add', host.netns]);
      const there = host.netns === null ? [] : ['netns', host.netns];
      await mustRun(['ip', 'link', 'add', host.#uplink, 'type', 'veth', 'peer', 'name', 'eth0', ...there]);
      // Without IPv6 addresses that come by themselves, and late: what is there is what was put there.
      await mustRun(['ip', 'link', 'set', host.#uplink, 'up', 'addrgenmode', 'none']);
      await host.mustExec(['ip', 'link', 'set', 'lo', 'up']);
      await host.mustExec(['ip', 'link', 'set', 'eth0', 'up', 'addrgenmode', 'none']);
      await host.mustExec(['ip', 'address', 'add', `${host.address}/24`, 'dev', 'eth0']);
      return host;
    } catch (error) {
      await host.close();
      throw error;
    }
  }

  /** The far end of eth0, in the caller's namespace: where a switch would be. */
  get #uplink(): string {
    return `up-${this.name}`;
  }

  get runDirectory(): string {
    return join(this.directory, 'run');
  }

  get stateDirectory(): string {
    return join(this.directory, 'state');
  }

  /** What `socket` in a network configuration must name. */
  get cniSocket(): string {
    return join(this.runDirectory, 'cni.sock');
  }

  /** Our plugins under the names by which configurations call them; made on first use. */
  get pluginDirectory(): string {
    const directory = join(this.directory, 'plugins');
    if (!existsSync(directory)) {
      mkdirSync(directory);
      for (const name of ['netctl', 'netctl-ipam'])
        symlinkSync(join(programs, 'netctl-cni'), join(directory, name));
    }
    return directory;
  }

  /** The program of a plugin: ours, or one of Debian's. */
  plugin(type: string): string {
    const own = join(this.pluginDirectory, type);
    return existsSync(own) ? own : join('/usr/lib/cni', type);
  }

  /** Process id of the running agent, or null. */
  get agentPid(): number | null {
    return this.#agent?.pid ?? null;
  }

  /** Starts the agent with more flags than it needs anyway, and returns once it answers. @throws with the end of its log */
  async start(args: readonly string[] = []): Promise<void> {
    this.#lastArgs = args;
    const log = openSync(join(this.directory, 'netctld.log'), 'a', 0o600);
    const [program, ...rest] = this.command([
      join(programs, 'netctld'),
      ...['--node', this.name, '--address', this.address],
      ...['--run-dir', this.runDirectory, '--state-dir', this.stateDirectory],
      ...args,
    ]) as [string, ...string[]];
    this.#agent = spawn(program, rest, { stdio: ['ignore', log, log] });
    closeSync(log);
    await this.waitReady();
  }

  /** Waits until both sockets take connections. @throws after 10 s, or at once when the agent has ended */
  async waitReady(): Promise<void> {
    try {
      await eventually(`netctld on ${this.name} is ready`, 10_000, async () => {
        if (this.#agent?.exitCode !== null) throw new Error(`netctld on ${this.name} has ended`);
        return (await connects(this.cniSocket)) && (await connects(join(this.runDirectory, 'api.sock')));
      });
    } catch (error) {
      throw new Error(`${(error as Error).message}; its log ends:\n${this.log().slice(-2000)}`);
    }
  }

  /** Sends the agent a signal and waits until it is gone. */
  async kill(signal: NodeJS.Signals): Promise<void> {
    const agent = this.#agent;
    if (agent === null) return;
    this.#agent = null;
    if (agent.exitCode !== null || agent.signalCode !== null) return;
    const gone = new Promise((done) => agent.once('exit', done));
    agent.kill(signal);
    const insist = setTimeout(() => agent.kill('SIGKILL'), 10_000);
    await gone;
    clearTimeout(insist);
  }

  /** Stops the agent in good order and starts it with the same flags. */
  async restart(): Promise<void> {
    await this.kill('SIGTERM');
    await this.start(this.#lastArgs);
  }

  log(): string {
    return readFileSync(join(this.directory, 'netctld.log'), 'utf8');
  }

  /** Runs `netctl WORDS` against this host's agent. */
  netctl(words: readonly string[], options: RunOptions = {}): Promise<Result> {
    const env = { NETCTL_API: `unix:${join(this.runDirectory, 'api.sock')}`, ...options.env };
    return run(this.command([join(programs, 'netctl'), ...words]), { ...options, env });
  }

  /** Runs a program in the host's namespace. */
  exec(command: readonly string[], options: RunOptions = {}): Promise<Result> {
    return run(this.command(command), options);
  }

  /** As exec, for programs that must succeed. */
  mustExec(command: readonly string[], options: RunOptions = {}): Promise<string> {
    return mustRun(this.command(command), options);
  }

  /** The command line that runs a program in the host's namespace. */
  command(command: readonly string[]): string[] {
    return this.netns === null ? [...command] : ['nsenter', `--net=/run/netns/${this.netns}`, ...command];
  }

  /** Ends the agent and removes namespace and directories. */
  async close(): Promise<void> {
    await this.kill('SIGTERM');
    // Takes eth0 with it, at once; a namespace would only be cleared some time after its deletion.
    await run(['ip', 'link', 'delete', this.#uplink]);
    if (this.netns !== null) await run(['ip', 'netns', 'delete', this.netns]);
    rmSync(this.directory, { recursive: true, force: true });
  }
}

function connects(socketPath: string): Promise<boolean> {
  return new Promise((answer) => {
    const socket = createConnection(socketPath);
    socket.on('connect', () => {
      socket.destroy();
      answer(true);
    });
    socket.on('error', () => answer(false));
  });
}
