/** Ports of the host that lead to endpoints: which chains are told, and how each back end says them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Address, Family } from '../../../src/model/ip.ts';
import { parsePortMapping } from '../../../src/model/port-mapping.ts';
import type { Chain } from '../../../src/policy/chain.ts';
import { PublishedPorts } from '../../../src/policy/published-ports.ts';
import { renderChain } from '../../../src/policy/render-iptables.ts';
import { renderNftChain } from '../../../src/policy/render-nftables.ts';
import { ToldChains } from '../../../src/policy/told-chains.ts';

const endpoint = (addresses: readonly string[], ...mappings: string[]) => ({
  addresses: addresses as Address[],
  portMappings: mappings.map((text) => parsePortMapping(text)),
});

function published() {
  const told = new Map<string, Chain>();
  const chains = new ToldChains({
    set() {},
    member() {},
    chain(family: Family, name: string, chain: Chain | null) {
      if (chain === null) told.delete(`${family} ${name}`);
      else told.set(`${family} ${name}`, chain);
    },
  });
  return { told, ports: new PublishedPorts(chains) };
}

const nftables = (chain: Chain | undefined, family: Family = 4): readonly string[] =>
  renderNftChain(family, chain!).texts;

test('chains are there while an endpoint of the family publishes something', () => {
  const { told, ports } = published();
  ports.onEndpoint('a', endpoint(['10.0.0.1', 'fd00::1']));
  assert.deepEqual([...told.keys()], []);
  ports.onEndpoint('a', endpoint(['10.0.0.1', 'fd00::1'], '[2001:db8::1]:80:8080'));
  assert.deepEqual([...told.keys()], ['6 nctl-published', '6 nctl-published-back']);
  ports.onEndpoint('b', endpoint(['10.0.0.2'], '53:53/udp'));
  assert.deepEqual(
    [...told.keys()].filter((key) => key.startsWith('4')),
    ['4 nctl-published', '4 nctl-published-back', '4 nctl-published-in'],
  );
  ports.onEndpoint('a', null);
  ports.onEndpoint('b', endpoint(['10.0.0.2']));
  assert.deepEqual([...told.keys()], []);
});

test('one address of the host comes before all of them; 0.0.0.0 is all of IPv4', () => {
  const { told, ports } = published();
  ports.onEndpoint('a', endpoint(['10.0.0.1', 'fd00::1'], '80:8080', '0.0.0.0:443:8443'));
  ports.onEndpoint('b', endpoint(['10.0.0.2'], '192.0.2.1:81:8080/sctp'));
  assert.deepEqual(nftables(told.get('4 nctl-published')), [
    'th dport 81 meta l4proto 132 ip daddr 192.0.2.1/32 counter dnat to 10.0.0.2:8080',
    'th dport 80 meta l4proto 6 counter dnat to 10.0.0.1:8080',
    'th dport 443 meta l4proto 6 counter dnat to 10.0.0.1:8443',
  ]);
  assert.deepEqual(nftables(told.get('6 nctl-published'), 6), [
    'ip6 daddr ::1/128 return',
    'th dport 80 meta l4proto 6 counter dnat to [fd00::1]:8080',
  ]);
  const { lines } = renderChain(told.get('6 nctl-published')!);
  assert.match(
    lines[1]!,
    /^-A nctl-published -p tcp -m multiport --dports 80 .* -j DNAT --to-destination \[fd00::1\]:8080$/,
  );
});

test('only what could not be answered gets another source', () => {
  const { told, ports } = published();
  ports.onEndpoint('a', endpoint(['10.0.0.1', 'fd00::1'], '80:80'));
  assert.deepEqual(nftables(told.get('4 nctl-published-back')), [
    'oifname . ip saddr @nctl4-ep counter masquerade',
    'oifname "nctl*" ip saddr 127.0.0.0/8 counter masquerade',
  ]);
  assert.deepEqual(nftables(told.get('6 nctl-published-back'), 6), [
    'oifname . ip6 saddr @nctl6-ep counter masquerade',
  ]);
  const { lines } = renderChain(told.get('4 nctl-published-back')!);
  assert.match(lines[0]!, /-m set --match-set nctl4-ep src,dst .* -j MASQUERADE$/);
});

test('mappings as an operator writes them', () => {
  assert.deepEqual(parsePortMapping('8080:80'), {
    protocol: 'tcp',
    hostPort: 8080,
    containerPort: 80,
    hostIP: null,
  });
  assert.equal(parsePortMapping('[2001:db8::1]:53:5353/UDP').hostIP, '2001:db8::1');
  for (const text of ['80', '0:80', '80:70000', '80:80/icmp', 'host:80:80', '[::1]:80:80', '1.2.3:80:80'])
    assert.throws(() => parsePortMapping(text), { code: 'INVALID' }, text);
});
