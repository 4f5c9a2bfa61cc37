/**
 * Containers on a wire that lie about their MAC or address, in both families, by frames of their own making: nothing of it arrives, and of
 * most of it nothing even where the container has taken its rules away.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Container } from '../../lab/container.ts';
import { KernelError, type Netns } from '../../src/linux/ports.ts';
import { createLinux } from '../../src/linux/real/linux.ts';
import { type Address, addressBytes } from '../../src/model/ip.ts';
import { type Mac, macBytes } from '../../src/model/mac.ts';
import { framesOf, icmp, udp } from './frames.ts';
import { enterSandbox } from './linux-contract-sandbox.ts';
import { MacvlanHost, type MacvlanMember } from './wired-host.ts';

enterSandbox(import.meta.url);

const IPV4 = 0x0800;
const IPV6 = 0x86dd;
const ARP = 0x0806;
const SOLICITATION = 135;
const ADVERTISEMENT = 136;
const ROUTER_ADVERTISEMENT = 134;
const foreign = '02:00:00:00:00:99' as Mac;
const broadcast = 'ff:ff:ff:ff:ff:ff' as Mac;
const everybody = '33:33:00:00:00:01' as Mac;
const neighbour = '10.66.0.250' as Address;
const neighbour6 = 'fd66::250' as Address;
const allNodes = 'ff02::1' as Address;

interface Sent {
  readonly protocol: number;
  readonly frame: Buffer;
}

describe('lies on the wire', () => {
  let one: MacvlanHost;
  let linux: Awaited<ReturnType<typeof createLinux>>;
  let liar: MacvlanMember;
  let sibling: MacvlanMember;

  before(async () => {
    one = await MacvlanHost.create('ml', ['--resync-seconds', '300']);
    linux = await createLinux({ iptablesBackend: 'nft' });
    liar = await one.join('liar', 'web');
    sibling = await one.join('sibling', 'web');
  });
  after(async () => {
    linux.close();
    await one.close();
  });

  /** Sends a frame from the liar; whether it came to the sibling. */
  async function arrives({ protocol, frame }: Sent): Promise<boolean> {
    const open = ({ container }: { container: Container }): Netns =>
      linux.openNetns(`/run/netns/${container.netns}`);
    const [there, here] = [open(sibling), open(liar)];
    let came = false;
    const hear = (each: Buffer): void => {
      came ||= each.subarray(0, frame.length).equals(frame);
    };
    const ear = linux.openPackets(indexIn(there), protocol, hear, there);
    const mouth = linux.openPackets(indexIn(here), protocol, null, here);
    try {
      for (let i = 0; i < 5 && !came; i++) {
        try {
          mouth.send(frame);
        } catch (error) {
          if (!(error instanceof KernelError)) throw error;
        }
        await sleep(60);
      }
      return came;
    } finally {
      for (const each of [ear, mouth, there, here]) each.close();
    }
  }

  function indexIn(netns: Netns): number {
    const routing = linux.openRouting(netns);
    const { index } = routing.link({ name: 'eth0' })!;
    routing.close();
    return index;
  }

  function packet(sourceMac: Mac, source: Address, destinationMac: Mac, destination: Address): Sent {
    const envelope = { source, destination, sourceMac, destinationMac, id: 7, isCut: false };
    const [frame] = framesOf(envelope, udp([5000, 5001], Buffer.from('a packet that is long enough')));
    return { protocol: source.includes(':') ? IPV6 : IPV4, frame: frame! };
  }

  /** A message of neighbour discovery. @param about the address that it solicits or advertises */
  function neighbourMessage(
    type: number,
    source: Address,
    about: Address,
    [destinationMac, destination]: readonly [Mac, Address],
  ): Sent {
    const option = type === ADVERTISEMENT ? 2 : 1;
    const body = Buffer.concat([addressBytes(about), Buffer.from([option, 1]), macBytes(liar.mac)]);
    const transport = icmp(6, type, 0, type === ADVERTISEMENT ? 0x2000 : 0, body);
    const envelope = { source, destination, sourceMac: liar.mac, destinationMac, id: 7, isCut: false };
    const [frame] = framesOf(envelope, transport);
    // Neighbours are asked and told on the link alone.
    frame!.writeUInt8(255, 14 + 7);
    return { protocol: IPV6, frame: frame! };
  }

  /** An answer: `address` is at `senderMac`. */
  function arp(sourceMac: Mac, senderMac: Mac, address: Address, to: Mac = sibling.mac): Sent {
    const header = Buffer.from([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 2]);
    const frame = Buffer.concat([
      macBytes(to),
      macBytes(sourceMac),
      header,
      macBytes(senderMac),
      addressBytes(address),
      macBytes(sibling.mac),
      addressBytes(sibling.address),
    ]);
    return { protocol: ARP, frame };
  }

  /** Siblings' broadcasts pass no hook of the host: of those only the rules in the container keep anything. */
  const lies = (): readonly [what: string, sent: Sent, isGuarded: boolean][] => {
    const toSibling = [sibling.mac, sibling.address6] as const;
    const toAll = [everybody, allNodes] as const;
    const { mac, address, address6 } = liar;
    const message = neighbourMessage;
    return [
      ['a foreign MAC', packet(foreign, address, sibling.mac, sibling.address), false],
      ['a foreign address', packet(mac, neighbour, sibling.mac, sibling.address), true],
      ['a foreign address, to all', packet(mac, neighbour, broadcast, '255.255.255.255' as Address), false],
      ['ARP that claims a neighbour’s address', arp(mac, mac, neighbour), true],
      ['ARP that claims it to all', arp(mac, mac, neighbour, broadcast), false],
      ['ARP that claims the sibling’s own address', arp(mac, mac, sibling.address), true],
      ['ARP for a foreign MAC', arp(mac, foreign, address), true],
      ['ARP from a foreign MAC', arp(foreign, foreign, sibling.address), true],
      ['a foreign MAC over IPv6', packet(foreign, address6, ...toSibling), false],
      ['a foreign IPv6 address', packet(mac, neighbour6, ...toSibling), true],
      ['a foreign IPv6 address, to all', packet(mac, neighbour6, ...toAll), false],
      [
        'an advertisement of a neighbour’s address',
        message(ADVERTISEMENT, address6, neighbour6, toSibling),
        true,
      ],
      ['an advertisement to all', message(ADVERTISEMENT, address6, neighbour6, toAll), false],
      [
        'an advertisement of the sibling’s address',
        message(ADVERTISEMENT, address6, sibling.address6, toSibling),
        true,
      ],
      [
        'a solicitation that says where a neighbour is',
        message(SOLICITATION, neighbour6, sibling.address6, toSibling),
        true,
      ],
      ['such a solicitation to all', message(SOLICITATION, neighbour6, sibling.address6, toAll), false],
      [
        'a router’s advertisement',
        message(ROUTER_ADVERTISEMENT, 'fe80::1' as Address, neighbour6, toSibling),
        true,
      ],
      [
        'a router’s advertisement to all',
        message(ROUTER_ADVERTISEMENT, 'fe80::1' as Address, neighbour6, toAll),
        false,
      ],
    ];
  };

  test('the truth arrives', async () => {
    const { mac, address, address6 } = liar;
    const toSibling = [sibling.mac, sibling.address6] as const;
    const toAll = [everybody, allNodes] as const;
    for (const [what, sent] of [
      ['IPv4', packet(mac, address, sibling.mac, sibling.address)],
      ['IPv4 to all', packet(mac, address, broadcast, '255.255.255.255' as Address)],
      ['ARP', arp(mac, mac, address)],
      ['ARP to all', arp(mac, mac, address, broadcast)],
      ['IPv6', packet(mac, address6, ...toSibling)],
      ['IPv6 to all', packet(mac, address6, ...toAll)],
      ['an advertisement', neighbourMessage(ADVERTISEMENT, address6, address6, toSibling)],
      ['an advertisement to all', neighbourMessage(ADVERTISEMENT, address6, address6, toAll)],
      ['a solicitation', neighbourMessage(SOLICITATION, address6, sibling.address6, toAll)],
      ['from no address yet', neighbourMessage(SOLICITATION, '::' as Address, address6, toAll)],
    ] as const)
      assert.equal(await arrives(sent), true, what);
  });

  test('MACs and addresses of others, forged ARP and neighbour discovery do not', async () => {
    const came: string[] = [];
    for (const [what, sent] of lies()) if (await arrives(sent)) came.push(what);
    assert.deepEqual(came, []);
  });

  test('neighbours are found, and a liar does not change what is known of them', async () => {
    const ping = (address: string): Promise<string> =>
      sibling.container.mustExec(['ping', '-c', '1', '-W', '2', address]);
    const third = await one.join('third', 'web');
    await ping(third.address6);
    await ping(third.address);
    const known = async (): Promise<string> =>
      (await sibling.container.mustExec(['ip', 'neigh', 'show', third.address6])) +
      (await sibling.container.mustExec(['ip', 'neigh', 'show', third.address]));
    const right = (text: string): boolean => text.split(third.mac).length === 3;
    assert.ok(right(await known()), await known());
    const toSibling = [sibling.mac, sibling.address6] as const;
    // Of what was not confirmed just now, the kernel believes news.
    for (const address of [third.address, third.address6])
      await sibling.container.mustExec([
        'ip',
        'neigh',
        'change',
        address,
        'lladdr',
        third.mac,
        'dev',
        'eth0',
        'nud',
        'stale',
      ]);
    for (const sent of [
      neighbourMessage(ADVERTISEMENT, liar.address6, third.address6, toSibling),
      neighbourMessage(SOLICITATION, third.address6, sibling.address6, toSibling),
      neighbourMessage(SOLICITATION, third.address6, sibling.address6, [everybody, allNodes]),
      arp(liar.mac, liar.mac, third.address),
      arp(liar.mac, liar.mac, third.address, broadcast),
    ])
      await arrives(sent);
    assert.ok(right(await known()), await known());
  });

  test('nor do they, but for broadcasts and a MAC that nobody here has, from a container that takes its rules away', async () => {
    const came: string[] = [];
    for (const [what, sent, isGuarded] of lies()) {
      if (!isGuarded) continue;
      await liar.container.mustExec(['nft', 'flush', 'ruleset']);
      if (await arrives(sent)) came.push(what);
    }
    assert.deepEqual(came, []);
  });
});
