/**
 * The verbs that a scheduler and a node use, as steps: whether this caller may, the operation, and its result as the API shows it. A request
 * is one of them, a batch many.
 *
 * In: the caller, a checked call. Out: an operation and the form of its answer. Never: a verb with one rule alone and another in a batch; a
 * hint at an address that is not the caller's.
 */
import type { z } from 'zod';
import { fenced, owned } from '../ipam/fenced.ts';
import type { OperationOf, ResultOf, Verb } from '../ipam/operations.ts';
import { isDecidedHere, lookTwice } from '../ipam/second-look.ts';
import { invalid, NetctlError } from '../lib/errors.ts';
import type { Address } from '../model/ip.ts';
import type { Pool, Reservation } from '../model/records.ts';
import type { Revision } from '../store/store.ts';
import { actingFor, bindingOn, type Caller, operatorOnly, takingFor } from './caller.ts';
import type { ApiDeps } from './deps.ts';
import type * as schemas from './ipam-schemas.ts';

type Body<S extends z.ZodType> = z.output<S>;
type At<S extends z.ZodType> = Body<S> & { readonly address: Address };
type For<S extends z.ZodType> = Body<S> & { readonly reservation: string };

export interface Step<V extends Verb, A> {
  readonly operation: OperationOf<V>;
  answer(result: ResultOf<V>): A;
  /** There is nothing to do, as far as this agent knows, and another may know better. */
  isNothing?(result: ResultOf<V>): boolean;
}

/** One per verb: (deps, caller, call, revision that If-Match names). */
export const steps = { reserve, extend, commit, cancel, bind, activate, unbind, transfer, release };

/** @param make called for each look at the records */
export async function performed<V extends Verb, A>(deps: ApiDeps, make: () => Step<V, A>): Promise<A> {
  const perform = async () => {
    const { operation, answer, isNothing } = make();
    const result = await deps.ipam.perform(operation);
    return { answer: answer(result), isNothing: isNothing?.(result) ?? false };
  };
  return (await lookTwice(deps.ipam, perform, ({ isNothing }) => isNothing)).answer;
}

function reserve({ ipam }: ApiDeps, caller: Caller, call: Body<typeof schemas.reserveBody> & { id: string }) {
  const { kind, ...asked } = call;
  const wanted = { ...asked, tenant: takingFor(caller, call.tenant) };
  knownNode(ipam, wanted.node);
  const request = { ...wanted, kind: kind ?? kindOf(ipam, wanted) };
  return step({ verb: 'reserve', request }, (reserved) => ({
    ...reserved,
    addresses: [...reserved.addresses],
  }));
}

function extend(_: ApiDeps, caller: Caller, call: For<typeof schemas.extendBody>, revision?: Revision) {
  const { reservation: id, tenant, ttlSeconds } = call;
  const request = { id, tenant: actingFor(caller, tenant), ttlSeconds, revision };
  return step({ verb: 'extend', request }, shown(id));
}

function commit(
  { ipam }: ApiDeps,
  caller: Caller,
  call: For<typeof schemas.commitBody>,
  revision?: Revision,
) {
  const { reservation: id, tenant, node, ttlSeconds } = call;
  knownNode(ipam, node);
  const lasting = ttlSeconds === undefined ? {} : { ttlSeconds };
  const request = { id, tenant: actingFor(caller, tenant), node, ...lasting, revision };
  return step({ verb: 'commit', request }, shown(id));
}

function cancel(_: ApiDeps, caller: Caller, call: For<typeof schemas.cancelBody>, revision?: Revision) {
  const request = { id: call.reservation, tenant: actingFor(caller, call.tenant), revision };
  return {
    ...step({ verb: 'cancel', request }, (freed) => ({ freed: [...freed] })),
    isNothing: (freed: readonly Address[]) => freed.length === 0,
  };
}

function bind(deps: ApiDeps, caller: Caller, call: At<typeof schemas.bindBody>, revision?: Revision) {
  const { address, tenant = null, node = deps.node, generation, container } = call;
  bindingOn(caller, node);
  if (!caller.operator && targetOf(deps, address) !== node) throw notForNode(address, node);
  knownNode(deps.ipam, call.node);
  refuseElsewhere(deps, address, tenant);
  const request = { address, tenant, node, generation, container, endpoint: null, revision };
  return step({ verb: 'bind', request }, (bound) => ({ address, ...bound }));
}

function activate(deps: ApiDeps, caller: Caller, call: At<typeof schemas.activateBody>, revision?: Revision) {
  const { address, tenant = null, generation, mac } = call;
  refuseOthersNode(deps, caller, address);
  refuseElsewhere(deps, address, tenant);
  const request = { address, tenant, generation, mac, revision };
  return step({ verb: 'activate', request }, (active) => ({ address, ...active }));
}

function unbind(deps: ApiDeps, caller: Caller, call: At<typeof schemas.unbindBody>, revision?: Revision) {
  const { address, tenant = null, container, generation } = call;
  const nodes = caller.operator ? undefined : caller.bind;
  if (nodes === undefined || nodes.has(targetOf(deps, address) ?? '')) refuseElsewhere(deps, address, tenant);
  const request = { address, tenant, container, generation, nodes, revision };
  return {
    ...step({ verb: 'unbind', request }, (outcome) => ({ address, outcome })),
    isNothing: (outcome: string) => outcome === 'unknown' && !isDecidedHere(deps.ipam, address),
  };
}

function transfer(deps: ApiDeps, caller: Caller, call: At<typeof schemas.transferBody>, revision?: Revision) {
  const { address, force = false, holdSeconds, generation, toOwner, toNode } = call;
  const tenant = actingFor(caller, call.tenant);
  refuseForce(caller, force, tenant);
  knownNode(deps.ipam, toNode);
  // Whose it is comes first: that it is in use, and where, is not for others.
  fenced(deps.ipam.book, { address, tenant, generation });
  const held = holdSeconds === undefined ? {} : { holdSeconds };
  const request = { address, tenant, force, generation, toOwner, toNode, ...held, revision };
  return step({ verb: 'transfer', request }, (moved) => ({ address, ...moved }));
}

function release(deps: ApiDeps, caller: Caller, call: At<typeof schemas.releaseBody>, revision?: Revision) {
  const { address, force = false, generation } = call;
  const tenant = actingFor(caller, call.tenant);
  refuseForce(caller, force, tenant);
  if (generation === undefined && !force)
    throw invalid('generation', generation, 'the generation that is meant (GET /v1/allocations has it)');
  refuseElsewhere(deps, address, tenant);
  // No address is ever at generation 0: without one, only force lets it pass.
  const request = { address, tenant, force, generation: generation ?? 0, revision };
  return step({ verb: 'release', request }, ({ outcome, forced }) => ({ address, outcome, forced }));
}

/** A name that is spelled wrong would hold an address where nobody fetches it. @throws NOT_FOUND */
function knownNode({ book }: ApiDeps['ipam'], node: string | null | undefined): void {
  if (node === null || node === undefined || book.nodes().has(node)) return;
  throw new NetctlError('NOT_FOUND', `there is no node ${node}: see \`netctl node show\``, { node });
}

function step<V extends Verb, A>(operation: OperationOf<V>, answer: (result: ResultOf<V>) => A): Step<V, A> {
  return { operation, answer };
}

function shown(id: string) {
  return (reservation: Reservation) => ({ id, ...reservation });
}

/** The kind of what is named; pools of different kinds are never used together. */
function kindOf(
  { book }: ApiDeps['ipam'],
  { pools, addresses }: { pools: readonly string[]; addresses: readonly Address[] },
): Pool['kind'] {
  const [pool] = pools;
  const [address] = addresses;
  const named = pool === undefined ? undefined : book.pool(pool);
  return (named ?? (address === undefined ? undefined : book.viewOf(address)?.pool))?.kind ?? 'routed';
}

/** The node that an address is meant for, as far as that is decided. */
function targetOf({ ipam: { book } }: ApiDeps, address: Address): string | null {
  const record = book.address(address)?.value;
  if (record === undefined) return null;
  const reservation =
    record.state === 'reserved' ? book.reservation(record.reservation ?? '')?.value : undefined;
  return reservation?.node ?? record.node;
}

/** @throws NOT_OWNER for a node's certificate and an address that is not for one of its nodes, free ones included */
export function refuseOthersNode(deps: ApiDeps, caller: Caller, address: Address): void {
  if (caller.operator) return;
  const target = targetOf(deps, address);
  if (target === null || !caller.bind.has(target)) throw notForNode(address, [...caller.bind].join(', '));
}

function notForNode(address: Address, node: string): NetctlError {
  return new NetctlError('NOT_OWNER', `address ${address} is not for a container on node ${node}`, {
    address,
  });
}

/**
 * The node of an exclusive block writes its addresses without asking anybody, so nobody else may; a transfer by force ends that first.
 * @throws NOT_OWNER before anything is said about another tenant's address, AFFINITY_MISMATCH naming the node
 */
export function refuseElsewhere(
  { ipam: { book }, node }: ApiDeps,
  address: Address,
  tenant: string | null,
): void {
  owned(book, { address, tenant });
  const block = book.blockAround(address)?.value;
  if (block === undefined || block.shared || block.node === node) return;
  throw new NetctlError(
    'AFFINITY_MISMATCH',
    `address ${address} is in a block about which node ${block.node} decides alone: ask its agent, or, if the node is down, transfer the address by force first`,
    { address, node: block.node },
  );
}

function refuseForce(caller: Caller, force: boolean, tenant: string | null): void {
  if (force) operatorOnly(caller);
  if (force && tenant !== null) throw invalid('force', force, 'no force together with a tenant');
}
