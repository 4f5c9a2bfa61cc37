/**
 * A host: a place with a run and a state directory of its own, and the agent that lives there.
 *
 * In: a name, an address, flags for the agent. Out: start, kill and restart of the agent, the command line against it, any
 * program on the host. Never: anything outside the place and its directories, anything left after close().
 */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Daemon } from './daemon.ts';
import { namespacePlace, type Place } from './place.ts';
import { findPrograms, type Programs } from './programs.ts';
import { eventually, mustRun, type Result, type RunOptions, run } from './run.ts';

export interface HostOptions {
  readonly name: string;
  readonly address: string;
  /** The namespace to make; null lives in the caller's own (one host per sandbox, no detour by nsenter). */
  readonly netns?: string | null;
}

/** Directories as the host knows them. */
interface HostDirectories {
  readonly run: string;
  readonly state: string;
  /** For the agent's log. */
  readonly log: string;
}

const ownPlugins: readonly string[] = ['netctl', 'netctl-ipam'];

export class Host {
  readonly name: string;
  readonly address: string;
  readonly place: Place;
  readonly programs: Programs = findPrograms();
  readonly #directories: HostDirectories;
  readonly #flags: readonly string[];
  readonly #agent: Daemon;
  #lastArgs: readonly string[] = [];

  /** On a place that there is. @param flags of the agent, with whatever start() is given */
  constructor(
    { name, address }: HostOptions,
    place: Place,
    directories: HostDirectories,
    flags: readonly string[],
  ) {
    this.name = name;
    this.address = address;
    this.place = place;
    this.#directories = directories;
    this.#flags = flags;
    this.#agent = new Daemon(place, 'netctld', directories.log);
  }

  /** Makes a namespace, with an uplink that has the host's address. The agent is not started. */
  static async create(options: HostOptions): Promise<NamespaceHost> {
    const host = new NamespaceHost(options);
    try {
      await host.furnish();
      return host;
    } catch (error) {
      await host.close();
      throw error;
    }
  }

  get runDirectory(): string {
    return this.place.path(this.#directories.run);
  }

  get stateDirectory(): string {
    return this.place.path(this.#directories.state);
  }

  /** What `socket` in a network configuration must name. */
  get cniSocket(): string {
    return join(this.#directories.run, 'cni.sock');
  }

  /** Our plugins under the names by which configurations call them (as the host sees the path); made on first use. */
  get pluginDirectory(): string {
    const directory = join(this.#directories.state, 'plugins');
    const here = this.place.path(directory);
    if (!existsSync(here)) {
      mkdirSync(here);
      for (const name of ownPlugins) symlinkSync(this.programs.cni, join(here, name));
    }
    return directory;
  }

  /** The program of a plugin: ours, or one of Debian's. */
  plugin(type: string): string {
    return join(ownPlugins.includes(type) ? this.pluginDirectory : '/usr/lib/cni', type);
  }

  /** Where the API of the agent can be reached from here. */
  get apiSocket(): string {
    return join(this.runDirectory, 'api.sock');
  }

  /** Process id of the running agent (as the host numbers it), or null. */
  get agentPid(): number | null {
    return this.#agent.pid;
  }

  /** Starts the agent with more flags than it needs anyway, and returns once it answers. @throws with the end of its log */
  async start(args: readonly string[] = []): Promise<void> {
    this.#lastArgs = args;
    await this.#agent.start([this.programs.netctld, ...this.#flags, ...args]);
    await this.waitReady();
  }

  /** Waits until both sockets take connections. @throws after 30 s, or at once when the agent has ended */
  async waitReady(): Promise<void> {
    try {
      await eventually(`netctld on ${this.name} is ready`, 30_000, async () => {
        if (this.agentPid === null) throw new Error(`netctld on ${this.name} has ended`);
        return (await connects(this.place.path(this.cniSocket))) && (await connects(this.apiSocket));
      });
    } catch (error) {
      throw new Error(`${(error as Error).message}; its log ends:\n${this.log().slice(-2000)}`);
    }
  }

  /** Sends the agent a signal and waits until it is gone. */
  async kill(signal: NodeJS.Signals): Promise<void> {
    await this.#agent.kill(signal);
  }

  /** Process id of the BIRD that the agent cares for and that outlives it (as the host numbers it), or null. */
  get birdPid(): number | null {
    try {
      const pid = Number(readFileSync(join(this.runDirectory, 'bird.pid'), 'utf8'));
      return readFileSync(this.place.path(`/proc/${pid}/comm`), 'utf8').trim() === 'bird' ? pid : null;
    } catch {
      return null;
    }
  }

  async killBird(signal: NodeJS.Signals): Promise<void> {
    const pid = this.birdPid;
    if (pid === null) return;
    await this.exec(['kill', '-s', signal.slice(3), String(pid)]);
    await eventually(`the end of BIRD on ${this.name}`, 10_000, async () => this.birdPid !== pid);
  }

  /** Stops the agent in good order and starts it with the same flags. */
  async restart(): Promise<void> {
    await this.kill('SIGTERM');
    await this.start(this.#lastArgs);
  }

  log(): string {
    return this.#agent.log();
  }

  /** Resolves when the agent's log says it: the agent writes its lines together, some milliseconds later. */
  async logged(what: RegExp): Promise<void> {
    await eventually(`the log says ${what}`, 10_000, async () => what.test(this.log())).catch((error) => {
      throw new Error(`${(error as Error).message}; it ends:\n${this.log().slice(-2000)}`);
    });
  }

  /** Runs `netctl WORDS` against this host's agent. */
  netctl(words: readonly string[], options: RunOptions = {}): Promise<Result> {
    const env = { NETCTL_API: `unix:${join(this.#directories.run, 'api.sock')}`, ...options.env };
    return run(this.command([this.programs.netctl, ...words]), { ...options, env });
  }

  /** As netctl, for what must succeed. @throws with netctl's own words */
  async mustNetctl(words: readonly string[], options: RunOptions = {}): Promise<string> {
    const { code, stdout, stderr } = await this.netctl(words, options);
    if (code !== 0)
      throw new Error(`netctl ${words.join(' ')} on ${this.name}: exit code ${code}: ${stderr.trim()}`);
    return stdout;
  }

  /** Runs a program on the host. */
  exec(command: readonly string[], options: RunOptions = {}): Promise<Result> {
    return run(this.command(command), options);
  }

  /** As exec, for programs that must succeed. */
  mustExec(command: readonly string[], options: RunOptions = {}): Promise<string> {
    return mustRun(this.command(command), options);
  }

  /** The command line that runs a program on the host. */
  command(command: readonly string[]): string[] {
    return this.place.command(command);
  }

  /** Ends the agent. */
  async close(): Promise<void> {
    await this.kill('SIGTERM');
  }
}

/** A host that is a network namespace of the machine and a temporary directory, for tests of one host. */
export class NamespaceHost extends Host {
  readonly #netns: string | null;
  readonly #directory: string;

  constructor(options: HostOptions) {
    const netns = options.netns === undefined ? `nct-${options.name}` : options.netns;
    const directory = mkdtempSync(join(tmpdir(), `netctl-${options.name}-`));
    const directories = { run: join(directory, 'run'), state: join(directory, 'state'), log: directory };
    for (const path of [directories.run, directories.state]) mkdirSync(path, { mode: 0o700 });
    super(options, namespacePlace(netns), directories, [
      ...['--node', options.name, '--address', options.address],
      ...['--run-dir', directories.run, '--state-dir', directories.state],
    ]);
    this.#netns = netns;
    this.#directory = directory;
  }

  async furnish(): Promise<void> {
    if (this.#netns !== null) await mustRun(['ip', 'netns', 'add', this.#netns]);
    const there = this.#netns === null ? [] : ['netns', this.#netns];
    await mustRun(['ip', 'link', 'add', this.#uplink, 'type', 'veth', 'peer', 'name', 'eth0', ...there]);
    // Without IPv6 addresses that come by themselves, and late: what is there is what was put there.
    await mustRun(['ip', 'link', 'set', this.#uplink, 'up', 'addrgenmode', 'none']);
    await this.mustExec(['ip', 'link', 'set', 'lo', 'up']);
    await this.mustExec(['ip', 'link', 'set', 'eth0', 'up', 'addrgenmode', 'none']);
    await this.mustExec(['ip', 'address', 'add', `${this.address}/24`, 'dev', 'eth0']);
  }

  /** The far end of eth0, in the caller's namespace: where a switch would be. */
  get #uplink(): string {
    return `up-${this.name}`;
  }

  /** And removes namespace and directories. */
  override async close(): Promise<void> {
    await super.close();
    await this.killBird('SIGKILL');
    // Takes eth0 with it, at once; a namespace would only be cleared some time after its deletion.
    await run(['ip', 'link', 'delete', this.#uplink]);
    if (this.#netns !== null) await run(['ip', 'netns', 'delete', this.#netns]);
    rmSync(this.#directory, { recursive: true, force: true });
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
