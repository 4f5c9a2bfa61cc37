/**
 * How the fake says no: the errno and words of the kernel, on its own account or because a test ordered it.
 *
 * In: an operation and an errno that a test wants next. Out: KernelErrors. Never: an ordered failure that silently never comes
 * (`pending` tells a test what is left).
 */
import { KernelError } from '../ports.ts';

/** Thrown inside the fake; becomes a KernelError where the request is known. */
export class Refusal extends Error {
  readonly errno: string;
  readonly text: string | null;

  constructor(errno: string, text: string | null = null) {
    super(errno);
    this.errno = errno;
    this.text = text;
  }
}

/** What can be made to fail; `batch` is that of Routing. */
export type FakeOperation =
  | 'openNetns'
  | 'batch'
  | 'ipsets'
  | 'ipsets.list'
  | 'nftables'
  | 'nftables.read'
  | 'save'
  | 'restore'
  | 'flushAddresses'
  | 'flushWhere'
  | 'deleteLink'
  | 'readSysctl'
  | 'writeSysctl'
  | 'sendFrame';

export interface OrderedFailure {
  readonly operation: FakeOperation;
  readonly errno: string;
  /** In a batch: number of the request that fails. */
  readonly position: number;
}

export class Failures {
  #ordered: OrderedFailure[] = [];

  order(failure: OrderedFailure): void {
    this.#ordered.push(failure);
  }

  /** Ordered and not come yet. */
  get pending(): readonly OrderedFailure[] {
    return this.#ordered;
  }

  /** The next ordered failure of the operation, used up by this call. */
  take(operation: FakeOperation): OrderedFailure | null {
    const at = this.#ordered.findIndex((failure) => failure.operation === operation);
    return at < 0 ? null : (this.#ordered.splice(at, 1)[0] ?? null);
  }

  /** Fails the whole operation if that was ordered. */
  check(operation: FakeOperation, what: string): void {
    const failure = this.take(operation);
    if (failure !== null) throw new KernelError(what, failure.errno, null);
  }

  /**
   * Carries out a batch as the kernel does: a failed request does not keep the later ones from being tried, and the first
   * error is reported.
   */
  runBatch<T>(
    operation: FakeOperation,
    requests: readonly T[],
    describe: (request: T) => string,
    carryOut: (request: T) => void,
  ): void {
    const ordered = this.take(operation);
    let first: KernelError | null = null;
    for (const [position, request] of requests.entries()) {
      try {
        if (ordered?.position === position) throw new Refusal(ordered.errno);
        carryOut(request);
      } catch (error) {
        if (!(error instanceof Refusal)) throw error;
        first ??= new KernelError(describe(request), error.errno, error.text, position);
      }
    }
    if (first !== null) throw first;
  }
}

/** A refusal of the call, as the port has it. @throws KernelError */
export function withWords<T>(what: string, call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw error instanceof Refusal ? new KernelError(what, error.errno, error.text) : error;
  }
}
