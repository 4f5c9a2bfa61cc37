/**
 * The real Linux, assembled.
 *
 * In: which iptables to drive. Out: the port. Never: anything but wiring.
 */
import { existsSync } from 'node:fs';
import { families } from '../../model/ip.ts';
import type { Iptables, Linux, Netns } from '../ports.ts';
import { conntrackIn, createConntrack } from './conntrack.ts';
import { ContainerRules } from './container-rules.ts';
import { ForeignRules } from './foreign-rules.ts';
import { openIpSets } from './ipsets.ts';
import { createIptables, detectBackend } from './iptables.ts';
import { LinkReaper } from './link-reaper.ts';
import { watchLinks } from './link-watch.ts';
import { OWN_NETNS } from './native.ts';
import { openNetns } from './netns.ts';
import { networkAdmins } from './network-admins.ts';
import { openNftables } from './nftables.ts';
import { openPackets } from './packets.ts';
import { openRouting } from './routing.ts';
import { RoutingChains } from './routing-chains.ts';
import { readSysctl, writeSysctl } from './sysctl.ts';
import { tracePacket } from './trace.ts';

export interface LinuxOptions {
  /** `auto`: the one that the plain `iptables` is. */
  readonly iptablesBackend: 'auto' | Iptables['backend'];
}

/** The namespace that the process is in now is the agent's. */
export async function createLinux(options: LinuxOptions): Promise<Linux & { close(): void }> {
  const backend = options.iptablesBackend === 'auto' ? await detectBackend() : options.iptablesBackend;
  const reaper = new LinkReaper();
  // Who makes or looks at an endpoint has its namespace open.
  let namespaces = 0;
  const chains = new RoutingChains(() => namespaces > 1 || reaper.isBusy);
  const ipsets = openIpSets();
  const inContainers = new ContainerRules();
  const nftables = openNftables(OWN_NETNS, (port) => inContainers.ours(port));
  const programs = new ForeignRules();
  const hasIpv6 = existsSync('/proc/net/if_inet6');
  return {
    families: families.filter((family) => family === 4 || hasIpv6),
    openNetns(path) {
      const netns = openNetns(path, () => namespaces--);
      namespaces++;
      return netns;
    },
    openRouting,
    batches: (batches) => chains.run(batches),
    ahead: (requests) => chains.ahead(requests),
    openPackets,
    readSysctl,
    writeSysctl,
    watchLinks: (onEvent, quietFrom) => watchLinks(onEvent, quietFrom),
    deleteLink: (link, netns) => (netns === undefined ? reaper.remove(link) : deleteLinkIn(netns, link)),
    ipsets,
    tracePacket: (packet, netns, where = 'here') =>
      tracePacket(packet, { from: netns?.fd ?? OWN_NETNS, inside: where === 'inside' }),
    watchForeignRules: (ownTable, onChange) => programs.watch(ownTable, onChange),
    watchRulesIn: (onChange) => inContainers.watch(onChange),
    iptables: createIptables(backend, (pid) => programs.ours(pid)),
    nftables,
    openNftables: (netns) => openNftables(netns.fd),
    conntrack: createConntrack(),
    conntrackIn: (netns) => conntrackIn(netns.fd),
    networkAdmins,
    close() {
      reaper.close();
      chains.close();
      ipsets.close();
      nftables.close();
    },
  };
}

async function deleteLinkIn(netns: Netns, link: Parameters<Linux['deleteLink']>[0]): Promise<void> {
  const reaper = new LinkReaper(netns.fd);
  try {
    await reaper.remove(link);
  } finally {
    reaper.close();
  }
}
