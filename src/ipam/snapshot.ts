/**
 * All records that the IPAM is about, as of one revision: what a check looks at.
 *
 * In: entries of the store. Out: typed records with their revisions. Never: a broken record that is silently left out (it is listed).
 */
import type { z } from 'zod';
import type { Address, Cidr } from '../model/ip.ts';
import { type Key, parseKey } from '../model/keys.ts';
import {
  type AddressRecord,
  addressSchema,
  type Block,
  blockSchema,
  type Endpoint,
  endpointSchema,
  type Pool,
  poolSchema,
  type Reservation,
  reservationSchema,
} from '../model/records.ts';
import type { Json, Revision } from '../store/store.ts';
import type { Known } from './address-book.ts';

export interface IndexEntry {
  readonly key: string;
  readonly address: Address;
  /** `tenant/app/instance` */
  readonly owner: string;
  readonly modified: Revision;
}

export interface KnownEndpoint extends Known<Endpoint> {
  readonly key: string;
  readonly node: string;
  readonly id: string;
}

export interface IpamSnapshot {
  readonly revision: Revision;
  readonly pools: ReadonlyMap<string, Pool>;
  readonly blocks: ReadonlyMap<Cidr, Known<Block>>;
  readonly addresses: ReadonlyMap<Address, Known<AddressRecord>>;
  readonly reservations: ReadonlyMap<string, Known<Reservation>>;
  readonly index: readonly IndexEntry[];
  /** By `node/id`. */
  readonly endpoints: ReadonlyMap<string, KnownEndpoint>;
  /** Keys of records that could not be read. */
  readonly broken: readonly string[];
}

/** @param entries of the whole store (other kinds are passed over), as of `revision` */
export function readSnapshot(
  entries: readonly { readonly key: string; readonly value: Json; readonly modified: Revision }[],
  revision: Revision,
): IpamSnapshot {
  const pools = new Map<string, Pool>();
  const blocks = new Map<Cidr, Known<Block>>();
  const addresses = new Map<Address, Known<AddressRecord>>();
  const reservations = new Map<string, Known<Reservation>>();
  const endpoints = new Map<string, KnownEndpoint>();
  const index: IndexEntry[] = [];
  const broken: string[] = [];
  for (const { key: path, value, modified } of entries) {
    const read = <T>(schema: z.ZodType<T>, found: (known: Known<T>) => void): void => {
      const parsed = schema.safeParse(value);
      if (parsed.success) found({ value: parsed.data, modified });
      else broken.push(path);
    };
    const key: Key | null = parseKey(path);
    switch (key?.kind) {
      case 'pool':
        read(poolSchema, (known) => pools.set(key.pool, known.value));
        break;
      case 'block':
        read(blockSchema, (known) => blocks.set(key.cidr, known));
        break;
      case 'address':
        read(addressSchema, (known) => addresses.set(key.address, known));
        break;
      case 'reservation':
        read(reservationSchema, (known) => reservations.set(key.reservation, known));
        break;
      case 'endpoint': {
        const { node, endpoint: id } = key;
        read(endpointSchema, (known) => endpoints.set(`${node}/${id}`, { ...known, key: path, node, id }));
        break;
      }
      case 'owner':
        index.push({
          key: path,
          address: key.address,
          owner: `${key.tenant}/${key.app}/${key.instance}`,
          modified,
        });
        break;
    }
  }
  return { revision, pools, blocks, addresses, reservations, index, endpoints, broken };
}
