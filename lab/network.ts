/**
 * The addresses of a lab, and the switch ("top of rack") that joins its hosts.
 *
 * In: numbers of hosts. Out: their addresses, and the commands for `ip -batch` that cable them. Never: an address twice.
 */

/** Enough for a mesh of a hundred; .21 is the first. */
export const mostNodes = 200;
/** From so many on, the entries of neighbours that the kernel would learn come near to what it keeps for all namespaces together. */
const mostLearning = 20;

const switchLink = 'lan';
export const etcdAddresses = { address4: '192.168.78.2', address6: 'fd00:78::2' };
export const routerAddresses = { address4: '192.168.78.1', address6: 'fd00:78::1' };
export const subnets = { subnet4: '192.168.78.0/24', subnet6: 'fd00:78::/64' };
/** What the router announces: the world outside (RFC 5737 and 3849), with an address to talk to. */
export const outside = {
  cidr4: '203.0.113.0/24',
  address4: '203.0.113.1',
  cidr6: '2001:db8:ffff::/48',
  address6: '2001:db8:ffff::1',
};

export interface Addresses {
  readonly address4: string;
  readonly address6: string;
}

/** @param number from 1 */
export function nodeAddresses(number: number): Addresses {
  const last = 20 + number;
  return { address4: `192.168.78.${last}`, address6: `fd00:78::${last.toString(16)}` };
}

/** Given, not random: a host that was rebuilt is the same one for its neighbours. */
function macOf(address4: string): string {
  const bytes = address4.split('.').map((byte) => Number(byte).toString(16).padStart(2, '0'));
  return `02:00:${bytes.join(':')}`;
}

/** The address that the kernel makes of the MAC (RFC 4291, appendix A): `fe80::c0ff:fea8:4e15`. */
function linkLocalOf(address4: string): string {
  const [a, b, c, d] = address4.split('.').map((byte) => Number(byte).toString(16).padStart(2, '0'));
  return `fe80::${a}ff:fe${b}:${c}${d}`;
}

/** Run in the network of the switch. */
export function switchCommands(): string {
  return lines([
    'link set lo up',
    `link add ${switchLink} type bridge mcast_snooping 0`,
    `link set ${switchLink} addrgenmode none`,
    `link set ${switchLink} up`,
  ]);
}

/** Run in the network of the switch; the far end is called eth0. @param pid of the host's first process */
export function cableCommands(name: string, { address4 }: Addresses, pid: number): string {
  return lines([
    `link add ${name} type veth peer name eth0 address ${macOf(address4)} netns ${pid}`,
    `link set ${name} addrgenmode none`,
    `link set ${name} master ${switchLink} up`,
  ]);
}

/** Run on the host. @param neighbours all others, which are made known for good where there are many */
export function hostCommands(
  own: Addresses,
  extra: readonly string[],
  neighbours: readonly Addresses[],
): string {
  const fixed = neighbours.length >= mostLearning ? neighbours : [];
  return lines([
    'link set lo up',
    'link set eth0 up',
    `address add ${own.address4}/24 dev eth0`,
    `address add ${own.address6}/64 dev eth0 nodad`,
    ...extra.map((address) => `address add ${address} dev lo`),
    // Entries for good do not count towards gc_thresh3, which only the machine's own namespace could raise.
    ...fixed.flatMap(({ address4, address6 }) =>
      [address4, address6, linkLocalOf(address4)].map(
        (address) => `neighbour replace ${address} lladdr ${macOf(address4)} nud permanent dev eth0`,
      ),
    ),
  ]);
}

function lines(commands: readonly string[]): string {
  return commands.map((command) => `${command}\n`).join('');
}
