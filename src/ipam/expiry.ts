/**
 * What ends by itself: cooldowns, reservations (of addresses and of ports), retentions for a limited time, records of ports that nobody has.
 *
 * In: the address book, which times are over. Out: one bounded transaction at a time. Never: an end by a clock that jumped (Deadlines);
 * all nodes at once for one record: the node that had the address is first, the others follow one after the other.
 */
import { createHash } from 'node:crypto';
import type { AddressRecord } from '../model/records.ts';
import type { AddressBook } from './address-book.ts';
import { Draft, type Step } from './draft.ts';
import { dropPortReservation, planForgetPorts } from './ports.ts';
import { cool, defaultRetainSeconds } from './release.ts';
import { dropReservation } from './reserve.ts';
import { defaultHoldSeconds } from './transfer.ts';

export interface Judge {
  /** @param deadline as in the record @param intervalMilliseconds what it was made of */
  isOver(key: string, deadline: string | null, intervalMilliseconds: number): boolean;
}

/** The next transaction of a kind of end, or null when nothing is over. @param limit of addresses in one */
type Plan = (book: AddressBook, node: string, judge: Judge, now: Date, limit: number) => Step | null;

/**
 * Each kind for itself, and what this node decides alone before what its cluster has to decide: while that is out of reach, the node's own
 * addresses are free again all the same.
 */
export const expiries: readonly Plan[] = [
  (book, node, judge, _, limit) => cooledDown(book, node, judge, limit, true),
  (book, node, judge, _, limit) => cooledDown(book, node, judge, limit, false),
  endedReservation,
  endedRetention,
  endedPorts,
  (book, node, _judge, _now, limit) => planForgetPorts(book.ports, node, limit),
];

/** Those of this node, and those that were on no node. @param isOwn in blocks of this node, or all others */
function cooledDown(
  book: AddressBook,
  node: string,
  judge: Judge,
  limit: number,
  isOwn: boolean,
): Step | null {
  const draft = new Draft();
  for (const holder of [node, '']) {
    for (const address of book.cooling(holder)) {
      if (draft.size >= limit) break;
      const known = book.address(address)!;
      const { cooldownUntil, pool } = known.value;
      const view = book.viewOf(address);
      const block = view === undefined ? null : book.blockAt(view.pool, address);
      if ((block?.value.node === node) !== isOwn) continue;
      const end =
        cooldownUntil === null ? null : postponed(book, node, known.value.node, address, cooldownUntil);
      const interval = (book.pool(pool)?.cooldownSeconds ?? 0) * 1000;
      if (judge.isOver(`${address} ${end}`, end, interval)) draft.deleteAddress(address, known);
    }
  }
  return draft.size > 0 ? draft.step() : null;
}

function endedReservation(book: AddressBook, node: string, judge: Judge): Step | null {
  for (const [id, known] of book.reservations()) {
    const { expiresAt, ttlSeconds } = known.value;
    const end = postponed(book, node, known.value.node, id, expiresAt);
    if (judge.isOver(`${id} ${end}`, end, ttlSeconds * 1000)) return dropReservation(book, id, known);
  }
  return null;
}

function endedRetention(
  book: AddressBook,
  node: string,
  judge: Judge,
  now: Date,
  limit: number,
): Step | null {
  const draft = new Draft();
  for (const address of book.expiring()) {
    const known = book.address(address)!;
    const { state, expiresAt } = known.value;
    if (state !== 'retained' || expiresAt === null) continue;
    const end = postponed(book, node, known.value.node, address, expiresAt);
    if (!judge.isOver(`${address} ${end}`, end, intervalOf(known.value))) continue;
    cool(book, draft, address, known, now, true, node);
    if (draft.size >= limit) break;
  }
  return draft.size > 0 ? draft.step() : null;
}

function endedPorts(book: AddressBook, node: string, judge: Judge): Step | null {
  for (const { node: holder, id, known } of book.ports.reservations()) {
    const { expiresAt, ttlSeconds } = known.value;
    if (expiresAt === null || ttlSeconds === null) continue;
    const end = postponed(book, node, holder, `${holder}/${id}`, expiresAt);
    if (judge.isOver(`${holder}/${id} ${end}`, end, ttlSeconds * 1000))
      return dropPortReservation(book.ports, holder, id, known);
  }
  return null;
}

const intervalOf = ({ onRelease, ttlSeconds }: AddressRecord): number =>
  1000 * (onRelease === 'ttl' ? (ttlSeconds ?? defaultRetainSeconds) : defaultHoldSeconds);

/** Nodes other than the one it concerns wait up to a minute more, each for another time, so that they do not all try at once. */
function postponed(
  book: AddressBook,
  self: string,
  concerned: string | null,
  what: string,
  end: string,
): string {
  const others = book.nodes().size - 1;
  if (concerned === self || others <= 0) return end;
  const hash = createHash('sha256').update(`${self} ${what}`).digest().readUInt16BE(0);
  return new Date(Date.parse(end) + (hash % Math.min(60, others + 1)) * 1000).toISOString();
}
