/**
 * The fake's state as the commands that an operator would type to make it.
 *
 * In: namespaces and sets. Out: lines, in the order in which they would work. Never: an index where a name is known.
 */
import type { RouteSpec } from '../ports.ts';
import type { FakeIpSets } from './ipsets.ts';
import { type FakeNetns, prefixText } from './netns.ts';

export function printNetns(netns: FakeNetns): string[] {
  const name = netns.path?.split('/').at(-1);
  const ip = name === undefined ? 'ip' : `ip -n ${name}`;
  const device = (index: number) => netns.links.get(index)?.spec.name ?? `if${index}`;
  const lines = name === undefined ? [] : [`ip netns add ${name}`];
  for (const { spec, type, mode, mtuBytes, up, peer, parent, bucket, redirectedTo } of netns.links.values()) {
    const attributes = `index ${spec.index} address ${spec.mac} mtu ${mtuBytes}`;
    if (type === 'macvlan')
      lines.push(
        `${ip} link add ${spec.name} ${attributes} link ${parent?.spec.name} type macvlan mode ${mode}`,
      );
    else if (type === 'ifb') lines.push(`${ip} link add ${spec.name} ${attributes} type ifb`);
    else if (netns.path === null && type === 'veth')
      lines.push(`${ip} link add ${spec.name} ${attributes} type veth peer ${peer?.spec.name}`);
    else lines.push(`${ip} link set ${spec.name} ${attributes}`);
    if (up) lines.push(`${ip} link set ${spec.name} up`);
    if (bucket !== null)
      lines.push(`tc qdisc replace dev ${spec.name} root tbf rate ${bucket.rateBitsPerSecond}bit`);
    if (redirectedTo !== null)
      lines.push(`tc filter add dev ${spec.name} ingress mirred redirect dev ${device(redirectedTo)}`);
  }
  for (const { linkIndex, address, prefixLength } of netns.addresses()) {
    lines.push(`${ip} addr add ${address}/${prefixLength} dev ${device(linkIndex)}`);
  }
  for (const { linkIndex, address, mac } of netns.neighbours()) {
    lines.push(`${ip} neigh replace ${address} lladdr ${mac} dev ${device(linkIndex)} nud permanent`);
  }
  for (const route of netns.routeSpecs) lines.push(`${ip} route add ${printRoute(route, device)}`);
  for (const [path, value] of netns.sysctls) {
    lines.push(
      `${name === undefined ? '' : `ip netns exec ${name} `}sysctl -w ${path.replaceAll('/', '.')}=${value}`,
    );
  }
  return lines;
}

export function printSets(sets: FakeIpSets['sets']): string[] {
  return [...sets].flatMap(([name, { type, family, members }]) => [
    `ipset create ${name} hash:${type} family ${family === 4 ? 'inet' : 'inet6'}`,
    ...[...members].map((member) => `ipset add ${name} ${member}`),
  ]);
}

function printRoute(route: RouteSpec, device: (index: number) => string): string {
  return [
    ...(route.type === 'unicast' ? [] : [route.type]),
    prefixText(route.destination),
    ...(route.gateway === undefined ? [] : ['via', route.gateway]),
    ...(route.linkIndex === undefined ? [] : ['dev', device(route.linkIndex)]),
    ...(route.onlink ? ['onlink'] : []),
    ...(route.source === undefined ? [] : ['src', route.source]),
    'proto',
    String(route.protocol),
    ...(route.scope === 'link' ? ['scope', 'link'] : []),
    ...(route.type === 'local' ? ['table', 'local'] : []),
  ].join(' ');
}

/** Of what iptables-save prints. */
export function printRules(family: 4 | 6, saved: string): string[] {
  const program = family === 4 ? 'iptables' : 'ip6tables';
  return saved.split('\n').flatMap((line) => {
    const chain = /^:(\S+) (\S+)/.exec(line);
    if (chain)
      return chain[2] === '-'
        ? [`${program} -N ${chain[1]}`]
        : chain[2] === 'ACCEPT'
          ? []
          : [`${program} -P ${chain[1]} ${chain[2]}`];
    return line.startsWith('-A') ? [`${program} ${line}`] : [];
  });
}
