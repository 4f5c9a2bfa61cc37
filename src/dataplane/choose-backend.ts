/**
 * nftables or iptables, and what of others stands in the way of either.
 *
 *     auto:  somebody else uses FORWARD of iptables (Docker, ufw, an administrator) → iptables, whose ACCEPT stands before their drops
 *            else, where the kernel takes it                                        → nftables
 *
 * In: what the configuration says, what the kernel holds of others. Out: back ends; a reason and warnings in words. Never: a rule of
 * others touched; iptables instead of an nftables that was asked for.
 */
import type { Logger } from '../lib/logger.ts';
import type { NftBaseChain, NftRequest } from '../linux/nftables-port.ts';
import { KernelError, type Linux } from '../linux/ports.ts';
import { hashInRule } from '../policy/rule-hash.ts';
import { IptablesBackend } from './iptables-backend.ts';
import { NftBackend } from './nft-backend.ts';
import type { PolicyBackend } from './policy-backend.ts';

export type BackendChoice = 'auto' | 'nftables' | 'iptables';

export type BackendLinux = Pick<Linux, 'families' | 'ipsets' | 'iptables' | 'nftables'>;

type Kind = Exclude<BackendChoice, 'auto'>;

export interface Surroundings {
  readonly wanted: Kind;
  /** Why it is that one. */
  readonly reason: string;
  /** What drops packets of containers whatever we accept. */
  readonly notices: readonly string[];
}

/** What a table of our own is tried with; it is gone again before anybody sees it. */
const TRIAL_TABLE = 'netctl-trial';

export class Backends {
  readonly #linux: BackendLinux;
  readonly #choice: BackendChoice;
  readonly #options: { readonly keepFirst: boolean };
  readonly #logger: Logger;

  /** @param config `foreignFirst`: rules of others may stand above our jumps in iptables */
  constructor(
    linux: BackendLinux,
    config: { readonly policy: BackendChoice; readonly foreignFirst: boolean },
    logger: Logger,
  ) {
    this.#linux = linux;
    this.#choice = config.policy;
    this.#options = { keepFirst: !config.foreignFirst };
    this.#logger = logger;
  }

  /** @returns the one to use, and the other one, whose rules of an earlier time have to go once the first one stands */
  make(kind: Kind): { backend: PolicyBackend; other: PolicyBackend } {
    const nftables = new NftBackend(this.#linux);
    const iptables = new IptablesBackend(this.#linux, this.#logger, this.#options);
    return kind === 'nftables'
      ? { backend: nftables, other: iptables }
      : { backend: iptables, other: nftables };
  }

  /** Reads what others have in the kernel. */
  async look(): Promise<Surroundings> {
    // Of iptables-nft the list of base chains tells as much, without a program.
    const mustAsk =
      this.#choice === 'auto' || (this.#choice === 'nftables' && this.#linux.iptables.backend === 'legacy');
    const [inIptables, drops] = await Promise.all([
      mustAsk ? this.#othersInIptables() : [],
      this.#dropsAtForward(),
    ]);
    const { wanted, reason } = this.#choose(inIptables);
    const isOvercome = ({ family, table, chain }: NftBaseChain): boolean =>
      wanted === 'iptables' && family !== 'inet' && table === 'filter' && chain === 'FORWARD';
    const dropping = inIptables.filter(({ drops }) => drops && wanted === 'nftables');
    return {
      wanted,
      reason,
      notices: [
        ...drops
          .filter((drop) => !isOvercome(drop))
          .map(({ family, table, chain }) => notice(`chain ${chain} of nftables table ${family} ${table}`)),
        ...(this.#linux.iptables.backend === 'legacy' ? dropping : []).map(({ family }) =>
          notice(`chain FORWARD of iptables-legacy (IPv${family})`),
        ),
        ...(this.#linux.iptables.backend === 'nft' && this.#linux.iptables.hasLegacyRules()
          ? ['rules of iptables-legacy are loaded besides: what they drop is dropped']
          : []),
      ],
    };
  }

  #choose(inIptables: readonly { text: string }[]): Pick<Surroundings, 'wanted' | 'reason'> {
    if (this.#choice !== 'auto') return { wanted: this.#choice, reason: 'as configured' };
    if (inIptables.length > 0) {
      const texts = inIptables.map(({ text }) => text).join('; ');
      return { wanted: 'iptables', reason: `others use FORWARD of iptables (${texts})` };
    }
    const complaint = this.#complaintOfNftables();
    if (complaint !== null) return { wanted: 'iptables', reason: `nftables does not work: ${complaint}` };
    return { wanted: 'nftables', reason: 'nobody else uses FORWARD of iptables' };
  }

  /** Of each family in which somebody else has rules or a policy there. */
  async #othersInIptables() {
    const found = [];
    for (const family of this.#linux.families) {
      const saved = await this.#linux.iptables.save(family).catch(noneWithoutPrograms);
      const policy = /^:FORWARD (\S+)/m.exec(saved)?.[1] ?? 'ACCEPT';
      const rules = saved
        .split('\n')
        .filter((line) => line.startsWith('-A FORWARD ') && hashInRule(line) === null);
      if (policy === 'ACCEPT' && rules.length === 0) continue;
      const text = `IPv${family}: policy ${policy}, ${rules.length} rules`;
      found.push({ family, text, drops: policy !== 'ACCEPT' });
    }
    return found;
  }

  async #dropsAtForward(): Promise<readonly NftBaseChain[]> {
    try {
      return await this.#linux.nftables.dropsAtForward();
    } catch (error) {
      if (error instanceof KernelError) return [];
      throw error;
    }
  }

  /** What the kernel says against all that we need, made and removed in one transaction; null when it takes it. */
  #complaintOfNftables(): string | null {
    try {
      this.#linux.nftables.transact(
        this.#linux.families.flatMap((family): NftRequest[] => {
          const at = { family, table: TRIAL_TABLE } as const;
          const spec = { key: 'pair', prefixes: true, data: 'id' } as const;
          const hook = { type: 'filter', hook: 'forward', priority: 0 } as const;
          return [
            { ...at, kind: 'table-add' },
            { ...at, kind: 'set-add', set: 'pairs', spec },
            { ...at, kind: 'chain-add', chain: 'forward', hook },
            { ...at, kind: 'table-delete' },
          ];
        }),
      );
      return null;
    } catch (error) {
      if (error instanceof KernelError) return error.message;
      throw error;
    }
  }
}

function notice(chain: string): string {
  return `${chain} drops what it does not accept, whatever netctl accepts: let it accept what comes from and goes to nctl*`;
}

/** Without the programs nobody else uses them either. */
function noneWithoutPrograms(error: unknown): string {
  if (error instanceof KernelError) return '';
  throw error;
}
