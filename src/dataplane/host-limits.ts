/**
 * Settings of the kernel that stand in the way of routes between hosts, for the status: reported, never changed.
 *
 * In: sysctls, links, neighbours. Out: a sentence each. Never: a complaint about what does no harm here (a strict reverse path filter
 * where there is one way only), an error because the kernel does not show a setting.
 */
import { KernelError, type LinkInfo, type Linux, type Routing } from '../linux/ports.ts';
import { hostInterfacePrefix } from '../model/attachment.ts';
import { type Family, families, familyOf } from '../model/ip.ts';

/** Of the neighbour table: beyond this the next burst of new ones may fail. */
const fullShare = 0.8;

/** @throws KernelError */
export async function hostNotices(
  linux: Pick<Linux, 'readSysctl'>,
  host: Pick<Routing, 'links' | 'addresses' | 'neighbours'>,
): Promise<string[]> {
  const sysctl = (path: string): number | null => {
    try {
      return Number(linux.readSysctl(path));
    } catch (error) {
      // Limits of the neighbour table are shown in the first network namespace only.
      if (error instanceof KernelError && error.errno === 'ENOENT') return null;
      throw error;
    }
  };
  const links = (await host.links()).filter(({ up, name }) => up && !name.startsWith(hostInterfacePrefix));
  const holders = new Set((await host.addresses()).map(({ linkIndex }) => linkIndex));
  const uplinks = links.filter(({ name, index }) => name !== 'lo' && holders.has(index));
  const learned = (await host.neighbours()).filter(({ permanent }) => !permanent);
  return [
    ...reversePathNotices(uplinks, sysctl),
    ...families.flatMap((family) =>
      neighbourNotices(
        family,
        learned.filter(({ address }) => familyOf(address) === family).length,
        sysctl(`net/ipv${family}/neigh/default/gc_thresh3`),
      ),
    ),
  ];
}

/** The stricter of the setting for all and that of the interface holds; loose (2) wins over strict (1). */
function reversePathNotices(uplinks: readonly LinkInfo[], sysctl: (path: string) => number | null): string[] {
  if (uplinks.length < 2) return [];
  const setting = (name: string): number => sysctl(`net/ipv4/conf/${name}/rp_filter`) ?? 0;
  const strict = uplinks.filter(({ name }) => Math.max(setting('all'), setting(name)) === 1);
  return strict.map(
    ({ name }) =>
      `rp_filter is strict on ${name} and there are ${uplinks.length} ways out: what comes in by another way than it would go back is dropped (sysctl -w net.ipv4.conf.${name}.rp_filter=2)`,
  );
}

function neighbourNotices(family: Family, learned: number, limit: number | null): string[] {
  if (limit === null || learned < limit * fullShare) return [];
  return [
    `the neighbour table of IPv${family} has ${learned} learned entries of ${limit} at most, for all namespaces together: hosts become unreachable at random when it is full (sysctl -w net.ipv${family}.neigh.default.gc_thresh3=${4 * limit})`,
  ];
}
