/**
 * Collecting leaks: an address whose endpoint is gone is freed when it was seen leaked twice, a grace time apart, unchanged, and its
 * node could have said otherwise.
 *
 * In: what the store says, what the nodes say, the monotonic time. Out: which leaks are confirmed, each with its evidence and its
 * transaction; which wait, and for what. Never: an address of a live endpoint or of a node that is not heard; anything at all on a
 * picture that suddenly lost much, until an operator confirms it.
 */
import type { Address } from '../model/ip.ts';
import type { Revision } from '../store/store.ts';
import { check, type Finding } from './check.ts';
import type { Step } from './draft.ts';
import { freeLeaked } from './repair.ts';
import type { IpamSnapshot } from './snapshot.ts';

export interface CollectOptions {
  /** Between the first and the last look at a leak. */
  readonly graceMilliseconds: number;
  /** Share of the endpoints that may be gone since the last look without an operator's word. */
  readonly largestLoss: number;
}

export const defaultCollectOptions: CollectOptions = { graceMilliseconds: 15 * 60_000, largestLoss: 0.25 };

/** A few may go at once, whatever their share. */
const harmlessLoss = 3;

export interface Evidence {
  /** Nodes of which all links are seen, so that what is not reported is not there. */
  readonly reachable: ReadonlySet<string>;
  /** Addresses on links that are seen, whatever the store says. */
  readonly live: ReadonlySet<Address>;
}

export interface Look {
  readonly snapshot: IpamSnapshot;
  readonly evidence: Evidence;
  readonly now: Date;
  /** By which it is judged what is late: not ahead of `now`, and not because somebody set the clock. */
  readonly steadyNow: Date;
  /** Milliseconds of a clock that does not jump. */
  readonly monotonic: number;
  /** An operator has confirmed that the loss is real. */
  readonly confirmed: boolean;
}

export interface Leak {
  readonly finding: Finding;
  readonly address: Address;
  readonly node: string | null;
  /** `confirmed`: may be freed. */
  readonly verdict: 'confirmed' | 'waiting' | 'live' | 'unreachable';
  /** What is known, as a sentence. */
  readonly evidence: string;
  /** Frees it, if nothing has changed since; null unless confirmed. */
  readonly step: Step | null;
}

export interface Collection {
  readonly leaks: readonly Leak[];
  /** Why nothing is freed this time, or null. */
  readonly held: string | null;
}

export class Collector {
  readonly #options: CollectOptions;
  readonly #suspects = new Map<Address, { readonly modified: Revision; readonly since: number }>();
  /** Endpoints at the last look whose picture was credible; null before the first. */
  #endpoints: number | null = null;

  constructor(options: CollectOptions = defaultCollectOptions) {
    this.#options = options;
  }

  /** One look; a leak needs two of them. */
  look(look: Look): Collection {
    const count = look.snapshot.endpoints.size;
    const before = this.#endpoints;
    const lost = before === null ? 0 : before - count;
    if (
      before !== null &&
      !look.confirmed &&
      lost > harmlessLoss &&
      lost > before * this.#options.largestLoss
    ) {
      this.#suspects.clear();
      return {
        leaks: [],
        held: `${lost} of ${before} endpoints are gone since the last look: confirm that this is real`,
      };
    }
    this.#endpoints = count;
    const findings = check(look.snapshot, look.steadyNow).filter(({ kind }) => kind === 'leaked');
    const leaks = findings.map((finding) => this.#judge(finding, look));
    const leaked = new Set(findings.map(({ address }) => address));
    for (const address of this.#suspects.keys()) if (!leaked.has(address)) this.#suspects.delete(address);
    return { leaks, held: null };
  }

  #judge(finding: Finding, { snapshot, evidence, now, monotonic }: Look): Leak {
    const address = finding.address!;
    const { value, modified } = snapshot.addresses.get(address)!;
    const leak = (verdict: Leak['verdict'], why: string, step: Step | null = null): Leak => {
      if (verdict === 'live' || verdict === 'unreachable') this.#suspects.delete(address);
      return { finding, address, node: value.node, verdict, evidence: `${finding.message}; ${why}`, step };
    };
    if (evidence.live.has(address)) return leak('live', 'but a link has it');
    if (value.node !== null && !evidence.reachable.has(value.node))
      return leak('unreachable', `only the agent of node ${value.node} can tell whether it still uses it`);
    const suspect = this.#suspects.get(address);
    if (suspect?.modified !== modified) {
      this.#suspects.set(address, { modified, since: monotonic });
      return leak('waiting', 'seen for the first time');
    }
    const seconds = Math.floor((monotonic - suspect.since) / 1000);
    const seen = `seen so for ${seconds} s, and node ${value.node ?? '(none)'} has no such link`;
    if (monotonic - suspect.since < this.#options.graceMilliseconds) return leak('waiting', seen);
    return leak('confirmed', seen, freeLeaked(snapshot, address, now).step);
  }
}
