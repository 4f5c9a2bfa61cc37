/**
 * Before a request is refused, or answered that there is nothing to do, on account of the records, the cluster is asked: what another agent
 * changed a moment ago may not have arrived here.
 *
 * In: a request as a function, its answer or its refusal. Out: the same, or that of the request carried out once more. Never: a request
 * carried out twice that did something; a question about a block of this node alone, which nobody knows better.
 */
import { asNetctlError, type ErrorCode, type NetctlError } from '../lib/errors.ts';
import type { Address } from '../model/ip.ts';
import type { Ipam } from './ipam.ts';

/** Refusals that are of kind invalid, and yet about the pools that there are. */
const aboutPools: ReadonlySet<ErrorCode> = new Set(['OUT_OF_RANGE', 'FAMILY_UNSUPPORTED']);

/**
 * @param isNothing whether the answer says that there was nothing to do
 * @param catchUp how the cluster is asked; false: there is nothing to learn
 * @throws what `act` throws; STORE_UNAVAILABLE where that may not be so any more and the cluster cannot be asked
 */
export async function lookTwice<A>(
  ipam: Ipam,
  act: () => Promise<A>,
  isNothing: (answer: A) => boolean = () => false,
  catchUp = () => ipam.catchUp(),
): Promise<A> {
  try {
    const answer = await act();
    if (!isNothing(answer) || !(await catchUp())) return answer;
  } catch (thrown) {
    if (!mayBePast(ipam, asNetctlError(thrown)) || !(await catchUp())) throw thrown;
  }
  return act();
}

/**
 * For many requests at once: the one question before all of them.
 * @returns null; or why the cluster cannot be asked, which is the answer to what would be refused or left on account of what `mayBePast`
 */
export async function lookFirst(ipam: Ipam): Promise<NetctlError | null> {
  try {
    await ipam.catchUp();
    return null;
  } catch (thrown) {
    return asNetctlError(thrown);
  }
}

/** Whether what another agent has done since could have made the refusal wrong. */
export function mayBePast(ipam: Ipam, { kind, code, details }: NetctlError): boolean {
  if (kind !== 'conflict' && kind !== 'not-found' && kind !== 'exhausted') return aboutPools.has(code);
  return !isDecidedHere(ipam, details['address'] as Address | undefined);
}

/** Whether this node alone writes the address's record. */
export function isDecidedHere({ book, node }: Ipam, address: Address | undefined): boolean {
  const block = address === undefined ? undefined : book.blockAround(address)?.value;
  return block !== undefined && !block.shared && block.node === node;
}
