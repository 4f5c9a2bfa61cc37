/**
 * Policy in the kernel: what the engine says becomes sets and chains, and stays so.
 *
 *     member of a set that is there   → over netlink, before flush() returns; no program, no dump
 *     anything else                   → 1. sets are made and filled  2. chains and jumps, one program per family
 *                                       3. sets that no rule names any more are destroyed
 *
 * In: the calls of PolicyOutput. Out: kernel writes by the ports. Never: a write before start(); a flush that resolves while the
 * kernel lacks what was asked; a right object rewritten.
 */
import { NetctlError } from '../lib/errors.ts';
import type { Logger } from '../lib/logger.ts';
import type { IpSetMember, Linux } from '../linux/ports.ts';
import type { Family } from '../model/ip.ts';
import type { Chain } from '../policy/chain.ts';
import type { PolicyOutput, SetSpec } from '../policy/output.ts';
import { IpsetReconciler } from './ipset-reconciler.ts';
import { IptablesReconciler } from './iptables-reconciler.ts';

export interface PolicyStatus {
  readonly inSync: boolean;
  /** Of the last attempt, if it failed. */
  readonly lastError: string | null;
  /** When to call resync() after a failure; null while there is none. Doubles from 1 s to 1 min. */
  readonly retryInMs: number | null;
  /** Since the start. */
  readonly writes: {
    readonly ipsetRequests: number;
    readonly iptablesRuns: number;
    readonly repairs: number;
    readonly failures: number;
  };
}

const FIRST_RETRY_MS = 1000;
const LAST_RETRY_MS = 60_000;

export class PolicyDataplane implements PolicyOutput {
  readonly #logger: Logger;
  readonly #ipsets: IpsetReconciler;
  /** One for each family that the kernel has. */
  readonly #tables: ReadonlyMap<Family, IptablesReconciler>;
  #isStarted = false;
  /** What we believe to be in the kernel was read, and no write has failed since. */
  #isTrusted = false;
  /** The next pass reads. */
  #mustRead = true;
  #running: Promise<string[]> | null = null;
  #next: Promise<string[]> | null = null;
  #lastError: string | null = null;
  #failuresInARow = 0;
  #failures = 0;
  #repairs = 0;

  constructor(linux: Pick<Linux, 'families' | 'ipsets' | 'iptables'>, logger: Logger) {
    this.#logger = logger;
    this.#ipsets = new IpsetReconciler(linux.ipsets, logger);
    this.#tables = new Map(
      linux.families.map((family) => [family, new IptablesReconciler(linux.iptables, family)]),
    );
  }

  set(name: string, spec: SetSpec | null): void {
    this.#ipsets.set(name, spec);
  }

  member(set: string, member: IpSetMember, present: boolean): void {
    this.#ipsets.member(set, member, present);
  }

  chain(family: Family, name: string, chain: Chain | null): void {
    this.#tables.get(family)?.chain(name, chain);
  }

  /**
   * To be called once the picture is complete: takes over what is right, writes what is missing, removes what is left over.
   * @throws KernelError; then resync() is to be called again later
   */
  async start(): Promise<void> {
    this.#isStarted = true;
    await this.#run();
    this.#logger.info({ ...this.status.writes }, 'policy is in the kernel');
  }

  /** Resolves when everything asked so far is in the kernel. @throws KernelError; what was asked is kept for the next attempt */
  async flush(): Promise<void> {
    this.#requireStart();
    if (this.#isTrusted) this.#writeMembers();
    if (!this.#isSettled) await this.#run();
  }

  /** Reads everything again and repairs it. Returns what others had changed, in words. @throws KernelError */
  async resync(): Promise<string[]> {
    this.#requireStart();
    const isRepair = this.#isTrusted;
    this.#mustRead = true;
    const differences = await this.#run();
    if (!isRepair || differences.length === 0) return [];
    this.#repairs += differences.length;
    this.#logger.warn(
      { repaired: differences },
      'policy in the kernel was changed by others and is repaired',
    );
    return differences;
  }

  get status(): PolicyStatus {
    const retryMs = Math.min(FIRST_RETRY_MS * 2 ** (this.#failuresInARow - 1), LAST_RETRY_MS);
    return {
      inSync: this.#isSettled,
      lastError: this.#lastError,
      retryInMs: this.#failuresInARow > 0 ? retryMs : null,
      writes: {
        ipsetRequests: this.#ipsets.requests,
        iptablesRuns: this.#allTables.reduce((runs, table) => runs + table.writes, 0),
        repairs: this.#repairs,
        failures: this.#failures,
      },
    };
  }

  /** Everything asked is in the kernel. True also while a resync reads. */
  get #isSettled(): boolean {
    return this.#isTrusted && this.#ipsets.isClean && this.#allTables.every((table) => table.isClean);
  }

  get #allTables(): IptablesReconciler[] {
    return [...this.#tables.values()];
  }

  #requireStart(): void {
    if (!this.#isStarted) throw new NetctlError('BUG', 'policy must not be written before start()');
  }

  /** The short way. Where it fails (somebody destroyed a set), the pass that follows reads and repairs. */
  #writeMembers(): void {
    try {
      this.#ipsets.writeMembers();
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
      this.#ipsets.write();
      await allDone(this.#allTables.map((table) => table.write()));
      this.#ipsets.destroyUnwanted((set) => this.#allTables.some((table) => table.namesSet(set)));
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
    const differences = await allDone([...this.#allTables.map((table) => table.read()), this.#ipsets.read()]);
    this.#isTrusted = true;
    return differences.flat();
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

/** Waits for all, also when one fails: nothing of this pass may run into the next one. */
async function allDone<T>(promises: readonly Promise<T>[]): Promise<T[]> {
  await Promise.allSettled(promises);
  return Promise.all(promises);
}
