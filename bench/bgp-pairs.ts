/**
 * Two hosts that tell each other routes, twice: a lab of two with our agents, and two BIRDs with configurations written by hand.
 *
 * In: nothing. Out: both pairs under one interface, so that they can be measured in turns by the same means. Never: a hand-written
 * BIRD with worse settings than its manual suggests; anything left after close().
 */
import { Lab } from '../lab/lab.ts';
import { eventually } from '../lab/run.ts';
import { Speakers } from '../test/kernel/bird-speakers.ts';

/** Runs a program on a host of the pair; the second one hears of what the first one has. */
export interface Pair {
  readonly name: string;
  one(command: readonly string[], stdin?: string): Promise<string>;
  two(command: readonly string[]): Promise<string>;
}

export const pool = '10.96.0.0/11';

export class OurPair implements Pair {
  readonly name = 'netctl';
  readonly lab: Lab;

  private constructor(lab: Lab) {
    this.lab = lab;
  }

  static async create(): Promise<OurPair> {
    const lab = await Lab.up({ name: `bench${process.pid}`, nodes: 2 });
    // What is put into the kernel by hand, a resync would take away.
    for (const node of lab.nodes) {
      await node.kill('SIGTERM');
      await node.start(['--resync-seconds', '3600']);
    }
    const [node] = lab.nodes;
    await node!.mustNetctl(['pool', 'add', pool, '--name', 'many']);
    await node!.mustNetctl(['pool', 'add', '10.67.0.0/16', '--name', 'singles', '--block-size', '32']);
    for (const each of lab.nodes)
      await eventually(`the pools are known to BIRD on ${each.name}`, 10_000, async () => {
        const { stdout } = await each.exec(['cat', '/run/netctl/bird.conf']);
        return stdout.includes(`${pool}+`) && stdout.includes('10.67.0.0/16+');
      });
    for (const each of lab.nodes)
      await eventually(
        `${each.name} is healthy`,
        20_000,
        async () => (await each.netctl(['node', 'status'])).code === 0,
      );
    return new OurPair(lab);
  }

  one(command: readonly string[], stdin = ''): Promise<string> {
    return this.lab.nodes[0]!.mustExec(command, { stdin, deadlineMs: 200_000 });
  }

  two(command: readonly string[]): Promise<string> {
    return this.lab.nodes[1]!.mustExec(command);
  }

  close(): Promise<void> {
    return this.lab.down();
  }
}

export class BarePair implements Pair {
  readonly name = 'BIRD alone';
  readonly #speakers: Speakers;

  private constructor(speakers: Speakers) {
    this.#speakers = speakers;
  }

  static async create(): Promise<BarePair> {
    const speakers = await Speakers.create('bp');
    const pair = new BarePair(speakers);
    try {
      for (const i of [1, 2]) {
        await speakers.add(`bare${i}`, 'near', [`192.0.2.${i}/24`]);
        await speakers.start(`bare${i}`, bareConfig(i, []));
      }
      await speakers.established('bare1', 'bare2');
      return pair;
    } catch (error) {
      await pair.close();
      throw error;
    }
  }

  one(command: readonly string[], stdin = ''): Promise<string> {
    return this.#speakers.exec('bare1', command, stdin);
  }

  two(command: readonly string[]): Promise<string> {
    return this.#speakers.exec('bare2', command);
  }

  /** Gives the first BIRD these static routes by a new configuration; returns once it has been read. */
  configure(nets: readonly string[]): Promise<void> {
    return this.#speakers.configure('bare1', bareConfig(1, nets));
  }

  /** Process of the second BIRD. */
  pid(): number {
    return this.#speakers.pid('bare2');
  }

  close(): Promise<void> {
    return this.#speakers.close();
  }
}

function bareConfig(i: number, nets: readonly string[]): string {
  const other = 3 - i;
  return `router id 192.0.2.${i};
log syslog { fatal }; timeformat protocol iso long;
protocol device { }
protocol static { ipv4; ${nets.map((net) => `route ${net} blackhole;`).join('\n')} }
protocol kernel { learn; persist; scan time 20; netlink rx buffer 67108864;
  ipv4 { import where krt_source = 111; export where source = RTS_BGP; }; }
protocol bgp { local 192.0.2.${i} as 64512; neighbor 192.0.2.${other} as 64512; direct; connect delay time 1;
  ipv4 { import all; export where source = RTS_INHERIT || source = RTS_STATIC; next hop self; }; }
`;
}
