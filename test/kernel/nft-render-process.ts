/**
 * Run inside a network namespace by nft-render.test.ts: what we write over netlink, and the text that is to mean the same, both loaded
 * and listed by nft. The listing of nft is the judge of what our expressions mean.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { createLinux } from '../../src/linux/real/linux.ts';
import { hostEndpointFromJson } from '../../src/model/host-endpoint.ts';
import type { Address, Cidr } from '../../src/model/ip.ts';
import type { Policy } from '../../src/model/policy.ts';
import type { Profile } from '../../src/model/profile.ts';
import { PolicyEngine } from '../../src/policy/engine.ts';
import { netsArbitrary, policyArbitrary, profileArbitrary } from '../unit/policy/arbitrary.ts';
import { nftRequests, nftScript } from '../unit/policy/nft-script.ts';
import { Recorder } from '../unit/policy/recorder.ts';

const linux = await createLinux({ iptablesBackend: 'nft' });
after(() => linux.close());

function nft(args: readonly string[], input = ''): string {
  return execFileSync('nft', [...args], { encoding: 'utf8', input });
}

function told(
  profiles: Readonly<Record<string, Profile>>,
  policy: Policy | null = null,
  office: readonly Cidr[] = [],
): Recorder {
  const output = new Recorder();
  const engine = new PolicyEngine({ endpointToHost: 'return' }, output);
  for (const [name, profile] of Object.entries(profiles)) engine.onProfile(name, profile);
  if (policy !== null) engine.onPolicy('base', { ...policy, selector: { kind: 'all' } });
  engine.onAddressSet('office', office);
  engine.onHostEndpoint('uplink', hostEndpointFromJson({ interface: 'uplink', profiles: ['one'] }));
  engine.onPool('default', { cidr: '10.9.0.0/16' as Cidr, natOutgoing: true });
  engine.onEndpoint('a', {
    local: true,
    hostInterface: 'nctla',
    addresses: ['10.0.0.1', 'fd00::1'] as Address[],
    profiles: Object.keys(profiles),
    extraSources: ['198.51.100.0/24', '198.51.100.7/32'] as Cidr[],
  });
  return output;
}

/** Where a condition or a statement of a rule begins, as nft prints it. */
const beginning =
  / (?=(?:ip6? [sd]addr|(?:tcp|udp|sctp|th) [sd]port|(?:ip protocol|ip6 nexthdr|meta l4proto)|icmp(?:v6)? (?:type|code)|counter|limit|log) )/;

/** nft moves conditions on ports together when it reads text; all of them must hold, so their order means nothing. */
const inAnyOrder = (rule: string): string =>
  rule.replace(bothPorts, portsApart).split(beginning).sort().join(' ');

/** Two conditions on ports that nft made one of, and prints as such where both are 0. */
const bothPorts = /@th,0,32 0x([\da-f]+)/g;
const portsApart = (_: string, digits: string): string => {
  const both = Number.parseInt(digits, 16);
  return `th sport ${both >>> 16} th dport ${both & 0xffff}`;
};

/** Sets and chains in the order of their names; elements of a hash stand in any order. */
function listing(): string[] {
  const blocks = nft(['-n', 'list', 'ruleset']).split(/\n\n|\n(?=table|})/);
  return blocks
    .map((block) =>
      block
        .replace(/\s+/g, ' ')
        .replace(
          /elements = \{ (.*?) \}/,
          (_, elements) => `elements = { ${elements.split(/, ?/).sort().join(', ')} }`,
        ),
    )
    .filter((block) => block.trim() !== '' && block !== '}')
    .map((block) =>
      block
        .split(/(?<=comment "[^"]*")/)
        .map(inAnyOrder)
        .join(''),
    )
    .sort();
}

test('nft reads in the kernel what the text says, for random profiles', () => {
  let rules = 0;
  fc.assert(
    fc.property(
      profileArbitrary,
      profileArbitrary,
      policyArbitrary,
      netsArbitrary,
      (one, other, policy, nets) => {
        const output = told({ one, 'other-with-a-rather-long-name': other }, policy, nets);
        nft(['flush', 'ruleset']);
        linux.nftables.transact(nftRequests(output));
        const ours = listing();
        nft(['flush', 'ruleset']);
        nft(['-f', '-'], nftScript(output));
        assert.deepEqual(ours, listing());
        rules += ours.join().split('comment').length;
      },
    ),
    { numRuns: 40 },
  );
  assert(rules > 1000, `only ${rules} rules were compared`);
});

test('a listing can be loaded again', () => {
  nft(['flush', 'ruleset']);
  linux.nftables.transact(nftRequests(told({ one: { tags: ['web'], inbound: [], outbound: [] } })));
  const before = listing();
  const text = nft(['-s', 'list', 'ruleset']);
  nft(['flush', 'ruleset']);
  nft(['-f', '-'], text);
  assert.deepEqual(listing(), before);
});
