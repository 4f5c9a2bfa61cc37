/**
 * Batches of rtnetlink requests that belong together, in more than one namespace. A chain alone is carried out at once, on this thread: the
 * shortest way, unless it can begin before it is waited for. Where there is other work, another thread takes it, and then all that has come
 * meanwhile: the kernel's work, and its waits for the lock of all links, beside ours.
 *
 * In: chains of batches, whether other work waits for this thread. Out: which batch of a chain was refused, if any. Never: a batch after a refused one of its chain; a chain that
 * suffers from another one's refusal.
 */
import { describeRouting } from '../describe.ts';
import { MessageBatch, NLMSG_ERROR, readMessages } from '../netlink/message.ts';
import { type Batch, type BatchRefusal, KernelError, type RoutingRequest } from '../ports.ts';
import { asKernelErrors, encode, type Failure, failureIn, kernelError, RequestSocket } from './exchange.ts';
import { NETLINK_ROUTE, native, OWN_NETNS } from './native.ts';
import { writeRequest } from './routing.ts';

const CHAINS_AT_ONCE = 16;
const HEADER_BYTES = 8;
/** In place of an errno, as the addon says it. */
const NOT_SENT = -1;

interface Chain {
  readonly batches: readonly Batch[];
  readonly resolve: (refusal: BatchRefusal | null) => void;
  readonly reject: (error: unknown) => void;
}

/** A batch as it is sent. */
interface Part {
  readonly chain: number;
  readonly netnsFd: number;
  readonly requests: readonly RoutingRequest[];
  readonly itemOf: readonly number[];
  readonly bytes: Buffer;
}

export class RoutingChains {
  readonly #hasOtherWork: () => boolean;
  #waiting: Chain[] = [];
  #isScheduled = false;
  #isBusy = false;
  #socket: RequestSocket | null = null;
  #aheadSocket: RequestSocket | null = null;
  #isAhead = false;

  constructor(hasOtherWork: () => boolean) {
    this.#hasOtherWork = hasOtherWork;
  }

  /** @throws KernelError where the system does not let us ask; what was asked before may be done */
  run(batches: readonly Batch[]): Promise<BatchRefusal | null> {
    const { promise, resolve, reject } = Promise.withResolvers<BatchRefusal | null>();
    this.#waiting.push({ batches, resolve, reject });
    if (!this.#isBusy && !this.#isScheduled) {
      this.#isScheduled = true;
      queueMicrotask(() => {
        this.#isScheduled = false;
        void this.#work();
      });
    }
    return promise;
  }

  /** As of Linux. */
  ahead(requests: readonly RoutingRequest[]): (() => KernelError | null) | null {
    if (this.#isAhead || this.#isBusy || this.#waiting.length > 0 || this.#hasOtherWork()) return null;
    this.#aheadSocket ??= open(OWN_NETNS);
    const finish = this.#aheadSocket.begin(requests, writeRequest);
    this.#isAhead = true;
    return () => {
      this.#isAhead = false;
      const [failure] = finish().failures;
      return failure === undefined ? null : asError(failure, requests);
    };
  }

  close(): void {
    for (const socket of [this.#socket, this.#aheadSocket]) socket?.close();
    this.#socket = null;
    this.#aheadSocket = null;
  }

  async #work(): Promise<void> {
    const [first] = this.#waiting;
    if (first !== undefined && this.#waiting.length === 1 && !this.#hasOtherWork()) {
      this.#waiting = [];
      return this.#runHere(first);
    }
    this.#isBusy = true;
    while (this.#waiting.length > 0) await this.#runThere(this.#waiting.splice(0, CHAINS_AT_ONCE));
    this.#isBusy = false;
  }

  #runHere({ batches, resolve, reject }: Chain): void {
    try {
      resolve(this.#exchange(batches));
    } catch (error) {
      reject(error);
    }
  }

  #exchange(batches: readonly Batch[]): BatchRefusal | null {
    for (const [batch, { requests, netns }] of batches.entries()) {
      const socket = netns === undefined ? this.#ownSocket() : open(netns.fd);
      try {
        const [failure] = socket.exchange(requests, writeRequest).failures;
        if (failure !== undefined) return { batch, error: asError(failure, requests) };
      } finally {
        if (netns !== undefined) socket.close();
      }
    }
    return null;
  }

  #ownSocket(): RequestSocket {
    this.#socket ??= open(OWN_NETNS);
    return this.#socket;
  }

  async #runThere(chains: readonly Chain[]): Promise<void> {
    const accepted: Chain[] = [];
    const parts: Part[] = [];
    for (const chain of chains) {
      try {
        parts.push(...encodeAll(chain, accepted.length));
        accepted.push(chain);
      } catch (error) {
        chain.reject(error);
      }
    }
    if (accepted.length === 0) return;
    try {
      const numbers = parts.flatMap(({ chain, netnsFd, bytes }) => [chain, netnsFd, bytes.length]);
      const bytes = Buffer.concat(parts.map((part) => part.bytes));
      const answers = await native.runChains(new Uint8Array(Int32Array.from(numbers).buffer), bytes);
      const results = readResults(parts, answers, accepted.length);
      for (const [i, { resolve, reject }] of accepted.entries()) {
        const result = results[i]!;
        if (result instanceof KernelError) reject(result);
        else resolve(result);
      }
    } catch (error) {
      for (const { reject } of accepted) reject(error);
    }
  }
}

function open(netnsFd: number): RequestSocket {
  return asKernelErrors('open a routing socket', () => new RequestSocket(netnsFd, NETLINK_ROUTE));
}

function encodeAll({ batches }: Chain, chain: number): Part[] {
  return batches.map(({ requests, netns }) => {
    const batch = new MessageBatch(1);
    const { itemOf } = encode(batch, requests, writeRequest);
    return { chain, netnsFd: netns?.fd ?? OWN_NETNS, requests, itemOf, bytes: batch.finish() };
  });
}

/** One for each chain: null, a refusal, or why a batch could not be sent. */
function readResults(
  parts: readonly Part[],
  answers: Buffer,
  chains: number,
): (BatchRefusal | KernelError | null)[] {
  const results: (BatchRefusal | KernelError | null)[] = Array.from({ length: chains }, () => null);
  let at = 0;
  let batch = 0;
  for (const [i, { chain, requests, itemOf }] of parts.entries()) {
    batch = parts[i - 1]?.chain === chain ? batch + 1 : 0;
    const errno = answers.readInt32LE(at);
    const from = at + HEADER_BYTES;
    at = from + answers.readInt32LE(at + 4);
    if (errno === NOT_SENT || requests.length === 0) continue;
    if (errno !== 0) {
      results[chain] = kernelError('send to the kernel', { errno, text: null });
      continue;
    }
    const messages = readMessages(answers.subarray(from, at)).filter(({ type }) => type === NLMSG_ERROR);
    if (messages.length === 0) throw new KernelError('netlink', 'ENOBUFS', 'the kernel sent no answer');
    const failure = messages
      .map((message) => failureIn(message, itemOf[message.sequence - 1]!))
      .find((found) => found !== null);
    if (failure) results[chain] = { batch, error: asError(failure, requests) };
  }
  return results;
}

function asError(failure: Failure, requests: readonly RoutingRequest[]): KernelError {
  return kernelError(describeRouting(requests[failure.item]!), failure, failure.item);
}
