/**
 * The router in the middle: an autonomous system of its own that takes sessions from whoever is on the switch, and announces
 * the world outside. BIRD and FRR forward as well; GoBGP only speaks, its kernel has no routes.
 *
 * In: which program it is (BIRD 2, FRR, GoBGP, from Debian). Out: the files and the command lines that make it one. Never: a list
 * of the hosts: it accepts any AS but its own, from the whole subnet.
 */
import { outside, routerAddresses, subnets } from './network.ts';

export const routerKinds = ['bird', 'frr', 'gobgp'] as const;
export type RouterKind = (typeof routerKinds)[number];
export const routerAs = 65000;
/** GoBGP takes sessions from one AS only. */
const hostsAs = 64512;

export interface RouterProgram {
  readonly name: string;
  readonly command: readonly string[];
  /** It is the one that speaks BGP. */
  readonly listens?: boolean;
}

export interface RouterPlan {
  /** Debian's, and a file of it to look for. */
  readonly package: string;
  readonly executable: string;
  readonly files: Readonly<Record<string, string>>;
  /** Run first, in the router. */
  readonly prepare: readonly (readonly string[])[];
  readonly programs: readonly RouterProgram[];
  /** Whose output tells its sessions and routes to people. */
  readonly show: readonly string[];
}

/** @param directory for its files, as the router knows it */
export function routerPlan(kind: RouterKind, directory: string): RouterPlan {
  return { bird, frr, gobgp }[kind](directory);
}

function bird(directory: string): RouterPlan {
  const session = (family: 4 | 6, subnet: string, address: string) => `
protocol bgp hosts${family} {
  local ${address} as ${routerAs};
  neighbor range ${subnet} external;
  dynamic name "host${family}_";
  ipv${family} { import all; export where source = RTS_STATIC; next hop self; };
}
protocol static world${family} { ipv${family}; route ${family === 4 ? outside.cidr4 : outside.cidr6} blackhole; }
protocol kernel { ipv${family} { import none; export where source != RTS_DEVICE; }; }
`;
  return {
    package: 'bird2',
    executable: '/usr/sbin/bird',
    files: {
      'bird.conf': `log stderr all;
router id ${routerAddresses.address4};
protocol device {}
${session(4, subnets.subnet4, routerAddresses.address4)}${session(6, subnets.subnet6, routerAddresses.address6)}`,
    },
    prepare: [],
    programs: [
      {
        name: 'bird',
        listens: true,
        command: ['/usr/sbin/bird', '-f', '-c', `${directory}/bird.conf`, '-s', `${directory}/bird.ctl`],
      },
    ],
    show: ['birdc', '-r', '-s', `${directory}/bird.ctl`, 'show', 'protocols'],
  };
}

function frr(directory: string): RouterPlan {
  const daemon = (name: string): RouterProgram => ({
    name,
    listens: name === 'bgpd',
    command: [
      `/usr/lib/frr/${name}`,
      ...[
        '-f',
        `${directory}/${name}.conf`,
        '-i',
        `${directory}/${name}.lock`,
        '-z',
        `${directory}/zserv.api`,
      ],
      ...['--vty_socket', directory, '--log', 'stdout', '--vty_port', '0'],
    ],
  });
  return {
    package: 'frr',
    executable: '/usr/lib/frr/bgpd',
    files: {
      'zebra.conf': '',
      'staticd.conf': `ip route ${outside.cidr4} blackhole\nipv6 route ${outside.cidr6} blackhole\n`,
      'bgpd.conf': `router bgp ${routerAs}
 bgp router-id ${routerAddresses.address4}
 no bgp ebgp-requires-policy
 no bgp network import-check
 no bgp default ipv4-unicast
 neighbor hosts4 peer-group
 neighbor hosts4 remote-as external
 neighbor hosts6 peer-group
 neighbor hosts6 remote-as external
 bgp listen limit 1000
 bgp listen range ${subnets.subnet4} peer-group hosts4
 bgp listen range ${subnets.subnet6} peer-group hosts6
 address-family ipv4 unicast
  network ${outside.cidr4}
  neighbor hosts4 activate
 exit-address-family
 address-family ipv6 unicast
  network ${outside.cidr6}
  neighbor hosts6 activate
 exit-address-family
`,
      'vtysh.conf': '',
    },
    // It gives up being root.
    prepare: [
      ['chown', '-R', 'frr:frr', directory],
      // It leaves files there.
      ['mount', '-n', '-t', 'tmpfs', 'tmpfs', '/var/tmp'],
    ],
    programs: [daemon('zebra'), daemon('staticd'), daemon('bgpd')],
    show: ['vtysh', '--vty_socket', directory, '-c', 'show bgp summary'],
  };
}

function gobgp(directory: string): RouterPlan {
  const group = (family: 4 | 6, subnet: string) => `
[[peer-groups]]
  [peer-groups.config]
    peer-group-name = "hosts${family}"
    peer-as = ${hostsAs}
  [[peer-groups.afi-safis]]
    [peer-groups.afi-safis.config]
      afi-safi-name = "ipv${family}-unicast"
[[dynamic-neighbors]]
  [dynamic-neighbors.config]
    prefix = "${subnet}"
    peer-group = "hosts${family}"
`;
  const add = (cidr: string, family: string, nextHop: string) => [
    ...['gobgp', 'global', 'rib', 'add', cidr, '-a', family, 'nexthop', nextHop],
  ];
  return {
    package: 'gobgpd',
    executable: '/usr/bin/gobgpd',
    files: {
      'gobgp.toml': `[global.config]
  as = ${routerAs}
  router-id = "${routerAddresses.address4}"
${group(4, subnets.subnet4)}${group(6, subnets.subnet6)}`,
      // It has no static routes in its file: they are told to it once it listens.
      announce: `until ${add(outside.cidr4, 'ipv4', routerAddresses.address4).join(' ')}; do sleep 0.05; done
${add(outside.cidr6, 'ipv6', routerAddresses.address6).join(' ')}
`,
    },
    prepare: [],
    programs: [
      {
        name: 'gobgpd',
        listens: true,
        command: ['gobgpd', '-f', `${directory}/gobgp.toml`, '--api-hosts', '127.0.0.1:50051', '-p'],
      },
      { name: 'announce', command: ['sh', `${directory}/announce`] },
    ],
    show: ['gobgp', 'neighbor'],
  };
}
