/**
 * Bind and activate: a reserved or retained address becomes a container's, and is in use once the container's network works.
 *
 * In: the address book, the generation that the caller holds. Out: a transaction and the new generation. Never: an address bound by
 * two nodes (the second finds the generation gone up); a repeated request refused that was carried out.
 */
import { NetctlError } from '../lib/errors.ts';
import type { Mac } from '../model/mac.ts';
import { admitKept, nodeHold } from './access.ts';
import type { AddressBook } from './address-book.ts';
import type { Planned } from './commit.ts';
import { Draft } from './draft.ts';
import { type Fence, fenced, owned } from './fenced.ts';
import { takeable } from './kept.ts';
import { enterPlace, type Places } from './places.ts';

export interface BindRequest extends Fence {
  readonly node: string;
  readonly container: string;
  /** Id of the endpoint, where there is one. */
  readonly endpoint: string | null;
  readonly now: Date;
}

/** @throws STALE_GENERATION, NOT_OWNER, IN_USE, ADDRESS_QUARANTINED, AFFINITY_MISMATCH, NODE_LIMIT, RESERVATION_EXPIRED */
export function planBind(
  book: AddressBook,
  places: Places,
  request: BindRequest,
): Planned<{ generation: number; mac: Mac | null }> {
  const { address, node, container, endpoint, generation, now } = request;
  const known = owned(book, request);
  const isDone =
    known !== undefined &&
    (known.value.state === 'bound' || known.value.state === 'active') &&
    known.value.container === container &&
    known.value.node === node &&
    known.value.generation === generation + 1;
  if (isDone)
    return { result: { generation: generation + 1, mac: known.value.mac }, compares: [], writes: [] };
  const before = fenced(book, request);
  const record = before.value;
  if (record.state === 'quarantined')
    throw new NetctlError(
      'ADDRESS_QUARANTINED',
      `address ${address} is kept back: ${record.conflict?.mac} answered for it`,
      { address, ...record.conflict },
    );
  if (!takeable(record))
    throw new NetctlError(
      'IN_USE',
      `address ${address} is ${record.state}${record.container === null ? '' : ` (container ${record.container} on node ${record.node})`}: unbind or transfer it first`,
      { address, state: record.state },
    );
  if (record.state === 'reserved') refuseReserved(book, record.reservation ?? '', request);
  const view = book.view(record.pool);
  if (view === undefined) throw new NetctlError('POOL_NOT_FOUND', `there is no pool ${record.pool}`);
  admitKept(book, view, record, node);
  const draft = new Draft();
  const place = places.existing(view, address, node, now);
  enterPlace(draft, place);
  draft.setAddress(address, before, {
    ...record,
    state: 'bound',
    node,
    container,
    endpoint,
    generation: generation + 1,
    expiresAt: null,
    borrowed: place.borrowed,
  });
  // Counted against the node's limit from now on, as what it has reserved is already.
  const isCounted = record.node === node && record.state === 'reserved';
  const holds = isCounted ? [] : [nodeHold(node, view.name)];
  book.hold(holds);
  const result = { generation: generation + 1, mac: record.mac };
  return { result, ...draft.step(), settle: () => book.unhold(holds) };
}

/**
 * The container's network works and nobody else answered for the address. Repeating it is no error.
 * @param request `mac`: what the container has, when it is not the one in the record
 * @throws STALE_GENERATION, NOT_OWNER, CONFLICT for an address that is not bound
 */
export function planActivate(
  book: AddressBook,
  request: Fence & { readonly mac: Mac | null },
): Planned<{ generation: number }> {
  const before = fenced(book, request);
  const { state, generation } = before.value;
  const mac = request.mac ?? before.value.mac;
  const result = { generation };
  if (state === 'active' && mac === before.value.mac) return { result, compares: [], writes: [] };
  if (state !== 'bound' && state !== 'active')
    throw new NetctlError('CONFLICT', `address ${request.address} is ${state}, not bound: bind it first`, {
      address: request.address,
      state,
    });
  const draft = new Draft().setAddress(request.address, before, { ...before.value, state: 'active', mac });
  return { result, ...draft.step() };
}

function refuseReserved(book: AddressBook, id: string, { address, node, now }: BindRequest): void {
  const reservation = book.reservation(id)?.value;
  if (reservation === undefined || Date.parse(reservation.expiresAt) <= now.getTime())
    throw new NetctlError(
      'RESERVATION_EXPIRED',
      `the reservation of address ${address} is over: reserve anew`,
      {
        address,
        reservation: id,
      },
    );
  if (reservation.node !== null && reservation.node !== node)
    throw new NetctlError(
      'AFFINITY_MISMATCH',
      `address ${address} is reserved for node ${reservation.node}, not for ${node}`,
    );
}
