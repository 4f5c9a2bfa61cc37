/**
 * A host with containers, an outside and a far network, out of network namespaces: what policy is judged on by packets.
 *
 *     web, app, db … ──nctl<name>── host ──uplink── outside (192.0.2.2, 2001:db8::2)
 *                                     └───far── far     (198.51.100.2)
 */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { createInterface } from 'node:readline';
import { hostInterfaceIndex } from '../../src/model/attachment.ts';
import type { Address } from '../../src/model/ip.ts';

const HOST_MAC = '02:00:00:00:00:01';

export interface Peer {
  readonly namespace: string;
  readonly addresses: readonly [v4: Address, v6: Address];
  connect(address: string, port: number): Promise<boolean>;
  bind(address: string, port: number): Promise<boolean>;
  send(from: string, to: string, port: number, text: string): Promise<boolean>;
  received(): Promise<string[]>;
}

export class PolicyHost {
  readonly #prefix = `nct-${randomBytes(3).toString('hex')}`;
  readonly #namespaces: string[] = [];
  readonly #children: ChildProcess[] = [];
  #containers = 0;
  readonly namespace: string;

  constructor() {
    this.namespace = this.#namespaceOf('host');
    for (const path of ['net/ipv4/ip_forward', 'net/ipv6/conf/all/forwarding']) {
      this.exec(['sh', '-c', `echo 1 > /proc/sys/${path}`]);
    }
  }

  exec(command: readonly string[], input = '', namespace: string = this.namespace): string {
    return execFileSync('ip', ['netns', 'exec', namespace, ...command], {
      input,
      encoding: 'utf8',
      stdio: ['pipe', 'pipe', 'pipe'],
    });
  }

  /** The host itself, as a party. */
  self(ports: readonly number[]): Promise<Peer> {
    return this.#peer(this.namespace, ['192.0.2.1', '2001:db8::1'], ports);
  }

  /** A routed container behind `nctl<name>`, reached as the agent would wire it. */
  container(name: string, ports: readonly number[]): Promise<Peer> {
    const n = ++this.#containers;
    const namespace = this.#namespaceOf(name);
    const mac = `02:00:00:00:01:0${n}`;
    const link = `nctl${name}`;
    // Every second one has another index than belongs to its name, as where that was taken.
    const index = n % 2 === 1 ? `index ${hostInterfaceIndex(link)}` : '';
    this.#ip(this.namespace, [
      `link add ${link} ${index} address ${HOST_MAC} type veth peer name eth0 address ${mac} netns ${namespace}`,
      `link set ${link} addrgenmode none`,
      `link set ${link} up`,
    ]);
    this.#ip(namespace, ['link set eth0 addrgenmode none', 'link set lo up', 'link set eth0 up']);
    const families = [
      { address: `10.0.0.${n}`, bits: 32, gateway: '169.254.1.1' },
      { address: `fd00::${n}`, bits: 128, gateway: 'fe80::1' },
    ];
    for (const { address, bits, gateway } of families) {
      this.#ip(namespace, [
        `address add ${address}/${bits} dev eth0 ${bits === 128 ? 'nodad' : ''}`,
        `neighbour add ${gateway} lladdr ${HOST_MAC} dev eth0 nud permanent`,
        `route add ${bits === 32 ? `${gateway}/32` : 'fe80::/64'} dev eth0`,
        `route add default via ${gateway} dev eth0`,
      ]);
      this.#ip(this.namespace, [
        `route add ${address}/${bits} dev ${link}`,
        `neighbour add ${address} lladdr ${mac} dev ${link} nud permanent`,
      ]);
    }
    return this.#peer(namespace, [families[0]!.address, families[1]!.address], ports);
  }

  /** A machine on a network of its own, behind a foreign interface. */
  neighbour(name: string, link: string, net4: string, net6: string, ports: readonly number[]): Promise<Peer> {
    const namespace = this.#namespaceOf(name);
    this.#ip(this.namespace, [
      `link add ${link} type veth peer name eth0 netns ${namespace}`,
      `address add ${net4}1/24 dev ${link}`,
      `address add ${net6}1/64 dev ${link} nodad`,
      `link set ${link} up`,
    ]);
    this.#ip(namespace, [
      'link set lo up',
      `address add ${net4}2/24 dev eth0`,
      `address add ${net6}2/64 dev eth0 nodad`,
      'link set eth0 up',
      `route add default via ${net4}1`,
      `route add default via ${net6}1`,
    ]);
    return this.#peer(namespace, [`${net4}2`, `${net6}2`], ports);
  }

  close(): void {
    for (const child of this.#children) child.kill('SIGKILL');
    for (const namespace of this.#namespaces) execFileSync('ip', ['netns', 'del', namespace]);
  }

  #namespaceOf(name: string): string {
    const namespace = `${this.#prefix}-${name}`;
    execFileSync('ip', ['netns', 'add', namespace]);
    this.#namespaces.push(namespace);
    return namespace;
  }

  #ip(namespace: string, commands: readonly string[]): void {
    execFileSync('ip', ['-n', namespace, '-batch', '-'], { input: `${commands.join('\n')}\n` });
  }

  async #peer(namespace: string, addresses: [string, string], ports: readonly number[]): Promise<Peer> {
    const script = new URL('./policy-peer.ts', import.meta.url).pathname;
    const child = spawn('ip', ['netns', 'exec', namespace, process.execPath, script, ...ports.map(String)], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.#children.push(child);
    const waiting = new Map<number, (value: never) => void>();
    createInterface({ input: child.stdout! }).on('line', (line) => {
      const { id, value } = JSON.parse(line);
      waiting.get(id)?.(value as never);
      waiting.delete(id);
    });
    let last = 0;
    const ask = <T>(request: object): Promise<T> =>
      new Promise<T>((resolve) => {
        waiting.set(++last, resolve);
        child.stdin!.write(`${JSON.stringify({ ...request, id: last })}\n`);
      });
    const peer: Peer = {
      namespace,
      addresses: addresses as unknown as readonly [Address, Address],
      connect: (address, port) => ask({ do: 'connect', address, port }),
      bind: (address, port) => ask({ do: 'bind', address, port }),
      send: (from, to, port, text) => ask({ do: 'send', from, to, port, text }),
      received: () => ask({ do: 'received' }),
    };
    assert.deepEqual(await peer.received(), []);
    return peer;
  }
}
