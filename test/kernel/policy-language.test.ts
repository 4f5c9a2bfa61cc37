/** Each feature of the rule language, loaded into a real kernel by each back end, judged by packets that it means and packets that it does not. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { eventually } from '../../lab/run.ts';
import { probePacket } from '../../src/linux/packet.ts';
import type { Netns } from '../../src/linux/ports.ts';
import { native } from '../../src/linux/real/native.ts';
import { openNetns } from '../../src/linux/real/netns.ts';
import type { Address } from '../../src/model/ip.ts';
import { profileFromJson } from '../../src/model/profile.ts';
import { parseProtocol } from '../../src/model/protocol.ts';
import { PolicyEngine } from '../../src/policy/engine.ts';
import { Recorder } from '../unit/policy/recorder.ts';
import { type Peer, PolicyHost } from './policy-hosts.ts';
import { policyLoaders } from './policy-loaders.ts';

/** `tcp 80`, `udp 53 from 1024`, `icmp 8/0`, `icmpv6 135/0`, `47`; before it `6 ` for IPv6. */
type PacketText = string;

interface Row {
  readonly rule: object;
  readonly meant: readonly PacketText[];
  readonly others: readonly PacketText[];
}

const manyPorts = Array.from({ length: 20 }, (_, i) => 1000 + 2 * i);

const rows: Readonly<Record<string, Row>> = {
  anything: { rule: {}, meant: ['tcp 80', 'udp 53', 'icmp 8/0', '47', '6 tcp 80'], others: [] },
  'a protocol by name': {
    rule: { protocol: 'udp' },
    meant: ['udp 53', '6 udp 53'],
    others: ['tcp 53', 'icmp 8/0'],
  },
  'a protocol by number': { rule: { protocol: 47 }, meant: ['47', '6 47'], others: ['50', 'udp 47'] },
  'a protocol by digits': { rule: { protocol: '17' }, meant: ['udp 1'], others: ['tcp 1'] },
  'sctp with a port': {
    rule: { protocol: 'sctp', dst_ports: [80] },
    meant: ['sctp 80'],
    others: ['sctp 81', 'tcp 80'],
  },
  'not a protocol': {
    rule: { '!protocol': 'tcp' },
    meant: ['udp 80', 'icmp 8/0', '47'],
    others: ['tcp 80', '6 tcp 80'],
  },
  'one family': { rule: { ip_version: 6 }, meant: ['6 tcp 80'], others: ['tcp 80'] },
  'a port': {
    rule: { protocol: 'tcp', dst_ports: [80] },
    meant: ['tcp 80', '6 tcp 80'],
    others: ['tcp 81', 'udp 80', 'tcp 81 from 80'],
  },
  'ports and ranges': {
    rule: { protocol: 'tcp', dst_ports: [22, '8000:8100', 443] },
    meant: ['tcp 22', 'tcp 443', 'tcp 8000', 'tcp 8100'],
    others: ['tcp 7999', 'tcp 8101', 'tcp 23'],
  },
  'more ports than multiport takes': {
    rule: { protocol: 'udp', dst_ports: manyPorts },
    meant: ['udp 1000', 'udp 1014', 'udp 1028', 'udp 1030', 'udp 1038'],
    others: ['udp 1001', 'udp 1029', 'udp 1040', 'udp 999'],
  },
  'none of more ports than multiport takes': {
    rule: { protocol: 'udp', '!dst_ports': manyPorts },
    meant: ['udp 1001', 'udp 1029', 'udp 1040'],
    others: ['udp 1000', 'udp 1028', 'udp 1038', 'tcp 1001'],
  },
  'more source and destination ports than multiport takes': {
    rule: { protocol: 'udp', dst_ports: manyPorts, src_ports: manyPorts },
    meant: ['udp 1000 from 1038', 'udp 1038 from 1000'],
    others: ['udp 1000 from 1001', 'udp 1001 from 1000'],
  },
  'a source port': {
    rule: { protocol: 'udp', src_ports: [53] },
    meant: ['udp 9 from 53'],
    others: ['udp 53 from 54'],
  },
  'not a source port': {
    rule: { protocol: 'udp', '!src_ports': ['1:1023'] },
    meant: ['udp 9 from 1024'],
    others: ['udp 9 from 53'],
  },
  'port 0 and the last one': {
    rule: { protocol: 'udp', dst_ports: [0, 65535] },
    meant: ['udp 65535'],
    others: ['udp 65534'],
  },
  'an icmp type by number': {
    rule: { protocol: 'icmp', icmp_type: 13 },
    meant: ['icmp 13/0'],
    others: ['icmp 8/0', '6 icmpv6 128/0'],
  },
  'an icmp type by name': {
    rule: { protocol: 'icmp', icmp_type: 'echo-request' },
    meant: ['icmp 8/0'],
    others: ['icmp 13/0'],
  },
  'an icmpv6 type by name': {
    rule: { protocol: 'icmpv6', icmp_type: 'echo-request' },
    meant: ['6 icmpv6 128/0'],
    others: ['icmp 8/0'],
  },
  'an icmp type with a code': {
    rule: { protocol: 'icmp', icmp_type: 8, icmp_code: 3 },
    meant: ['icmp 8/3'],
    others: ['icmp 8/0'],
  },
  'not an icmp type': {
    rule: { protocol: 'icmp', '!icmp_type': 8 },
    meant: ['icmp 13/0'],
    others: ['icmp 8/0', 'udp 8'],
  },
  'an icmp type but for a code': {
    rule: { protocol: 'icmp', icmp_type: 8, '!icmp_code': 0 },
    meant: ['icmp 8/1'],
    others: ['icmp 8/0', 'icmp 13/1'],
  },
  'a source prefix': { rule: { src_net: '192.0.2.0/24' }, meant: ['udp 1'], others: ['6 udp 1'] },
  'not a source prefix': { rule: { '!src_net': '192.0.2.0/24' }, meant: [], others: ['udp 1', '6 udp 1'] },
  'a prefix but for a part of it': {
    rule: { src_net: '192.0.0.0/16', '!src_net': '192.0.2.0/25' },
    meant: [],
    others: ['udp 1'],
  },
  'a destination prefix of IPv6': { rule: { dst_net: 'fd00::/64' }, meant: ['6 udp 1'], others: ['udp 1'] },
  'a tag that nobody has': { rule: { src_tag: 'nobody' }, meant: [], others: ['udp 1'] },
  'not a tag': { rule: { '!src_tag': 'web' }, meant: ['udp 1', '6 udp 1'], others: [] },
  'a selector of others': { rule: { '!src_selector': 'role == "web"' }, meant: ['udp 1'], others: [] },
  'not a set': { rule: { '!src_set': 'office' }, meant: [], others: ['udp 1', '6 udp 1'] },
  'a set': { rule: { src_set: 'office' }, meant: ['udp 1', '6 udp 1'], others: [] },
  'a comment': { rule: { comment: 'for the shop, 100% $(reboot); #1' }, meant: ['udp 1'], others: [] },
};

for (const loader of policyLoaders) {
  describe(`the language in the kernel, ${loader.name}`, () => {
    let host: PolicyHost;
    let outside: Peer;
    let web: Peer;
    let netns: Netns;
    let port = 20_000;

    before(async () => {
      host = new PolicyHost();
      outside = await host.neighbour('outside', 'uplink', '192.0.2.', '2001:db8::', []);
      web = await host.container('web', []);
      netns = openNetns(`/run/netns/${outside.namespace}`);
    });
    after(() => {
      netns.close();
      host.close();
    });

    function load(rule: object): void {
      const output = new Recorder();
      const engine = new PolicyEngine({ endpointToHost: 'drop' }, output);
      const json = { id: 'web', tags: ['web'], inbound_rules: [rule], outbound_rules: [] };
      engine.onProfile('web', profileFromJson(json, 'web'));
      engine.onAddressSet('office', ['192.0.2.0/25', '2001:db8::/126'] as never);
      const endpoint = { local: true, hostInterface: 'nctlweb', addresses: web.addresses, profiles: ['web'] };
      engine.onEndpoint('web', { ...endpoint, labels: { role: 'web' } });
      for (const program of ['iptables', 'ip6tables'])
        for (const chain of ['FORWARD', 'INPUT']) host.exec([`${program}-${loader.variant}`, '-F', chain]);
      loader.load(host, output);
    }

    function send(text: PacketText): void {
      const [, six, protocol, to, code, from] =
        /^(6 )?(\S+)(?: (\d+)(?:\/(\d+))?)?(?: from (\d+))?$/.exec(text) ?? assert.fail(text);
      const family = six === undefined ? 0 : 1;
      const isIcmp = protocol!.startsWith('icmp');
      const carries = to !== undefined && !isIcmp;
      native.sendPacket(
        netns.fd,
        probePacket({
          source: outside.addresses[family] as Address,
          destination: web.addresses[family] as Address,
          protocol: parseProtocol(protocol!),
          sourcePort: carries ? Number(from ?? ++port) : null,
          destinationPort: carries ? Number(to) : null,
          icmp: isIcmp ? { type: Number(to), code: Number(code) } : null,
          id: ++port,
        }),
      );
    }

    /** Packets that the rules which the row became have accepted, and all that the chain's end has dropped. */
    function counted(): { accepted: number; dropped: number } {
      const sums = { accepted: 0, dropped: 0 };
      for (const family of ['', '6']) {
        const lines =
          loader.name === 'nftables'
            ? host
                .exec(['nft', 'list', 'table', `ip${family}`, 'netctl'])
                .matchAll(/counter packets (\d+) bytes \d+ (.*)$/gm)
            : host
                .exec([`ip${family}tables-${loader.variant}-save`, '-c', '-t', 'filter'])
                .matchAll(/^\[(\d+):\d+\] (-A nctl-in-.*)$/gm);
        for (const [, packets, rule] of lines) {
          if (/ACCEPT|^accept/.test(rule!) && /web: /.test(rule!)) sums.accepted += Number(packets);
          else if (/no profile matched|web: /.test(rule!)) sums.dropped += Number(packets);
        }
      }
      return sums;
    }

    for (const [what, { rule, meant, others }] of Object.entries(rows)) {
      test(what, async () => {
        load({ action: 'allow', ...rule });
        for (const text of [...meant, ...others]) send(text);
        const expected = { accepted: meant.length, dropped: others.length };
        let seen = counted();
        await eventually('all packets are counted', 10_000, async () => {
          seen = counted();
          return seen.accepted + seen.dropped >= meant.length + others.length;
        }).catch(() => undefined);
        assert.deepEqual(seen, expected);
      });
    }

    test('log: with the name of its profile as prefix, at most ten a second, and on to the next rule', () => {
      load({ action: 'log', protocol: 'tcp' });
      const text =
        loader.name === 'nftables'
          ? host.exec(['nft', 'list', 'table', 'ip', 'netctl'])
          : host.exec([`iptables-${loader.variant}-save`, '-t', 'filter']);
      const shown =
        loader.name === 'nftables'
          ? /meta l4proto (?:6|tcp) limit rate 10\/second burst 20 packets log prefix "netctl:web " comment/
          : /-p tcp .*-m limit --limit 10\/sec --limit-burst 20 .*-j LOG --log-prefix "netctl:web "/;
      assert.match(text, shown);
      assert.equal(counted().accepted, 0);
    });
  });
}
