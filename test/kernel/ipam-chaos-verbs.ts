/**
 * What an allocator of the chaos test does: each verb picks something of its lane and tells the ledger, after what it got and before what
 * it gives up.
 *
 * In: a node, its ledger, a lane (`n07.2`, the beginning of the names of all that is its own). Out: verbs to call in any order. Never: a
 * verb that touches another lane's; an end in the ledger after the call that makes it.
 */
import type { IpamNode } from '../../lab/ipam-node.ts';
import { takeable } from '../../src/ipam/kept.ts';
import { asNetctlError, type ErrorCode, errorKinds } from '../../src/lib/errors.ts';
import { type Address, parseAddress } from '../../src/model/ip.ts';
import type { AddressRecord, Owner, Pool } from '../../src/model/records.ts';
import type { Ledger } from './ipam-chaos-ledger.ts';

export const chance = (share: number): boolean => Math.random() < share;
export const pick = <T>(list: readonly T[]): T => list[Math.floor(Math.random() * list.length)]!;

/** What a caller may be told besides STORE_UNAVAILABLE: somebody else was first, or has it all. */
export function isExpected(code: ErrorCode): boolean {
  const never: readonly ErrorCode[] = ['NOT_OWNER', 'RECORD_BROKEN', 'ADDRESS_QUARANTINED'];
  return /^(conflict|exhausted)$/.test(errorKinds[code]) && !never.includes(code);
}

/** No run takes so long: nothing that is held ends by itself. */
const longSeconds = 86_400;
const slots = 12;
const owners = 8;

export function verbsOf(
  node: IpamNode,
  ledger: Ledger,
  told: (address: Address) => void,
  lane: string,
): (() => Promise<void>)[] {
  const number = (below: number): number => Math.floor(Math.random() * below);
  const kind = (): Pool['kind'] => (chance(0.5) ? 'routed' : 'macvlan');
  const tenant = (): string => (chance(0.2) ? 'limited' : 't');
  const owner = (): Owner => ({ tenant: tenant(), app: 'a', instance: `${lane}.${number(slots)}` });

  /** Something that the lane has, with its record. */
  function one(
    filter: (record: AddressRecord) => boolean,
  ): { address: Address; record: AddressRecord } | null {
    const mine = [...ledger.held()].flatMap(([address, hold]) => {
      const record = node.record(address);
      const isOfLane = hold.by.startsWith(`${lane}.`) || hold.owner.includes(`/${lane}.`);
      return isOfLane && record !== undefined && filter(record) ? [{ address, record }] : [];
    });
    return mine.length === 0 ? null : pick(mine);
  }

  /** Whatever it does, the ledger says afterwards what is so. */
  async function change(addresses: readonly Address[], act: () => Promise<unknown>): Promise<void> {
    try {
      await act();
    } catch (error) {
      if (asNetctlError(error).code !== 'STORE_UNAVAILABLE') for (const address of addresses) told(address);
      throw error;
    }
    for (const address of addresses) told(address);
  }

  async function attachAs(endpoint: string, request: Parameters<IpamNode['attach']>[1]): Promise<void> {
    const { addresses } = await node.attach(endpoint, request);
    for (const address of addresses) told(address);
  }

  async function detachFrom(endpoint: string): Promise<void> {
    const addresses = node.endpoints.get(endpoint)!.value.addresses;
    for (const address of addresses) ledger.end(address, node.record(address)!.onRelease === 'delete');
    await change(addresses, () => node.release(endpoint, addresses));
  }

  const isReserved = ({ state }: AddressRecord): boolean => state === 'reserved';
  const isContainers = ({ container, endpoint }: AddressRecord): boolean =>
    container !== null && endpoint === null;

  return [
    async function attach() {
      const taker = owner();
      const endpoint = taker.instance;
      if (node.endpoints.get(endpoint) === undefined)
        await attachAs(endpoint, { owner: taker, kind: kind() });
      else await detachFrom(endpoint);
    },
    async function explicit() {
      const taker = owner();
      const endpoint = taker.instance;
      if (node.endpoints.get(endpoint) !== undefined) return detachFrom(endpoint);
      const address = parseAddress(`10.66.${number(2)}.${1 + number(254)}`);
      await attachAs(endpoint, { owner: taker, kind: 'macvlan', addresses: [address] });
    },
    async function fixed() {
      const which = number(owners);
      const endpoint = `${lane}.fixed${which}`;
      if (node.endpoints.get(endpoint) !== undefined) return detachFrom(endpoint);
      const owner = { tenant: 't', app: 'f', instance: `fixed${which}` };
      // Its first address it gets in one place; after that it goes where it likes.
      if (node.book.addressesOf(owner).size === 0 && lane !== 'n00.0') return;
      await attachAs(endpoint, {
        owner,
        kind: which % 2 === 0 ? 'routed' : 'macvlan',
        onRelease: 'immutable',
      });
    },
    async function reserve() {
      const { tenant, instance } = owner();
      const id = `${lane.replace('.', '-')}-${Date.now()}-${number(1e6)}`;
      const instances = Array.from({ length: 1 + number(3) }, (_, index) => `${instance}.${index}`);
      const { addresses } = await node.reserve(id, {
        tenant,
        instances,
        kind: kind(),
        ttlSeconds: longSeconds,
      });
      for (const { address } of addresses) told(address);
    },
    async function reserveBriefly() {
      await node.reserve(`brief-${Date.now()}-${number(1e6)}`, {
        instances: [`brief${number(100)}`],
        kind: kind(),
        ttlSeconds: 1,
      });
    },
    async function extend() {
      const found = one(isReserved);
      if (found !== null)
        await node.ipam.extend({ id: found.record.reservation!, tenant: null, ttlSeconds: longSeconds });
    },
    async function commitTo() {
      const found = one(isReserved);
      if (found !== null)
        await node.ipam.commitTo({ id: found.record.reservation!, tenant: null, node: node.name });
    },
    async function cancel() {
      const id = one(isReserved)?.record.reservation;
      const reservation = node.book.reservation(id ?? '')?.value;
      if (!id || reservation === undefined) return;
      const addresses = reservation.addresses.filter((address) => {
        const record = node.record(address);
        return record?.state === 'reserved' && record.reservation === id;
      });
      for (const address of addresses) ledger.end(address, false);
      await change(addresses, () => node.ipam.cancel({ id, tenant: null }));
    },
    async function bind() {
      const found = one(takeable);
      if (found === null) return;
      const { address, record } = found;
      const fence = { address, generation: record.generation, tenant: null };
      const container = `${lane}.c${number(1e6)}`;
      await change([address], () => node.ipam.bind({ ...fence, node: node.name, container, endpoint: null }));
      await node.ipam.activate({ ...fence, generation: fence.generation + 1, mac: null });
    },
    async function unbind() {
      const found = one(isContainers);
      if (found === null) return;
      const { address, record } = found;
      ledger.end(address, true);
      await change([address], () =>
        node.ipam.unbind({ address, container: record.container!, generation: null, tenant: null }),
      );
    },
    async function transfer() {
      const found = one((record) => isContainers(record) || takeable(record));
      if (found === null) return;
      const { address, record } = found;
      const toOwner = { ...owner(), tenant: record.owner.tenant };
      await change([address], () =>
        node.ipam.transfer({
          address,
          generation: record.generation,
          tenant: null,
          toOwner,
          toNode: null,
          holdSeconds: longSeconds,
        }),
      );
    },
    async function release() {
      const found = one(({ state }) => state === 'retained');
      if (found === null) return;
      const { address, record } = found;
      ledger.end(address, true);
      await change([address], () =>
        node.ipam.release({ address, generation: record.generation, tenant: null, force: false }),
      );
    },
    async function stale() {
      const found = one(({ generation }) => generation > 1);
      if (found === null) return;
      const { address, record } = found;
      const old = { address, generation: record.generation - 1, tenant: null };
      await node.ipam.release({ ...old, force: false });
      throw new Error(`generation ${old.generation} of ${address} was released: ${JSON.stringify(record)}`);
    },
    async function claim() {
      await node.ipam.claim({ pool: 'r4', node: node.name, tenant: 't', shared: chance(0.5) });
    },
    async function giveBack() {
      const empty = [...node.book.blocksOf(node.name, 'r4')].filter((block) => node.book.isEmpty(block));
      if (empty.length === 0) return;
      await node.ipam.giveBack({ block: pick(empty), node: node.name }).catch((error: unknown) => {
        // The periodic work was quicker.
        if (asNetctlError(error).code !== 'NOT_FOUND') throw error;
      });
    },
  ];
}
