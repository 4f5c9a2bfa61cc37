/**
 * The wire of policy-wire.ts for macvlan endpoints: each container forwards between its macvlan, where policy is, and a bare wire, so that
 * what is sent is what the test says, to the byte.
 *
 *     wire0…3 ──inner── container ──eth0 (macvlan)── p0 (0 and 1), p1 (2 and 3) ── bridge ── wire4, wire5
 *
 * In: the namespaces of host, wires and containers. Out: links, addresses of the link layer, routes. Never: an address of an endpoint that its
 * container would answer for.
 */
import { execFileSync } from 'node:child_process';
import type { Address } from '../../src/model/ip.ts';
import { addressesBehind, HOST_MAC, interfaces, macOf, type WirePacket } from './policy-wire-ends.ts';

/** Of endpoint i. */
export const macvlanMac = (i: number): string => `02:00:00:00:02:0${i}`;
export const macvlanParent = (i: number): string => `p${i >> 1}`;

/** To whom a bare wire sends the packet: its container, or who has the destination on the bridge. */
export function macvlanMacOf({ via, destination }: WirePacket): string {
  return via < 4 ? HOST_MAC : onBridge(indexOf(destination));
}

export function connectMacvlans(host: string, wire: string, containers: readonly string[]): void {
  const ports = ['p0', 'p1', 'up0', 'up1'];
  ip(host, [
    'link add br0 up type bridge mcast_snooping 0',
    ...['p0', 'p1'].map((name) => `link add ${name} up type veth peer name b-${name}`),
    ...['up0', 'up1'].map(
      (name, i) => `link add b-${name} type veth peer name w-${name} address ${macOf(4 + i)} netns ${wire}`,
    ),
    ...ports.map((name) => `link set b-${name} up master br0 addrgenmode none`),
    ...containers.map(
      (netns, i) =>
        `link add link ${macvlanParent(i)} name eth0 netns ${netns} address ${macvlanMac(i)} type macvlan mode bridge`,
    ),
  ]);
  // Nothing is flooded: a frame that comes to the wrong end fails the test.
  for (const [i] of interfaces.entries()) {
    const port = `b-${i < 4 ? macvlanParent(i) : interfaces[i]}`;
    execFileSync('bridge', ['-n', host, 'fdb', 'add', onBridge(i), 'dev', port, 'master', 'static']);
  }
  for (const [i, netns] of containers.entries()) connectContainer(netns, wire, i);
  ip(
    wire,
    interfaces.map((name) => `link set w-${name} up`),
  );
}

function connectContainer(netns: string, wire: string, i: number): void {
  const set =
    'for path in "$@"; do echo 1 > /proc/sys/net/$path; done; echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter';
  const forwarding = ['ipv4/ip_forward', 'ipv6/conf/all/forwarding'];
  execFileSync('ip', ['netns', 'exec', netns, 'sh', '-c', set, 'sh', ...forwarding]);
  ip(netns, [
    `link add inner address ${HOST_MAC} type veth peer name w-${interfaces[i]} address ${macOf(i)} netns ${wire}`,
    ...['inner', 'eth0'].flatMap((name) => [`link set ${name} addrgenmode none`, `link set ${name} up`]),
    ...addressesBehind.flatMap((addresses, at) => {
      const [device, mac] = at === i ? ['inner', macOf(i)] : ['eth0', onBridge(at)];
      return addresses.flatMap((address) => [
        `route add ${address} dev ${device}`,
        `neighbour add ${address} lladdr ${mac} dev ${device} nud permanent`,
      ]);
    }),
  ]);
  for (const name of ['inner', 'eth0', 'default'])
    execFileSync('ip', [
      'netns',
      'exec',
      netns,
      'sh',
      '-c',
      `echo 0 > /proc/sys/net/ipv4/conf/${name}/rp_filter`,
    ]);
}

function onBridge(i: number): string {
  return i < 4 ? macvlanMac(i) : macOf(i);
}

function indexOf(address: Address): number {
  return addressesBehind.findIndex((addresses) => addresses.includes(address));
}

function ip(netns: string, commands: readonly string[]): void {
  execFileSync('ip', ['-n', netns, '-batch', '-'], { input: `${commands.join('\n')}\n` });
}
