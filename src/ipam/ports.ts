/**
 * Ports of a node: taken by endpoints that publish them, reserved by schedulers for containers of the host's network.
 *
 *     ports/<node>/<protocol>-<port>      who has it; written by whoever takes it, compared with what was there
 *     port-reservations/<node>/<id>       its ports, and until when
 *     endpoints/<node>/<id>               its mappings
 *
 * A holder that is gone holds nothing: an endpoint goes with one write of its own node, which asks nobody. Who takes such a port says in
 * the transaction that the holder is not there; the records left over go later.
 *
 * In: the book, a request. Out: one transaction. Never: a port given twice, whatever the book does not know yet; a reservation changed by
 * somebody who has not seen its last change.
 */
import { NetctlError } from '../lib/errors.ts';
import { endpointKey, portKey, portReservationKey } from '../model/keys.ts';
import {
  addressesMeet,
  type HostPort,
  hostPortText,
  mostPortMappings,
  type PortMapping,
  type PortProtocol,
  portName,
} from '../model/port-mapping.ts';
import type { NodePorts, PortHolder, PortRecord, PortReservation } from '../model/port-records.ts';
import type { Owner } from '../model/records.ts';
import type { AddressBook } from './address-book.ts';
import type { Planned } from './commit.ts';
import { Draft, type Step } from './draft.ts';
import type { Known } from './known.ts';
import type { Holder, PortBook } from './port-book.ts';
import { later } from './release.ts';

/** One write for each, and a transaction of etcd takes 128. */
export const mostPortsPerReservation = mostPortMappings;

export interface PortWish {
  readonly protocol: PortProtocol;
  readonly from: number;
  readonly to: number;
  /** So many of them, the lowest free ones; null: all. */
  readonly count: number | null;
}

export interface ReservePortsRequest {
  readonly id: string;
  readonly node: string;
  readonly owner: Owner;
  readonly ports: readonly PortWish[];
  /** null: until it is released. */
  readonly ttlSeconds: number | null;
  readonly now: Date;
}

/** @throws ALREADY_EXISTS, NOT_FOUND, AFFINITY_MISMATCH for the node, PORT_IN_USE naming port and holder, PORTS_EXHAUSTED, INVALID */
export function planReservePorts(book: AddressBook, request: ReservePortsRequest): Planned<PortReservation> {
  const { id, node, owner, ttlSeconds, now } = request;
  if (book.ports.reservation(node, id) !== undefined)
    throw new NetctlError('ALREADY_EXISTS', `node ${node} has a reservation of ports ${id} already`, {
      reservation: id,
    });
  refuseNode(book, node);
  const draft = new Draft();
  const chosen = choosePorts(book.ports, node, request.ports);
  for (const { protocol, from, to } of chosen)
    for (let port = from; port <= to; port++) {
      const holder = { kind: 'reservation', id, hostIP: null } as const;
      takePort(book.ports, draft, node, { protocol, hostPort: port, hostIP: null }, holder, null);
    }
  const reservation: PortReservation = {
    ...owner,
    ports: chosen,
    generation: 1,
    createdAt: now.toISOString(),
    ...lasting(ttlSeconds, now),
  };
  const key = portReservationKey(node, id);
  draft.compareTo(key, undefined).put(key, reservation);
  return { result: reservation, ...draft.step() };
}

/** Which reservation, for whom (null: an operator), and the generation that is meant (null: whatever it is). */
export interface PortReservationCall {
  readonly node: string;
  readonly id: string;
  readonly tenant: string | null;
  readonly generation: number | null;
}

/** A new end, or none. @throws NOT_FOUND, NOT_OWNER, STALE_GENERATION */
export function planExtendPorts(
  book: AddressBook,
  call: PortReservationCall & { readonly ttlSeconds: number | null; readonly now: Date },
): Planned<PortReservation> {
  const known = meantReservation(book.ports, call);
  if (known === null)
    throw new NetctlError(
      'NOT_FOUND',
      `node ${call.node} has no reservation of ports ${call.id} (any more)`,
      {
        reservation: call.id,
      },
    );
  const next: PortReservation = {
    ...known.value,
    generation: known.value.generation + 1,
    ...lasting(call.ttlSeconds, call.now),
  };
  const key = portReservationKey(call.node, call.id);
  return { result: next, ...new Draft().compareTo(key, known).put(key, next).step() };
}

/** One that is gone already is no error: the result is null. @throws NOT_OWNER, STALE_GENERATION */
export function planReleasePorts(
  book: AddressBook,
  call: PortReservationCall,
): Planned<readonly NodePorts[] | null> {
  const known = meantReservation(book.ports, call);
  if (known === null) return { result: null, compares: [], writes: [] };
  return { result: known.value.ports, ...dropPortReservation(book.ports, call.node, call.id, known) };
}

/** And is in the records of its ports no more. */
export function dropPortReservation(
  book: PortBook,
  node: string,
  id: string,
  known: Known<PortReservation>,
): Step {
  const key = portReservationKey(node, id);
  const draft = new Draft().compareTo(key, known).delete(key);
  const holder = { kind: 'reservation', id } as const;
  for (const [port] of book.heldBy(node, holder)) leavePort(book, draft, node, port, holder);
  return draft.step();
}

/**
 * An endpoint of the node publishes these, and no others that it (or an earlier one of the same id) had.
 * @param owner whose reservations are for it @throws PORT_IN_USE naming port and holder
 */
export function planPublish(
  book: PortBook,
  endpoint: { readonly node: string; readonly id: string; readonly owner: Owner | null },
  now: readonly PortMapping[],
): Step {
  const { node, id, owner } = endpoint;
  const draft = new Draft();
  for (const mapping of now) {
    const holder = { kind: 'endpoint', id, hostIP: mapping.hostIP } as const;
    takePort(book, draft, node, mapping, holder, owner);
  }
  const wanted = new Set(now.map(({ protocol, hostPort }) => portName(protocol, hostPort)));
  const holder = { kind: 'endpoint', id } as const;
  for (const [port] of book.heldBy(node, holder))
    if (!wanted.has(port)) leavePort(book, draft, node, port, holder);
  return draft.step();
}

/** Records of ports of this node whose holders are gone, or null. At most `limit` of them. */
export function planForgetPorts(book: PortBook, node: string, limit = 60): Step | null {
  const draft = new Draft();
  for (const [port, known] of book.ports(node)) {
    const { holders } = known.value;
    if (holders.some((holder) => book.holderText(node, holder) !== null)) continue;
    const key = portKey(node, port);
    for (const holder of holders) draft.compare({ kind: 'absent', key: holderKey(node, holder) });
    draft.compareTo(key, known).delete(key);
    if (draft.size >= limit) break;
  }
  return draft.size > 0 ? draft.step() : null;
}

/** Two wishes of one request do not get the same port: what is chosen counts as taken. */
function choosePorts(book: PortBook, node: string, wishes: readonly PortWish[]): NodePorts[] {
  const chosen: NodePorts[] = [];
  const isChosen = (protocol: PortProtocol, port: number): boolean =>
    chosen.some((each) => each.protocol === protocol && each.from <= port && port <= each.to);
  for (const { protocol, from, to, count } of wishes) {
    if (count === null) {
      for (let port = from; port <= to; port++)
        if (isChosen(protocol, port))
          throw new NetctlError('INVALID', `ports: ${port}/${protocol} is asked for twice`, {
            port,
            protocol,
          });
      chosen.push({ protocol, from, to });
      continue;
    }
    let missing = count;
    for (let port = from; port <= to && missing > 0; port++) {
      const holders = book.port(node, protocol, port)?.value.holders ?? [];
      if (isChosen(protocol, port) || holders.some((each) => book.holderText(node, each) !== null)) continue;
      chosen.push({ protocol, from: port, to: port });
      missing--;
    }
    if (missing > 0)
      throw new NetctlError(
        'PORTS_EXHAUSTED',
        `node ${node} has ${count - missing} of the ${count} ports free that are asked for in ${from} to ${to}/${protocol}`,
        { node, protocol, from, to, free: count - missing },
      );
  }
  const total = chosen.reduce((sum, { from, to }) => sum + to - from + 1, 0);
  if (total === 0 || total > mostPortsPerReservation)
    throw new NetctlError(
      'INVALID',
      `ports: ${total} ports are not valid: expected 1 to ${mostPortsPerReservation}; for more, several reservations`,
      { total },
    );
  return merged(chosen);
}

/** Neighbours become ranges. */
function merged(ports: readonly NodePorts[]): NodePorts[] {
  const ranges: { protocol: PortProtocol; from: number; to: number }[] = [];
  const sorted = ports.toSorted((a, b) => a.protocol.localeCompare(b.protocol) || a.from - b.from);
  for (const { protocol, from, to } of sorted) {
    const last = ranges.at(-1);
    if (last !== undefined && last.protocol === protocol && last.to + 1 === from) last.to = to;
    else ranges.push({ protocol, from, to });
  }
  return ranges;
}

/** @param owner whose reservation does not stand in the way */
function takePort(
  book: PortBook,
  draft: Draft,
  node: string,
  port: HostPort,
  taker: PortHolder,
  owner: Owner | null,
): void {
  const { protocol, hostPort, hostIP } = port;
  const known = book.port(node, protocol, hostPort);
  const others = (known?.value.holders ?? []).filter((holder) => !isSame(holder, taker));
  const stay: PortHolder[] = [];
  for (const holder of others) {
    const text = book.holderText(node, holder);
    if (text === null) {
      draft.compare({ kind: 'absent', key: holderKey(node, holder) });
      continue;
    }
    if (addressesMeet(holder.hostIP, hostIP) && !isFor(book, node, holder, owner))
      throw new NetctlError('PORT_IN_USE', `port ${hostPortText(port)} of node ${node} is taken by ${text}`, {
        node,
        protocol,
        port: hostPort,
        holder: { kind: holder.kind, id: holder.id },
      });
    stay.push(holder);
  }
  const key = portKey(node, portName(protocol, hostPort));
  const sofar = (draft.written(key) as PortRecord | undefined)?.holders ?? [];
  const mine = sofar.filter((holder) => isSame(holder, taker));
  draft.compareTo(key, known).put(key, { holders: [...stay, ...mine, taker] } satisfies PortRecord);
}

function leavePort(book: PortBook, draft: Draft, node: string, port: string, holder: Holder): void {
  const known = book.record(node, port);
  if (known === undefined) return;
  const holders = known.value.holders.filter((each) => !isSame(each, holder));
  const key = portKey(node, port);
  draft.compareTo(key, known);
  if (holders.length > 0) draft.put(key, { holders } satisfies PortRecord);
  else draft.delete(key);
}

const isSame = (a: Holder, b: Holder): boolean => a.kind === b.kind && a.id === b.id;

function isFor(book: PortBook, node: string, { kind, id }: PortHolder, owner: Owner | null): boolean {
  const reserved = kind === 'reservation' ? book.reservation(node, id)?.value : undefined;
  return (
    owner !== null &&
    reserved?.tenant === owner.tenant &&
    reserved.app === owner.app &&
    reserved.instance === owner.instance
  );
}

function holderKey(node: string, { kind, id }: PortHolder): string {
  return kind === 'endpoint' ? endpointKey(node, id) : portReservationKey(node, id);
}

function meantReservation(
  book: PortBook,
  { node, id, tenant, generation }: PortReservationCall,
): Known<PortReservation> | null {
  const known = book.reservation(node, id);
  if (known === undefined) return null;
  const { value } = known;
  if (tenant !== null && value.tenant !== tenant)
    throw new NetctlError('NOT_OWNER', `reservation ${id} is not one of tenant ${tenant}`, {
      reservation: id,
      tenant,
    });
  if (generation !== null && value.generation !== generation)
    throw new NetctlError(
      'STALE_GENERATION',
      `reservation ${id} is at generation ${value.generation}, not ${generation}: it was changed since`,
      { reservation: id, generation: value.generation, given: generation },
    );
  return known;
}

function refuseNode(book: AddressBook, node: string): void {
  if (!book.nodes().has(node))
    throw new NetctlError('NOT_FOUND', `there is no node ${node}: see \`netctl node show\``, { node });
  const state = book.nodeState(node);
  if (state === undefined) return;
  throw new NetctlError('AFFINITY_MISMATCH', `node ${node} is ${state.state}: nothing new is given there`, {
    node,
    state: state.state,
  });
}

function lasting(ttlSeconds: number | null, now: Date): Pick<PortReservation, 'ttlSeconds' | 'expiresAt'> {
  return { ttlSeconds, expiresAt: ttlSeconds === null ? null : later(now, ttlSeconds) };
}
