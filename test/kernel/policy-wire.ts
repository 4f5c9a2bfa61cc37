/**
 * A host that forwards between interfaces of endpoints and two foreign ones, whose far ends are bare wires: frames go in and come
 * out byte by byte, with nobody behind them who would answer.
 *
 *     wire0…3 ──nctl0…3── host ──up0, up1── wire4, wire5
 *
 * With `macvlan` the bare wires end in containers, which forward between them and their macvlans (policy-wire-macvlan.ts).
 */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { createInterface } from 'node:readline';
import { hostInterfaceIndex } from '../../src/model/attachment.ts';
import type { World } from '../unit/policy/worlds.ts';
import { type Envelope, framesOf, udp } from './frames.ts';
import {
  addressesBehind,
  endpointAddresses,
  foreignAddresses,
  HOST_MAC,
  interfaces,
  macOf,
  type WirePacket,
} from './policy-wire-ends.ts';
import { connectMacvlans, macvlanMacOf } from './policy-wire-macvlan.ts';

export type BackendName = 'nftables' | 'iptables-nft' | 'iptables-legacy' | 'macvlan';

/** As Makefile says. */
const packetIo = new URL('../../dist/test/packet-io', import.meta.url).pathname;
const MARK = Buffer.from('nctl');

export class PolicyWire {
  readonly backend: BackendName;
  readonly #host: string;
  readonly #wire: string;
  readonly #namespaces: readonly string[];
  readonly #agent: ChildProcess;
  readonly #io: ChildProcess;
  readonly #answers: AsyncIterator<string>;
  #received: Buffer = Buffer.alloc(0);
  #wake: () => void = () => undefined;

  constructor(backend: BackendName) {
    const prefix = `nct-${randomBytes(3).toString('hex')}`;
    this.backend = backend;
    this.#host = `${prefix}-host`;
    this.#wire = `${prefix}-wire`;
    const isMacvlan = backend === 'macvlan';
    const containers = isMacvlan ? endpointAddresses.map((_, i) => `${prefix}-c${i}`) : [];
    this.#namespaces = [this.#host, this.#wire, ...containers];
    for (const namespace of this.#namespaces) execFileSync('ip', ['netns', 'add', namespace]);
    for (const path of ['net/ipv6/conf/all/disable_ipv6', 'net/ipv6/conf/default/disable_ipv6'])
      this.#exec(this.#wire, ['sh', '-c', `echo 1 > /proc/sys/${path}`]);
    if (isMacvlan) connectMacvlans(this.#host, this.#wire, containers);
    else this.#connect();
    const script = new URL('./policy-random-process.ts', import.meta.url).pathname;
    this.#agent = this.#spawn(this.#host, [process.execPath, script, backend, ...containers]);
    this.#answers = createInterface({ input: this.#agent.stdout! })[Symbol.asyncIterator]();
    this.#io = this.#spawn(this.#wire, [packetIo, ...interfaces.map((name) => `w-${name}`)]);
    this.#io.stdout!.on('data', (bytes: Buffer) => {
      this.#received = Buffer.concat([this.#received, bytes]);
      this.#wake();
    });
  }

  /** @throws what the kernel would not take */
  async load(world: World): Promise<void> {
    this.#agent.stdin!.write(`${JSON.stringify(world)}\n`);
    const { value } = await this.#answers.next();
    assert.equal(JSON.parse(value ?? '"the agent has ended"'), null);
  }

  /** Which of them came out at the right interface. @throws when one came out elsewhere */
  async send(packets: readonly WirePacket[]): Promise<boolean[]> {
    const records = packets.flatMap((packet, id) =>
      this.#frames(packet, id).map((frame) => record(packet.via, frame)),
    );
    const sentinel: WirePacket = {
      via: 4,
      source: foreignAddresses[0]![0]!,
      destination: foreignAddresses[1]![0]!,
      isCut: false,
      transport: (payload) => udp([9, 9], payload),
    };
    const last = this.#frames(sentinel, packets.length).map((frame) => record(sentinel.via, frame));
    const end = record(0, Buffer.alloc(0));
    const arrived = packets.map(() => false);
    // What goes a longer way than the sentinel is a few turns of the kernel's queue behind it.
    for (const batch of [records, ...(this.#isLong ? [[], [], []] : [])]) {
      this.#io.stdin!.write(Buffer.concat([...batch, ...last, end]));
      let isComplete = false;
      for (const { at, id } of await this.#arrivals()) {
        const packet = packets[id];
        if (packet === undefined) isComplete = true;
        else {
          assert(
            addressesBehind[at]!.includes(packet.destination),
            `${packet.destination} at ${interfaces[at]}`,
          );
          arrived[id] = true;
        }
      }
      assert(isComplete, 'the last packet of a batch, which no policy is about, did not arrive');
    }
    return arrived;
  }

  get #isLong(): boolean {
    return this.backend === 'macvlan';
  }

  #frames(packet: WirePacket, id: number): Buffer[] {
    return frames(packet, id, this.#isLong ? macvlanMacOf(packet) : HOST_MAC);
  }

  close(): void {
    for (const child of [this.#agent, this.#io]) child.kill('SIGKILL');
    for (const namespace of this.#namespaces) execFileSync('ip', ['netns', 'del', namespace]);
  }

  /** Until the record of length 0. */
  async #arrivals(): Promise<{ at: number; id: number }[]> {
    const arrivals: { at: number; id: number }[] = [];
    for (;;) {
      while (this.#received.length >= 3) {
        const length = this.#received.readUInt16LE(1);
        if (this.#received.length < 3 + length) break;
        const at = this.#received.readUInt8(0);
        const frame = this.#received.subarray(3, 3 + length);
        this.#received = this.#received.subarray(3 + length);
        if (length === 0) return arrivals;
        if (frame.subarray(-8, -4).equals(MARK)) arrivals.push({ at, id: frame.readUInt32BE(length - 4) });
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  #connect(): void {
    for (const path of ['net/ipv4/ip_forward', 'net/ipv6/conf/all/forwarding'])
      this.#exec(this.#host, ['sh', '-c', `echo 1 > /proc/sys/${path}`]);
    const commands = interfaces.flatMap((name, i) => [
      // Every second one has another index than belongs to its name, as where that was taken.
      `link add ${name} ${i % 2 === 0 ? `index ${hostInterfaceIndex(name)}` : ''} address ${HOST_MAC} type veth peer name w-${name} address ${macOf(i)} netns ${this.#wire}`,
      `link set ${name} addrgenmode none`,
      `link set ${name} up`,
      ...addressesBehind[i]!.flatMap((address) => [
        `route add ${address} dev ${name}`,
        `neighbour add ${address} lladdr ${macOf(i)} dev ${name} nud permanent`,
      ]),
    ]);
    execFileSync('ip', ['-n', this.#host, '-batch', '-'], { input: `${commands.join('\n')}\n` });
    const up = interfaces.map((name) => `link set w-${name} up`);
    execFileSync('ip', ['-n', this.#wire, '-batch', '-'], { input: `${up.join('\n')}\n` });
  }

  #exec(namespace: string, command: readonly string[]): void {
    execFileSync('ip', ['netns', 'exec', namespace, ...command]);
  }

  #spawn(namespace: string, command: readonly string[]): ChildProcess {
    return spawn('ip', ['netns', 'exec', namespace, ...command], { stdio: ['pipe', 'pipe', 'inherit'] });
  }
}

function frames(
  { via, source, destination, isCut, transport }: WirePacket,
  id: number,
  destinationMac: string,
): Buffer[] {
  const payload = Buffer.alloc(40, 'x');
  MARK.copy(payload, 32);
  payload.writeUInt32BE(id, 36);
  const envelope: Envelope = {
    source,
    destination,
    sourceMac: macOf(via),
    destinationMac,
    id: id + 1,
    isCut,
  };
  return framesOf(envelope, transport(payload));
}

function record(at: number, frame: Buffer): Buffer {
  const head = Buffer.alloc(3);
  head.writeUInt8(at, 0);
  head.writeUInt16LE(frame.length, 1);
  return Buffer.concat([head, frame]);
}
