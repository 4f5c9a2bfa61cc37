/**
 * Who decides about a key: this node (DESIGN.md, "Store: local first") or the cluster.
 *
 * In: the node's name, the blocks that it has claimed for itself. Out: for any key, whether this node alone writes it, and the block
 * that makes it so. Never: a record of a block that this node has given back or lost; a claim itself, which only the cluster
 * can grant.
 */
import {
  type Address,
  addressBits,
  type Cidr,
  cidrBase,
  familyOf,
  networkOf,
  parseAddress,
  prefixLength,
} from '../model/ip.ts';
import { keyPrefix, parseKey } from '../model/keys.ts';
import type { Json, Revision } from './store.ts';

/** Blocks with the revision of their claim; finds the block of an address in constant time. */
export class Claims {
  readonly #revisions = new Map<Cidr, Revision>();
  /** How many blocks there are of each prefix length (IPv6 lengths follow the IPv4 ones). */
  readonly #lengths = new Map<number, number>();

  set(block: Cidr, revision: Revision): void {
    if (!this.#revisions.has(block)) this.#count(block, 1);
    this.#revisions.set(block, revision);
  }

  delete(block: Cidr): void {
    if (this.#revisions.delete(block)) this.#count(block, -1);
  }

  clear(): void {
    this.#revisions.clear();
    this.#lengths.clear();
  }

  get(block: Cidr): Revision | undefined {
    return this.#revisions.get(block);
  }

  all(): Cidr[] {
    return [...this.#revisions.keys()];
  }

  /** The block that holds the address, or null. */
  blockOf(address: Address): Cidr | null {
    const offset = lengthOffset(address);
    for (const length of this.#lengths.keys()) {
      if (length < offset || length - offset > addressBits(familyOf(address))) continue;
      const block = networkOf(address, length - offset);
      if (this.#revisions.has(block)) return block;
    }
    return null;
  }

  #count(block: Cidr, by: number): void {
    const length = prefixLength(block) + lengthOffset(cidrBase(block));
    const count = (this.#lengths.get(length) ?? 0) + by;
    if (count > 0) this.#lengths.set(length, count);
    else this.#lengths.delete(length);
  }
}

export class Authority {
  readonly node: string;
  readonly #ownPrefix: string;

  constructor(node: string) {
    this.node = node;
    this.#ownPrefix = `${keyPrefix.endpoint}${node}/`;
  }

  /** Endpoints of this node: its own whatever blocks it has. */
  isOwnByName(key: string): boolean {
    return key.startsWith(this.#ownPrefix);
  }

  owns(key: string, claims: Claims): boolean {
    return this.isOwnByName(key) || this.blockOf(key, claims) !== null;
  }

  /** The claimed block in which the key's address lies, for keys of addresses and of their owners' index. */
  blockOf(key: string, claims: Claims): Cidr | null {
    const address = addressOfKey(key);
    return address === null ? null : claims.blockOf(address);
  }

  /** What a claim's value means: `shared` ones are this node's, but the cluster decides about their addresses. */
  kindOfClaim(value: Json): 'exclusive' | 'shared' | 'foreign' {
    if (typeof value !== 'object' || value === null || !('node' in value)) return 'foreign';
    if (value.node !== this.node) return 'foreign';
    return 'shared' in value && value.shared === true ? 'shared' : 'exclusive';
  }
}

/** The address that a key of `addresses/` or `owners/` is about. */
export function addressOfKey(key: string): Address | null {
  if (!key.startsWith(keyPrefix.address) && !key.startsWith(keyPrefix.owner)) return null;
  const parsed = parseKey(key);
  return parsed?.kind === 'address' || parsed?.kind === 'owner' ? parsed.address : null;
}

/** The block that a key of `blocks/` is the claim of. */
export function blockOfClaimKey(key: string): Cidr | null {
  if (!key.startsWith(keyPrefix.block)) return null;
  const parsed = parseKey(key);
  return parsed?.kind === 'block' ? parsed.cidr : null;
}

/** The addresses that an endpoint's value names; none for a value that is no endpoint. */
export function endpointAddresses(value: Json): Address[] {
  if (typeof value !== 'object' || value === null || !('addresses' in value)) return [];
  const { addresses } = value;
  try {
    return Array.isArray(addresses) ? addresses.map((address) => parseAddress(address)) : [];
  } catch {
    return [];
  }
}

const lengthOffset = (address: Address): number => (familyOf(address) === 4 ? 0 : 64);
