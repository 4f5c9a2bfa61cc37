/**
 * Reads what `iptables-save -t filter` prints (pure).
 *
 * In: the text. Out: per chain of ours its rules' hashes, where our jumps stand, and which of our chains and sets are named by
 * whom. Never: a guess about a rule without our mark: it is foreign.
 */
import { chainPrefix } from '../policy/names.ts';
import type { Count } from '../policy/rule-counts.ts';
import { hashInRule } from '../policy/rule-hash.ts';

export interface SavedTable {
  /** Per chain of ours; null stands for a rule that is not ours. */
  readonly chains: ReadonlyMap<string, SavedChain>;
  /** Per built-in chain: the rules with our mark, and at which position (from 1) each stands. */
  readonly jumps: ReadonlyMap<string, readonly SavedJump[]>;
  /** Per built-in chain with a rule of ours: those of others before the last of ours. */
  readonly before: ReadonlyMap<string, readonly string[]>;
  /** Chains of ours that a foreign rule leads to. */
  readonly foreignTargets: ReadonlySet<string>;
}

export interface SavedChain {
  readonly hashes: readonly (string | null)[];
  readonly sets: ReadonlySet<string>;
}

export interface SavedJump {
  readonly hash: string;
  readonly position: number;
  /** What follows `-A <chain> `. */
  readonly body: string;
}

/** The counters of our chains' rules, from what `iptables-save -c` prints. */
export function parseCounts(text: string): Map<string, Count[]> {
  const counts = new Map<string, Count[]>();
  for (const [, packets, bytes, chain] of text.matchAll(/^\[(\d+):(\d+)\] -A (\S+) /gm)) {
    if (!chain!.startsWith(chainPrefix)) continue;
    const of = counts.get(chain!) ?? [];
    of.push({ packets: Number(packets), bytes: Number(bytes) });
    counts.set(chain!, of);
  }
  return counts;
}

export function parseSave(text: string): SavedTable {
  const chains = new Map<string, { hashes: (string | null)[]; sets: Set<string> }>();
  const jumps = new Map<string, SavedJump[]>();
  const foreignTargets = new Set<string>();
  const lengths = new Map<string, number>();
  const foreign = new Map<string, string[]>();
  const before = new Map<string, readonly string[]>();
  for (const line of text.split('\n')) {
    const declared = /^:(\S+) /.exec(line)?.[1];
    if (declared?.startsWith(chainPrefix)) chains.set(declared, { hashes: [], sets: new Set() });
    const chain = /^-A (\S+) /.exec(line)?.[1];
    if (chain === undefined) continue;
    const position = (lengths.get(chain) ?? 0) + 1;
    lengths.set(chain, position);
    const hash = hashInRule(line);
    const ours = chains.get(chain);
    if (ours !== undefined) {
      ours.hashes.push(hash);
      for (const [, set] of line.matchAll(/--match-set (\S+) /g)) ours.sets.add(set!);
    } else if (hash !== null) {
      jumps.set(chain, [
        ...(jumps.get(chain) ?? []),
        { hash, position, body: line.slice(`-A ${chain} `.length) },
      ]);
      before.set(chain, [...(foreign.get(chain) ?? [])]);
    } else {
      foreign.set(chain, [...(foreign.get(chain) ?? []), line]);
      const target = / -[jg] (\S+)$/.exec(line)?.[1];
      if (target?.startsWith(chainPrefix)) foreignTargets.add(target);
    }
  }
  return { chains, jumps, before, foreignTargets };
}
