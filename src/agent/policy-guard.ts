/**
 * Policy beside others on the host: which back end enforces it, and what is done when others change rules.
 *
 *     start, every resync, rules of others changed → look around → another back end, or a warning
 *     our own rules changed by others              → read back and repair
 *
 * In: what the kernel tells and holds of others. Out: calls of PolicyDataplane, warnings for the status. Never: more than one look at the
 * rules of others in two seconds, nor more than a tenth of the time spent on looking, because some program changes rules all the time (what
 * it does may even be told as lost); a change that nobody looks at afterwards.
 */
import type { Backends, Surroundings } from '../dataplane/choose-backend.ts';
import { nftTable } from '../dataplane/nft-reconciler.ts';
import type { PolicyDataplane } from '../dataplane/policy-dataplane.ts';
import type { Clock } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import { soon } from '../lib/soon.ts';
import type { Linux } from '../linux/ports.ts';
import type { PolicyEngine } from '../policy/engine.ts';

/** From the first change by others to the look at it. Of our own rules, at once: until then something may pass. */
const delayMilliseconds = 100;
const ownDelayMilliseconds = 5;
const pauseMilliseconds = 2000;

export interface PolicyGuardParts {
  readonly linux: Pick<Linux, 'watchForeignRules'>;
  readonly backends: Backends;
  /** As yet with nftables. */
  readonly policy: PolicyDataplane;
  readonly engine: Pick<PolicyEngine, 'tellTo'>;
  readonly clock: Clock;
  readonly logger: Logger;
  report(error: unknown): void;
}

export class PolicyGuard {
  readonly #parts: PolicyGuardParts;
  #surroundings: Surroundings | null = null;
  #stops: (() => void)[] = [];

  constructor(parts: PolicyGuardParts) {
    this.#parts = parts;
  }

  /** Why the back end is the one it is; null before the start. */
  get reason(): string | null {
    return this.#surroundings?.reason ?? null;
  }

  /** What keeps packets of containers from passing, or stands before our rules. */
  get notices(): readonly string[] {
    return [...(this.#surroundings?.notices ?? []), ...this.#parts.policy.status.notices];
  }

  /** Chooses the back end, brings policy into the kernel, and watches from then on. @throws KernelError */
  async start(): Promise<void> {
    const { linux, policy } = this.#parts;
    await this.look();
    const ours = this.#soon(ownDelayMilliseconds, 0, async () => void (await policy.resync()));
    const others = this.#soon(delayMilliseconds, pauseMilliseconds, async () => {
      await this.look();
      if (policy.status.backend === 'iptables-nft') await policy.resync();
    });
    this.#stops.push(policy.watch(ours), linux.watchForeignRules(nftTable, others));
    await policy.start();
  }

  stop(): void {
    for (const stop of this.#stops) stop();
  }

  /** Reads what others have in the kernel; where they keep nftables from working, iptables takes over. */
  async look(): Promise<void> {
    const { backends, policy, engine, logger } = this.#parts;
    const now = await backends.look();
    const before = this.#surroundings;
    // Back to nftables only at a start: who has used iptables is likely to do so again.
    const mustSwitch = before === null || (before.wanted === 'nftables' && now.wanted === 'iptables');
    this.#surroundings = mustSwitch ? now : { ...before, notices: now.notices };
    for (const notice of now.notices)
      if (!before?.notices.includes(notice)) logger.warn({ notice }, 'others stand in the way');
    if (!mustSwitch) return;
    logger.info({ backend: now.wanted, reason: now.reason }, 'chose what enforces policy');
    if (before === null && now.wanted === 'nftables') return;
    await policy.switchTo(backends.make(now.wanted), (output) => engine.tellTo(output));
  }

  /** A function that asks for the work. @param delayMs until it is done @param pauseMs until it is done again */
  #soon(delayMs: number, pauseMs: number, work: () => Promise<void>): () => void {
    const report = (error: unknown): void => this.#parts.report(error);
    const { call, cancel } = soon(this.#parts.clock, { delayMs, pauseMs, work, report });
    this.#stops.push(cancel);
    return call;
  }
}
