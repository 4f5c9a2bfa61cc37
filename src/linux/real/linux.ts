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
  const ipsets = openIpSets();
  const inContainers = new ContainerRules();
  const nftables = openNftables(OWN_NETNS, (port) => inContainers.ours(port));
  const programs = new ForeignRules();
  const hasIpv6 = existsSync('/proc/net/if_inet6');
  return {
    families: families.filter((family) => family === 4 || hasIpv6),
    openNetns,
    openRouting,
    openPackets,
    readSysctl,
    writeSysctl,
    watchLinks: (onEvent) => watchLinks(onEvent),
    deleteLink: (index, netns) => (netns === undefined ? reaper.remove(index) : deleteLinkIn(netns, index)),
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
      ipsets.close();
      nftables.close();
    },
  };
}

async function deleteLinkIn(netns: Netns, index: number): Promise<void> {
  const reaper = new LinkReaper(netns.fd);
  try {
    await reaper.remove(index);
  } finally {
    reaper.close();
  }
}
