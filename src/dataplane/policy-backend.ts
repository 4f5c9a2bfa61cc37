/**
 * What enforces policy in the kernel: the port between PolicyDataplane and the two ways to do it.
 *
 * In: the calls of PolicyOutput; when to read and to write. Out: kernel writes. Never: a decision about when.
 */
import type { Chain, ChainRule } from '../policy/chain.ts';
import type { PolicyOutput } from '../policy/output.ts';
import type { ChainCounts } from '../policy/rule-counts.ts';

export interface PolicyBackend extends PolicyOutput {
  readonly name: 'nftables' | 'iptables-nft' | 'iptables-legacy';
  /** Everything asked is in the kernel, as far as we know it. */
  readonly isClean: boolean;
  /** What has been done, since the start. */
  readonly counters: Readonly<Record<string, number>>;
  /** Brings the members of sets that are there up to date, before it returns. @throws KernelError; then it must read */
  writeMembers(): void;
  /** Returns what differs from what we knew, in words. @throws KernelError */
  read(): Promise<string[]>;
  /** The last read missed a whole table of ours; only of nftables is that told. */
  readonly lackedTable: boolean;
  /** @throws KernelError; then it must read */
  write(): Promise<void>;
  /** What of others stands before ours, in words. */
  readonly notices: readonly string[];
  /** Anything of ours is in the kernel. @throws KernelError */
  isThere(): Promise<boolean>;
  /** The rules as the kernel has them: some of the chain's may be one there. */
  rulesOf(chain: Chain): readonly ChainRule[];
  /** The kernel's counters, for the rules that `rulesOf` tells of each chain. @throws KernelError */
  counts(): Promise<ChainCounts>;
  /** Tells of changes by others, as far as the kernel tells of them. Returns the function that stops it. */
  watch(onForeignChange: () => void): () => void;
  /** Removes all that an earlier agent with this back end has left. Returns whether there was anything. @throws KernelError */
  removeAll(): Promise<boolean>;
}
