/**
 * nftables or iptables.
 *
 * In: what the configuration says. Out: the back end, and the one that an agent before may have used. Never:
 * a choice by what programs are installed, or iptables instead of an nftables that was asked for.
 */
import type { Logger } from '../lib/logger.ts';
import type { Linux } from '../linux/ports.ts';
import { IptablesBackend } from './iptables-backend.ts';
import { NftBackend } from './nft-backend.ts';
import type { PolicyBackend } from './policy-backend.ts';

export type BackendChoice = 'auto' | 'nftables' | 'iptables';

export type BackendLinux = Pick<Linux, 'families' | 'ipsets' | 'iptables' | 'nftables'>;

/** @returns the one to use, and the other one, whose rules of an earlier agent have to go once the first one stands */
export function chooseBackend(
  linux: BackendLinux,
  /** `auto` is iptables: see docs/decisions/0013-nftables.md, "auto". */
  choice: BackendChoice,
  logger: Logger,
): { backend: PolicyBackend; other: PolicyBackend } {
  const nftables = new NftBackend(linux);
  const iptables = new IptablesBackend(linux, logger);
  if (choice === 'nftables') return { backend: nftables, other: iptables };
  return { backend: iptables, other: nftables };
}
