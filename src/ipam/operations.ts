/**
 * The verbs of address management as data: each with its request, its plan and its result, so that several can share a transaction.
 *
 * In: verb and request. Out: a plan on the book. Never: a verb that is planned in two places.
 */
import type { Address } from '../model/ip.ts';
import type { Mac } from '../model/mac.ts';
import type { AddressRecord, Owner, Reservation } from '../model/records.ts';
import type { AddressBook } from './address-book.ts';
import { type BindRequest, planActivate, planBind } from './bind.ts';
import type { Planned } from './commit.ts';
import type { Fence } from './fenced.ts';
import type { Places } from './places.ts';
import {
  type Outcome,
  planReleaseAddress,
  planReleaseOwner,
  planUnbind,
  type ReleaseRequest,
  type UnbindRequest,
} from './release.ts';
import {
  planCancel,
  planCommit,
  planExtend,
  planReserve,
  type ReservationCall,
  type Reserved,
  type ReserveRequest,
} from './reserve.ts';
import { planTransfer, type TransferRequest } from './transfer.ts';

/** `now` and `self` are this process's to say. */
export type Asked<T> = Omit<T, 'now' | 'self'>;

interface Verbs {
  reserve: [Asked<ReserveRequest>, Reserved];
  extend: [ReservationCall & { ttlSeconds: number }, Reservation];
  commit: [ReservationCall & { node: string; ttlSeconds?: number }, Reservation];
  /** What is free now. */
  cancel: [ReservationCall, readonly Address[]];
  bind: [Asked<BindRequest>, { generation: number; mac: Mac | null }];
  activate: [Fence & { mac: Mac | null }, { generation: number }];
  unbind: [Asked<UnbindRequest>, Outcome | 'unknown'];
  transfer: [Asked<TransferRequest>, { generation: number; was: AddressRecord }];
  /** The caller logs a `forced` one with the actor. */
  release: [Asked<ReleaseRequest>, { outcome: Outcome; forced: boolean; was: AddressRecord | null }];
  'release-owner': [
    { owner: Owner; force: boolean },
    { freed: readonly Address[]; later: readonly Address[]; kept: readonly Address[] },
  ];
}
export type Verb = keyof Verbs;
export type RequestOf<V extends Verb> = Verbs[V][0];
export type ResultOf<V extends Verb> = Verbs[V][1];
export type OperationOf<V extends Verb> = { readonly verb: V; readonly request: RequestOf<V> };
export type Operation = { [V in Verb]: OperationOf<V> }[Verb];

export interface PlanContext {
  readonly book: AddressBook;
  readonly places: Places;
  /** The node of this process. */
  readonly self: string;
}

type Planner<V extends Verb> = (
  context: PlanContext,
  request: RequestOf<V>,
  now: Date,
) => Planned<ResultOf<V>>;

const planners: { readonly [V in Verb]: Planner<V> } = {
  reserve: ({ book, places }, request, now) => planReserve(book, places, { ...request, now }),
  extend: ({ book }, request, now) => planExtend(book, { ...request, now }),
  commit: ({ book }, request, now) => planCommit(book, { ...request, now }),
  cancel: ({ book }, request) => planCancel(book, request),
  bind: ({ book, places }, request, now) => planBind(book, places, { ...request, now }),
  activate: ({ book }, request) => planActivate(book, request),
  unbind: ({ book }, request, now) => planUnbind(book, { ...request, now }),
  transfer: ({ book, self }, request, now) => planTransfer(book, { ...request, self, now }),
  release: ({ book }, request, now) => planReleaseAddress(book, { ...request, now }),
  'release-owner': ({ book, self }, request, now) => planReleaseOwner(book, { ...request, self, now }),
};

/** @throws whatever the verb's plan throws */
export function planOperation<V extends Verb>(
  context: PlanContext,
  { verb, request }: OperationOf<V>,
  now: Date,
): Planned<ResultOf<V>> {
  return planners[verb](context, request, now);
}

/** The tenant whose quota the operation may charge, or null. */
export function chargedTenant({ verb, request }: Operation): string | null {
  if (verb === 'reserve') return request.tenant;
  return verb === 'transfer' ? (request.toOwner?.tenant ?? null) : null;
}

export interface Touched {
  readonly changed: readonly string[];
  readonly looked: readonly string[];
}

/** Addresses and reservations that the operation changes, and that it looks at besides, as far as that is known before it is planned. */
export function touchedBy(book: AddressBook, { verb, request }: Operation): Touched {
  switch (verb) {
    case 'reserve':
      return { changed: [request.id, ...request.addresses], looked: [] };
    case 'extend':
    case 'commit':
    case 'cancel':
      return {
        changed: [request.id, ...(book.reservation(request.id)?.value.addresses ?? [])],
        looked: [],
      };
    case 'release-owner':
      return { changed: [...book.addressesOf(request.owner)], looked: [] };
    default: {
      const reservation = book.address(request.address)?.value.reservation;
      return { changed: [request.address], looked: reservation ? [reservation] : [] };
    }
  }
}
