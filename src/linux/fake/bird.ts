/**
 * A BIRD in memory: one program, one configuration file, at most one process, and replies in BIRD's own form.
 *
 * In: the calls of bird.ts, and from tests: an absent program, a text that is refused, a reload that goes missing, a process that dies.
 * Out: the commands that it was given, whether it runs and how it was started. Never: an answer to a command that it does not know.
 */
import { type Bird, type BirdListener, BirdRejection, type BirdSession } from '../bird.ts';

interface Process {
  text: string;
  readonly recover: boolean;
  readonly listeners: Set<BirdListener>;
  /** By protocol; what is not in it is established. */
  readonly states: Map<string, string>;
}

export class FakeBird implements Bird {
  /** null: the program is not there. */
  programVersion: string | null = '2.0.12';
  /** What the next check says; null: the text is right. */
  rejection: string | null = null;
  /** The next `configure` is answered and not carried out. */
  missesReload = false;
  foreign: number[] = [];
  /** Commands of the control socket, in order, without questions. */
  readonly commands: string[] = [];
  #installed: string | null = null;
  #process: Process | null = null;

  // What tests may do.

  get process(): { readonly text: string; readonly recover: boolean } | null {
    return this.#process;
  }

  /** The process ends as by SIGKILL. */
  crash(): void {
    const listeners = this.#process?.listeners ?? [];
    this.#process = null;
    for (const listener of listeners) listener.onEnd();
  }

  /** The process has read the text though it is not what is in place, as after a reload that was missed. */
  runsWith(text: string): void {
    this.#process = { text, recover: false, listeners: new Set(), states: new Map() };
  }

  setState(protocol: string, state: string): void {
    this.#process?.states.set(protocol, state);
  }

  logs(line: string): void {
    for (const listener of this.#process?.listeners ?? []) listener.onLog(line);
  }

  // The port.

  async version(): Promise<string | null> {
    return this.programVersion;
  }

  installed(): string | null {
    return this.#installed;
  }

  async install(text: string): Promise<void> {
    const message = this.rejection;
    this.rejection = null;
    if (message !== null) throw new BirdRejection(message);
    this.#installed = text;
  }

  async start(recover: boolean): Promise<void> {
    if (this.programVersion === null) throw new Error('bird: cannot be started: ENOENT');
    if (this.#process !== null) throw new Error('bird: I found another BIRD running.');
    if (this.#installed === null) throw new Error('bird: Unable to open configuration file');
    this.#process = { text: this.#installed, recover, listeners: new Set(), states: new Map() };
  }

  async connect(listener: BirdListener): Promise<BirdSession | null> {
    const process = this.#process;
    if (process === null) return null;
    process.listeners.add(listener);
    return {
      ask: async (command) => {
        if (this.#process !== process) throw new Error('BIRD has ended');
        return this.#reply(command, process);
      },
      close: () => void process.listeners.delete(listener),
    };
  }

  pid(): number | null {
    return this.#process === null ? null : 4711;
  }

  others(): number[] {
    return this.foreign;
  }

  #reply(command: string, process: Process): string {
    if (command === 'show protocols all') return protocols(process);
    if (command === 'show bfd sessions') return '1020-bfd1:\n IP address\n0000 ';
    if (command === 'show status') return statusReply;
    const evaluated = /^eval (\w+)$/.exec(command)?.[1];
    if (evaluated !== undefined) {
      const value = new RegExp(`^define ${evaluated} = (.+);$`, 'm').exec(process.text)?.[1];
      return value === undefined ? '9001 syntax error, unexpected CF_SYM_UNDEFINED' : `0023 ${value}`;
    }
    this.commands.push(command);
    if (command === 'echo all') return '0000 ';
    if (command === 'configure') return this.#configure(process);
    if (/^(disable|restart) "\w+"$/.test(command)) return '0009 bgp: disabled';
    if (command === 'down') {
      this.crash();
      return '0007 Shutdown ordered';
    }
    throw new Error(`fake: BIRD does not know ${command}`);
  }

  #configure(process: Process): string {
    if (!this.missesReload) process.text = this.#installed ?? process.text;
    this.missesReload = false;
    return '0002-Reading configuration from bird.conf\n0003 Reconfigured';
  }
}

const statusReply = [
  '1000-BIRD 2.0.12',
  '1011-Router ID is 192.0.2.1',
  ' Hostname is host',
  ' Current server time is 2026-11-21 15:00:00',
  ' Last reboot on 2026-11-21 14:00:00',
  ' Last reconfiguration on 2026-11-21 14:30:00',
  '0013 Daemon is up and running',
].join('\n');

/** One entry for each `protocol bgp NAME … { neighbor ADDRESS port N as N; …`, with the `local … as N` of its template. */
function protocols({ text, states }: Process): string {
  const local = (template: string): string =>
    new RegExp(`template bgp ${template} \\{\\s*local \\S+ port \\d+ as (\\d+);`).exec(text)?.[1] ?? '';
  const found = text.matchAll(/^protocol bgp (\w+) from (\w+) \{ neighbor (\S+) port \d+ as (\d+);/gm);
  const entries = Array.from(found, ([, name = '', template = '', address = '', asNumber = '']) => {
    const state = states.get(name) ?? 'Established';
    return [
      `1002-${name}       BGP        ---        ${state === 'Established' ? 'up' : 'start'}     2026-11-21 14:00:00  ${state}`,
      `1006-  BGP state:          ${state}`,
      `     Neighbor address: ${address}`,
      `     Neighbor AS:      ${asNumber}`,
      `     Local AS:         ${local(template)}`,
      '   Channel ipv4',
      '     State:          UP',
      '     Routes:         2 imported, 1 exported, 2 preferred',
      ' ',
    ].join('\n');
  });
  return ['2002-Name       Proto      Table      State  Since         Info', ...entries, '0000 '].join('\n');
}
