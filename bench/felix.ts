/**
 * Calico's Felix on the same world, as fixtures: the layout of 2015 (felix 0.26, iptables) and that of today, as iptables and as
 * nftables. Written from how Felix's chains are laid out, not with Felix: the layouts are compared, not the agents.
 *
 * In: a world (rules of the form "allow tcp, from or to a tag, one port"). Out: input for `ipset restore`, `iptables-restore` and
 * `nft -f`. Where Felix's own rules are not fixed, the fixture has the cheaper form. Never: a rule of the world left out.
 */
import { families, familyOf } from '../src/model/ip.ts';
import type { Rule } from '../src/model/rule.ts';
import type { PolicyEndpoint } from '../src/policy/endpoint-members.ts';
import type { World } from './policy-world.ts';

const ACCEPT = '0x10000/0x10000';
const FROM_ENDPOINT = '0x40000/0x40000';
type Direction = 'inbound' | 'outbound';

/** Tag → addresses of IPv4. */
function tagMembers({ profiles, endpoints, others }: World): Map<string, string[]> {
  const members = new Map<string, string[]>();
  for (const { profiles: names, addresses } of [...endpoints.values(), ...others.values()]) {
    for (const tag of names.flatMap((name) => profiles.get(name)!.tags)) {
      const known = members.get(tag) ?? [];
      known.push(...addresses.filter((address) => familyOf(address) === families[0]));
      members.set(tag, known);
    }
  }
  return members;
}

/** For `ipset restore`. */
export function felixSets(world: World): string {
  const lines = ['create all-pools hash:net', 'add all-pools 10.0.0.0/8'];
  for (const [tag, members] of tagMembers(world)) {
    lines.push(`create ${setOf(tag)} hash:ip maxelem 1048576`);
    for (const member of members) lines.push(`add ${setOf(tag)} ${member}`);
  }
  return `${lines.join('\n')}\n`;
}

/**
 * felix 0.26: a tree of interfaces by the first character, chains per endpoint and per profile, mark 1 for "not matched". For
 * `iptables-restore`.
 */
export function felix2015(world: World): string {
  const chains = new Map<string, string[]>();
  chains.set('felix-FORWARD', [
    '-i nctl+ -m conntrack --ctstate INVALID -j DROP',
    '-o nctl+ -m conntrack --ctstate INVALID -j DROP',
    '-i nctl+ -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN',
    '-o nctl+ -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN',
    '-i nctl+ -j felix-FROM-ENDPOINT',
    '-o nctl+ -j felix-TO-ENDPOINT',
    '-i nctl+ -j ACCEPT',
    '-o nctl+ -j ACCEPT',
  ]);
  for (const [direction, word] of [
    ['outbound', 'FROM'],
    ['inbound', 'TO'],
  ] as const) {
    addTree(chains, world, direction, {
      root: `felix-${word}-ENDPOINT`,
      branch: (character) => `felix-${word}-EP-PFX-${character}`,
      leaf: (link) => `felix-${word.toLowerCase()}-${link.slice(4)}`,
    });
  }
  for (const { hostInterface, profiles } of world.endpoints.values()) {
    for (const [word, suffix] of [
      ['from', 'o'],
      ['to', 'i'],
    ])
      chains.set(`felix-${word}-${hostInterface.slice(4)}`, [
        ...profiles.flatMap((profile) => [
          '-j MARK --set-mark 0',
          `-j felix-p-${profile}-${suffix}`,
          '-m mark ! --mark 1/1 -j RETURN',
        ]),
        '-j DROP',
      ]);
  }
  eachProfileChain(world, (name, direction, rules) => {
    const matches = rules.map((rule) => `${iptablesMatch(rule)} -j RETURN`);
    chains.set(`felix-p-${name}-${direction === 'inbound' ? 'i' : 'o'}`, [
      ...matches,
      '-j MARK --set-mark 1',
    ]);
  });
  return [
    table('nat', ['-A PREROUTING -j felix-PREROUTING'], new Map([['felix-PREROUTING', []]])),
    table('filter', ['-A FORWARD -j felix-FORWARD'], chains),
  ].join('');
}

/** Felix of today with iptables, for `iptables-restore`. @param nat the pool asks for NAT */
export function felixIptables(world: World, nat: boolean): string {
  const clear = '-j MARK --set-xmark 0x0/';
  const isAccepted = `-m mark --mark ${ACCEPT}`;
  const isNot = '-m mark --mark 0x0/0x10000';
  const raw = new Map([
    [
      'cali-PREROUTING',
      [
        `${clear}0xf0000`,
        `-i nctl+ -j MARK --set-xmark ${FROM_ENDPOINT}`,
        `-m mark --mark ${FROM_ENDPOINT} -j cali-rpf-skip`,
        `-m mark --mark ${FROM_ENDPOINT} -m rpfilter --validmark --invert -j DROP`,
        '-m mark --mark 0x0/0x40000 -j cali-from-host-endpoint',
        `${isAccepted} -j ACCEPT`,
      ],
    ],
    ['cali-rpf-skip', []],
    ['cali-from-host-endpoint', []],
  ]);
  const mangle = new Map([
    [
      'cali-PREROUTING',
      [
        '-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT',
        `${isAccepted} -j ACCEPT`,
        '-j cali-from-host-endpoint',
        `${isAccepted} -j ACCEPT`,
      ],
    ],
    [
      'cali-POSTROUTING',
      [
        `${isAccepted} -j RETURN`,
        `${clear}0xf0000`,
        '-m conntrack --ctstate DNAT -j cali-to-host-endpoint',
        `${isAccepted} -j RETURN`,
      ],
    ],
    ['cali-from-host-endpoint', []],
    ['cali-to-host-endpoint', []],
  ]);
  const masquerade =
    '-m set --match-set all-pools src -m set ! --match-set all-pools dst -j MASQUERADE --random-fully';
  const natChains = new Map([
    ['cali-PREROUTING', ['-j cali-fip-dnat']],
    ['cali-POSTROUTING', ['-j cali-fip-snat', '-j cali-nat-outgoing']],
    ['cali-fip-dnat', []],
    ['cali-fip-snat', []],
    ['cali-nat-outgoing', nat ? [masquerade] : []],
  ]);
  const filter = new Map([
    [
      'cali-FORWARD',
      [
        `${clear}0xe0000`,
        `${isNot} -j cali-from-hep-forward`,
        '-i nctl+ -j cali-from-wl-dispatch',
        '-o nctl+ -j cali-to-wl-dispatch',
        '-j cali-to-hep-forward',
        '-j cali-cidr-block',
      ],
    ],
    ['cali-from-hep-forward', []],
    ['cali-to-hep-forward', []],
    ['cali-cidr-block', []],
  ]);
  addTree(filter, world, 'outbound', {
    root: 'cali-from-wl-dispatch',
    branch: (character) => `cali-from-wl-dispatch-${character}`,
    leaf: (link) => `cali-fw-${link}`,
  });
  addTree(filter, world, 'inbound', {
    root: 'cali-to-wl-dispatch',
    branch: (character) => `cali-to-wl-dispatch-${character}`,
    leaf: (link) => `cali-tw-${link}`,
  });
  eachEndpointChain(world, (name, direction, profiles) => {
    filter.set(name, [
      '-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT',
      '-m conntrack --ctstate INVALID -j DROP',
      `${clear}0x30000`,
      ...(direction === 'outbound' ? ['-p udp -m multiport --dports 4789 -j DROP', '-p 4 -j DROP'] : []),
      ...profiles.flatMap((profile) => [`-j ${profileChain(profile, direction)}`, `${isAccepted} -j RETURN`]),
      '-j DROP',
    ]);
  });
  eachProfileChain(world, (name, direction, rules) => {
    filter.set(
      profileChain(name, direction),
      rules.flatMap((rule) => [
        `${iptablesMatch(rule)} -j MARK --set-xmark ${ACCEPT}`,
        `${isAccepted} -j RETURN`,
      ]),
    );
  });
  return [
    table('raw', ['-A PREROUTING -j cali-PREROUTING'], raw),
    table('mangle', ['-A PREROUTING -j cali-PREROUTING', '-A POSTROUTING -j cali-POSTROUTING'], mangle),
    table('nat', ['-A PREROUTING -j cali-PREROUTING', '-A POSTROUTING -j cali-POSTROUTING'], natChains),
    table(
      'filter',
      [
        '-A FORWARD -j cali-FORWARD',
        `-A FORWARD ${isAccepted} -j ACCEPT`,
        `-A FORWARD -j MARK --set-xmark ${ACCEPT}`,
      ],
      filter,
    ),
  ].join('');
}

/** Felix of today with nftables: one table, every rule with a counter, endpoints in verdict maps. For `nft -f`. */
export function felixNftables(world: World, nat: boolean): string {
  const isAccepted = 'meta mark & 0x10000 == 0x10000 counter';
  const accept = 'counter meta mark set meta mark or 0x10000';
  const clear = (bits: string): string => `counter meta mark set meta mark and ${bits}`;
  const chains = new Map<string, string[]>();
  const base = (name: string, type: string, hook: string, priority: number, rules: string[]): void => {
    chains.set(name, [`type ${type} hook ${hook} priority ${priority}; policy accept;`, ...rules]);
  };
  base('raw-PREROUTING', 'filter', 'prerouting', -300, [
    clear('0xfff0ffff'),
    'iifname "nctl*" counter meta mark set meta mark or 0x40000',
    'meta mark & 0x40000 == 0x40000 counter jump raw-cali-rpf-skip',
    'meta mark & 0x40000 == 0x40000 fib saddr . mark . iif oif 0 counter drop',
    'meta mark & 0x40000 == 0 counter jump raw-cali-from-host-endpoint',
    `${isAccepted} accept`,
  ]);
  base('mangle-PREROUTING', 'filter', 'prerouting', -150, [
    'ct state established,related counter accept',
    `${isAccepted} accept`,
    'counter jump mangle-cali-from-host-endpoint',
    `${isAccepted} accept`,
  ]);
  base('nat-PREROUTING', 'nat', 'prerouting', -100, ['counter jump nat-cali-fip-dnat']);
  base('filter-FORWARD', 'filter', 'forward', 0, [
    clear('0xfff1ffff'),
    'meta mark & 0x10000 == 0 counter jump filter-cali-from-hep-forward',
    'iifname "nctl*" counter jump filter-cali-from-wl-dispatch',
    'oifname "nctl*" counter jump filter-cali-to-wl-dispatch',
    'counter jump filter-cali-to-hep-forward',
    'counter jump filter-cali-cidr-block',
    `${isAccepted} accept`,
    accept,
  ]);
  base('mangle-POSTROUTING', 'filter', 'postrouting', -150, [
    `${isAccepted} return`,
    clear('0xfff0ffff'),
    'ct status dnat counter jump mangle-cali-to-host-endpoint',
    `${isAccepted} return`,
  ]);
  base('nat-POSTROUTING', 'nat', 'postrouting', 110, [
    'counter jump nat-cali-fip-snat',
    'counter jump nat-cali-nat-outgoing',
  ]);
  for (const empty of [
    ...['raw-cali-rpf-skip', 'raw-cali-from-host-endpoint', 'mangle-cali-from-host-endpoint'],
    ...['mangle-cali-to-host-endpoint', 'nat-cali-fip-dnat', 'nat-cali-fip-snat'],
    ...['filter-cali-from-hep-forward', 'filter-cali-to-hep-forward', 'filter-cali-cidr-block'],
  ])
    chains.set(empty, []);
  const masquerade = 'ip saddr @all-pools ip daddr != @all-pools counter masquerade fully-random';
  chains.set('nat-cali-nat-outgoing', nat ? [masquerade] : []);
  chains.set('filter-cali-from-wl-dispatch', ['counter iifname vmap @from-wl', 'counter drop']);
  chains.set('filter-cali-to-wl-dispatch', ['counter oifname vmap @to-wl', 'counter drop']);
  eachEndpointChain(world, (name, direction, profiles) => {
    chains.set(`filter-${name}`, [
      'ct state established,related counter accept',
      'ct state invalid counter drop',
      clear('0xfffcffff'),
      ...(direction === 'outbound' ? ['udp dport 4789 counter drop', 'meta l4proto 4 counter drop'] : []),
      ...profiles.flatMap((profile) => [
        `counter jump filter-${profileChain(profile, direction)}`,
        `${isAccepted} return`,
      ]),
      'counter drop',
    ]);
  });
  eachProfileChain(world, (name, direction, rules) => {
    chains.set(
      `filter-${profileChain(name, direction)}`,
      rules.flatMap((rule) => [`${nftMatch(rule)} ${accept}`, `${isAccepted} return`]),
    );
  });
  const vmap = (map: string, chain: string): string => {
    const elements = [...world.endpoints.values()].map(
      ({ hostInterface }) => `"${hostInterface}" : goto filter-cali-${chain}-${hostInterface}`,
    );
    return `map ${map} { type ifname : verdict; elements = { ${elements.join(', ')} }; }`;
  };
  const sets = [...tagMembers(world)].map(
    ([tag, members]) =>
      `set ${setOf(tag)} { type ipv4_addr; ${members.length > 0 ? `elements = { ${members.join(', ')} };` : ''} }`,
  );
  return [
    'table ip calico {',
    'set all-pools { type ipv4_addr; flags interval; elements = { 10.0.0.0/8 }; }',
    ...sets,
    ...Array.from(chains, ([name, rules]) => `chain ${name} {\n${rules.join('\n')}\n}`),
    vmap('from-wl', 'fw'),
    vmap('to-wl', 'tw'),
    '}',
    '',
  ].join('\n');
}

interface TreeNames {
  readonly root: string;
  branch(character: string): string;
  leaf(link: string): string;
}

/** Interfaces by the first character behind `nctl`; where it decides alone, there is no second level. */
function addTree(
  chains: Map<string, string[]>,
  world: World,
  direction: Direction,
  { root, branch, leaf }: TreeNames,
): void {
  const option = direction === 'outbound' ? '-i' : '-o';
  const links = [...world.endpoints.values()].map(({ hostInterface }) => hostInterface).sort();
  const rules: string[] = [];
  for (const [character, group] of Map.groupBy(links, (link) => link.charAt(4))) {
    if (group.length === 1) {
      rules.push(`${option} ${group[0]} -g ${leaf(group[0]!)}`);
    } else {
      rules.push(`${option} nctl${character}+ -g ${branch(character)}`);
      chains.set(branch(character), [
        ...group.map((link) => `${option} ${link} -g ${leaf(link)}`),
        '-j DROP',
      ]);
    }
  }
  chains.set(root, [...rules, '-j DROP']);
}

function eachEndpointChain(
  { endpoints }: World,
  visit: (name: string, direction: Direction, profiles: PolicyEndpoint['profiles']) => void,
): void {
  for (const { hostInterface, profiles } of endpoints.values()) {
    visit(`cali-fw-${hostInterface}`, 'outbound', profiles);
    visit(`cali-tw-${hostInterface}`, 'inbound', profiles);
  }
}

function eachProfileChain(
  { profiles }: World,
  visit: (name: string, direction: Direction, rules: readonly Rule[]) => void,
): void {
  for (const [name, profile] of profiles)
    for (const direction of ['inbound', 'outbound'] as const)
      if (profile[direction].length > 0) visit(name, direction, profile[direction]);
}

function profileChain(name: string, direction: Direction): string {
  return `cali-${direction === 'inbound' ? 'pri' : 'pro'}-${name}`;
}

function setOf(tag: string): string {
  return `cali40s-${tag}`;
}

function iptablesMatch(rule: Rule): string {
  const { side, tag, port } = partsOf(rule);
  return `-p tcp -m set --match-set ${setOf(tag)} ${side} -m multiport --dports ${port}`;
}

function nftMatch(rule: Rule): string {
  const { side, tag, port } = partsOf(rule);
  return `meta l4proto tcp ip ${side[0]}addr @${setOf(tag)} tcp dport ${port}`;
}

function partsOf({ matches }: Rule): { side: 'src' | 'dst'; tag: string; port: number } {
  const tag = matches.find((match) => match.kind === 'tag');
  const ports = matches.find((match) => match.kind === 'ports');
  if (tag?.kind !== 'tag' || ports?.kind !== 'ports' || matches.length !== 3)
    throw new Error('the world has a rule of another form');
  return { side: tag.side, tag: tag.tag, port: ports.ports[0]!.from };
}

function table(
  name: string,
  jumps: readonly string[],
  chains: ReadonlyMap<string, readonly string[]>,
): string {
  return [
    `*${name}`,
    ...Array.from(chains.keys(), (chain) => `:${chain} - [0:0]`),
    ...jumps,
    ...[...chains].flatMap(([chain, rules]) => rules.map((rule) => `-A ${chain} ${rule}`)),
    'COMMIT\n',
  ].join('\n');
}
