/**
 * The fake's /proc/sys: the files that exist in a namespace, with the kernel's defaults.
 *
 * In: a path, a namespace. Out: values; ENOENT for a file that a kernel would not have. Never: a file of an interface that is
 * not there.
 */
import type { FakeNetns } from './netns.ts';
import { Refusal } from './refusal.ts';

const DEFAULTS: ReadonlyMap<string, string> = new Map([
  ['net/ipv4/ip_forward', '0'],
  ['net/ipv4/ip_nonlocal_bind', '0'],
  ['net/ipv4/neigh/default/gc_thresh1', '128'],
  ['net/ipv4/neigh/default/gc_thresh2', '512'],
  ['net/ipv4/neigh/default/gc_thresh3', '1024'],
  ['net/ipv6/neigh/default/gc_thresh1', '128'],
  ['net/ipv6/neigh/default/gc_thresh2', '512'],
  ['net/ipv6/neigh/default/gc_thresh3', '1024'],
  ['net/netfilter/nf_conntrack_max', '262144'],
  ['net/netfilter/nf_conntrack_tcp_loose', '1'],
  ['net/bridge/bridge-nf-call-iptables', '1'],
  ['net/core/somaxconn', '4096'],
]);

const PER_INTERFACE: Readonly<Record<string, ReadonlyMap<string, string>>> = {
  ipv4: new Map(
    Object.entries({
      forwarding: '0',
      rp_filter: '0',
      proxy_arp: '0',
      route_localnet: '0',
      accept_local: '0',
      arp_ignore: '0',
      arp_announce: '0',
      arp_notify: '0',
      accept_redirects: '1',
      send_redirects: '1',
      accept_source_route: '0',
      log_martians: '0',
    }),
  ),
  ipv6: new Map(
    Object.entries({
      forwarding: '0',
      proxy_ndp: '0',
      disable_ipv6: '0',
      accept_ra: '1',
      accept_dad: '1',
      accept_redirects: '1',
      autoconf: '1',
      addr_gen_mode: '0',
      keep_addr_on_down: '0',
    }),
  ),
};

export function readSysctl(netns: FakeNetns, path: string): string {
  const initial = defaultOf(netns, path);
  return netns.sysctls.get(path) ?? initial;
}

export function writeSysctl(netns: FakeNetns, path: string, value: string): void {
  defaultOf(netns, path);
  netns.sysctls.set(path, value.trim());
}

function defaultOf(netns: FakeNetns, path: string): string {
  const known = DEFAULTS.get(path);
  if (known !== undefined) return known;
  const [, family = '', name = '', key = ''] = /^net\/(ipv[46])\/conf\/([^/]+)\/([^/]+)$/.exec(path) ?? [];
  const value = PER_INTERFACE[family]?.get(key);
  const exists = name === 'all' || name === 'default' || name === 'lo' || netns.linkNamed(name) !== null;
  if (value === undefined || !exists) throw new Refusal('ENOENT');
  return value;
}
