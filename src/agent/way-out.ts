/**
 * By which of its interfaces this host reaches an address (pure).
 *
 * In: the main routing table and the links. Out: the name of an interface. Never: a guess where the table has no single way.
 */
import type { LinkInfo, RouteInfo } from '../linux/ports.ts';
import { type Address, cidrContains, familyOf, prefixLength } from '../model/ip.ts';

/** null: by none, or by several at once. */
export function wayOut(
  address: Address,
  routes: readonly RouteInfo[],
  links: readonly LinkInfo[],
): string | null {
  const [best] = routes
    .filter(
      ({ destination }) => familyOf(destination) === familyOf(address) && cidrContains(destination, address),
    )
    .toSorted((a, b) => prefixLength(b.destination) - prefixLength(a.destination));
  if (best?.type !== 'unicast') return null;
  return links.find(({ index }) => index === best.linkIndex)?.name ?? null;
}
