/**
 * Policy in the kernel: what the engine says becomes sets and chains, and stays so, by one of two back ends.
 *
 *     member of a set that is there   → before flush() resolves, all that came in the same moment together; no program, no dump
 *     anything else                   → in a pass of its own, one at a time
 *
 * In: the calls of PolicyOutput. Out: calls of the back end. Never: a write before start(); a flush that resolves while the
 * kernel lacks what was asked; a right object rewritten; the rules of the other back end removed before ours are complete.
 */
import { NetctlError } from '../lib/errors.ts';
import type { Logger } from '../lib/logger.ts';
import { type IpSetMember, KernelError } from '../linux/ports.ts';
import type { Family } from '../model/ip.ts';
import type { Chain } from '../policy/chain.ts';
import type { PolicyOutput, SetSpec } from '../policy/output.ts';
import { countsOf } from '../policy/rule-counts.ts';
import type { PolicyBackend } from './policy-backend.ts';

export interface PolicyStatus {
  readonly backend: PolicyBackend['name'];
  readonly inSync: boolean;
  /** What of others stands before ours, in words. */
  readonly notices: readonly string[];
  /** What others had changed and was put right again, last; `at` in milliseconds since 1970. */
  readonly lastRepair: { readonly at: number; readonly what: readonly string[] } | null;
  /** Of the last attempt, if it failed. */
  readonly lastError: string | null;
  /** When to call resync() after a failure; null while there is none. Doubles from 1 s to 1 min. */
  readonly retryInMs: number | null;
  /** Since the start: what the back end counts, `repairs` and `failures`. */
  readonly writes: Readonly<Record<string, number>>;
}

const FIRST_RETRY_MS = 1000;
const LAST_RETRY_MS = 60_000;

export class PolicyDataplane implements PolicyOutput {
  readonly #logger: Logger;
  #backend: PolicyBackend;
  /** Until what it may have left is removed. */
  #other: PolicyBackend | null;
  #isStarted = false;
  /** What we believe to be in the kernel was read, and no write has failed since. */
  #isTrusted = false;
  /** The next pass reads. */
  #mustRead = true;
  #running: Promise<string[]> | null = null;
  #next: Promise<string[]> | null = null;
  /** Members of all who asked in this moment. */
  #gathering: Promise<void> | null = null;
  #lastError: string | null = null;
  #failuresInARow = 0;
  #failures = 0;
  #repairs = 0;
  #lastRepair: PolicyStatus['lastRepair'] = null;
  #onForeignChange: (() => void) | null = null;
  #stopWatching: () => void = () => undefined;
  #onRepaired: () => void = () => undefined;
  /** A pass has ended well. */
  #wasComplete = false;

  /** @param parts `other`: what an agent before this one may have used */
  constructor({ backend, other }: { backend: PolicyBackend; other: PolicyBackend | null }, logger: Logger) {
    this.#backend = backend;
    this.#other = other;
    this.#logger = logger;
  }

  set(name: string, spec: SetSpec | null): void {
    this.#backend.set(name, spec);
  }

  member(set: string, member: IpSetMember, present: boolean): void {
    this.#backend.member(set, member, present);
  }

  chain(family: Family, name: string, chain: Chain | null): void {
    this.#backend.chain(family, name, chain);
  }

  /**
   * To be called once the picture is complete: takes over what is right, writes what is missing, removes what is left over.
   * @throws KernelError; then resync() is to be called again later
   */
  async start(): Promise<void> {
    this.#isStarted = true;
    await this.#run();
    this.#logger.info({ backend: this.#backend.name, ...this.status.writes }, 'policy is in the kernel');
  }

  /** Resolves when everything asked so far is in the kernel. @throws KernelError; what was asked is kept for the next attempt */
  async flush(): Promise<void> {
    this.#requireStart();
    await this.#writeTogether();
    if (!this.#isSettled) await this.#run();
  }

  /** Tells when somebody else has changed what is ours, where the kernel says so; resync() is to follow. */
  watch(onForeignChange: () => void): () => void {
    this.#onForeignChange = onForeignChange;
    this.#stopWatching = this.#backend.watch(onForeignChange);
    return () => {
      this.#onForeignChange = null;
      this.#stopWatching();
    };
  }

  /** Tells when what others had changed is right again: until then anything may have passed. */
  watchRepairs(onRepaired: () => void): void {
    this.#onRepaired = onRepaired;
  }

  /**
   * Another back end takes over, on a live host too: it is complete before the rules of the one before go.
   * @param tellAll tells the output everything that was told before @throws KernelError; resync() goes on with it
   */
  async switchTo(
    { backend, other }: { backend: PolicyBackend; other: PolicyBackend },
    tellAll: (output: PolicyOutput) => void,
  ): Promise<void> {
    while (this.#running !== null) await this.#running.catch(() => []);
    this.#stopWatching();
    this.#backend = backend;
    this.#other = other;
    this.#isTrusted = false;
    this.#mustRead = true;
    tellAll(this);
    if (this.#onForeignChange !== null) this.#stopWatching = backend.watch(this.#onForeignChange);
    if (this.#isStarted) await this.#run();
  }

  /** How often each rule of the profile or policy applied. @param chains as the engine tells them @throws KernelError */
  async countsOf(
    part: Parameters<typeof countsOf>[0],
    chains: Iterable<{ readonly key: string; readonly chain: Chain }>,
  ): Promise<ReturnType<typeof countsOf>> {
    const counts = await this.#backend.counts();
    const inKernel = Array.from(chains, ({ key, chain }) => ({ key, rules: this.#backend.rulesOf(chain) }));
    return countsOf(part, inKernel, counts);
  }

  /** Reads everything again and repairs it. Returns what others had changed, in words. @throws KernelError */
  async resync(): Promise<string[]> {
    this.#requireStart();
    const isRepair = this.#isTrusted;
    this.#mustRead = true;
    const differences = await this.#run();
    if (!isRepair || differences.length === 0) return [];
    this.#repairs += differences.length;
    this.#lastRepair = { at: Date.now(), what: differences };
    this.#logger.warn(
      { repaired: differences },
      'policy in the kernel was changed by others and is repaired',
    );
    return differences;
  }

  get status(): PolicyStatus {
    const retryMs = Math.min(FIRST_RETRY_MS * 2 ** (this.#failuresInARow - 1), LAST_RETRY_MS);
    return {
      backend: this.#backend.name,
      inSync: this.#isSettled,
      notices: this.#backend.notices,
      lastRepair: this.#lastRepair,
      lastError: this.#lastError,
      retryInMs: this.#failuresInARow > 0 ? retryMs : null,
      writes: { ...this.#backend.counters, repairs: this.#repairs, failures: this.#failures },
    };
  }

  /** Everything asked is in the kernel. True also while a resync reads. */
  get #isSettled(): boolean {
    return this.#isTrusted && this.#backend.isClean;
  }

  #requireStart(): void {
    if (!this.#isStarted) throw new NetctlError('BUG', 'policy must not be written before start()');
  }

  /** Requests whose records were committed together ask one right after the other: their members go in one transaction. */
  #writeTogether(): Promise<void> {
    this.#gathering ??= Promise.resolve().then(() => {
      this.#gathering = null;
      this.#writeMembers();
    });
    return this.#gathering;
  }

  /** The short way. Where it fails (somebody destroyed a set), the pass that follows reads and repairs. */
  #writeMembers(): void {
    if (!this.#isTrusted) return;
    try {
      this.#backend.writeMembers();
    } catch (error) {
      this.#noteFailure(error);
    }
  }

  /** One pass at a time. Who asks while one runs shares the next with all others, since the running one may be too early. */
  #run(): Promise<string[]> {
    if (this.#running === null) {
      this.#running = this.#pass().finally(() => {
        this.#running = null;
      });
      return this.#running;
    }
    this.#next ??= this.#running
      .catch(() => [])
      .then(() => {
        this.#next = null;
        return this.#run();
      });
    return this.#next;
  }

  /** Returns what a read found to be different from what we believed. */
  async #pass(): Promise<string[]> {
    try {
      const differences = this.#mustRead ? await this.#read() : [];
      await this.#backend.write();
      const hadOther = await this.#removeOther();
      // At a start, what differs may be what was changed meanwhile; only where there was nothing at all, anything could pass.
      const wasOpen = this.#wasComplete ? differences.length > 0 : this.#backend.lackedTable && !hadOther;
      this.#wasComplete = true;
      if (wasOpen) this.#onRepaired();
      this.#lastError = null;
      this.#failuresInARow = 0;
      return differences;
    } catch (error) {
      this.#noteFailure(error);
      throw error;
    }
  }

  async #read(): Promise<string[]> {
    this.#mustRead = false;
    const differences = await this.#backend.read();
    this.#isTrusted = true;
    return differences;
  }

  /** Returns whether it was there. Ours is complete: from here on the other one only says the same a second time. What cannot go now, goes at the next pass. */
  async #removeOther(): Promise<boolean> {
    const other = this.#other;
    if (other === null) return false;
    try {
      const found = await other.removeAll();
      this.#other = null;
      if (found) this.#logger.info({ of: other.name }, 'removed the rules of the other back end');
      return found;
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
      this.#logger.error(
        { of: other.name, error: error.message },
        'cannot remove the rules of the other back end',
      );
      return true;
    }
  }

  #noteFailure(error: unknown): void {
    this.#isTrusted = false;
    this.#mustRead = true;
    this.#failures++;
    this.#failuresInARow++;
    this.#lastError = error instanceof Error ? error.message : String(error);
    this.#logger.error(
      { error: this.#lastError, retryInMs: this.status.retryInMs },
      'cannot write policy to the kernel',
    );
  }
}
