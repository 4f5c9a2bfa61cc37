/**
 * Host endpoints of this node → chains between the kernel's INPUT and OUTPUT and their lists (pure, in memory).
 *
 *     INPUT ──► nctl-host-in ──► nctl-hi-<list>       OUTPUT ──► nctl-host-out ──► nctl-ho-<list>
 *
 * What their rules allow goes on to the host's own rules; netctl only takes away.
 *
 * In: host endpoints, the policies that pick each, the failsafe ports. Out: chains, while there is a host endpoint. Never: an answer
 * of a known connection, neighbour discovery or a failsafe port cut off.
 */

import type { HostEndpoint } from '../model/host-endpoint.ts';
import { type Family, families } from '../model/ip.ts';
import type { PortRange } from '../model/port-range.ts';
import { ICMPV6 } from '../model/protocol.ts';
import type { ProtocolPort } from '../model/protocol-port.ts';
import type { Side } from '../model/rule.ts';
import { type Chain, type ChainRule, type Condition, goto, rule, type Verdict } from './chain.ts';
import type { List, ListTable } from './list-table.ts';
import { chains, listChains } from './names.ts';
import type { ToldChains } from './told-chains.ts';

/** Ports that no policy of a host closes. */
export interface Failsafe {
  readonly inbound: readonly ProtocolPort[];
  readonly outbound: readonly ProtocolPort[];
}

interface State {
  readonly endpoint: HostEndpoint;
  /** One for each family. */
  readonly lists: readonly List[];
}

const RETURN: Verdict = { kind: 'return' };
const DISCOVERY = [133, 134, 135, 136];
const SLOTS = 15;

export class HostEndpoints {
  readonly #lists: ListTable;
  readonly #chains: ToldChains;
  readonly #failsafe: Failsafe;
  readonly #states = new Map<string, State>();

  constructor(lists: ListTable, told: ToldChains, failsafe: Failsafe) {
    this.#lists = lists;
    this.#chains = told;
    this.#failsafe = failsafe;
  }

  has(name: string): boolean {
    return this.#states.has(name);
  }

  /** @param policies that pick it, sorted by name */
  set(name: string, endpoint: HostEndpoint | null, policies: readonly string[]): void {
    const old = this.#states.get(name);
    if (endpoint === null) this.#states.delete(name);
    else this.#states.set(name, { endpoint, lists: this.#use(endpoint, policies) });
    this.#tell();
    for (const list of old?.lists ?? []) this.#lists.giveBack(list);
  }

  /** After its policies have changed. */
  relist(name: string, policies: readonly string[]): void {
    this.set(name, this.#states.get(name)?.endpoint ?? null, policies);
  }

  #use({ profiles }: HostEndpoint, policies: readonly string[]): List[] {
    return families.map((family) => this.#lists.use({ kind: 'host', profiles, policies }, family));
  }

  #tell(): void {
    const { inbound, outbound } = this.#failsafe;
    for (const family of families) {
      if (this.#states.size === 0) {
        for (const name of [chains.hostIn, chains.hostOut]) this.#chains.untell(family, name);
      } else {
        this.#chains.tell(family, this.#chain(family, chains.hostIn, 'src', inbound, listChains.hostInbound));
        this.#chains.tell(
          family,
          this.#chain(family, chains.hostOut, 'dst', outbound, listChains.hostOutbound),
        );
      }
    }
  }

  #chain(
    family: Family,
    name: string,
    side: Side,
    failsafe: readonly ProtocolPort[],
    listChain: (list: string) => string,
  ): Chain {
    const states = [...this.#states].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, state]) => state);
    const to = ({ endpoint, lists }: State): ChainRule => {
      const conditions = endpoint.interface === '*' ? [] : [onInterface(side, endpoint.interface)];
      return rule(conditions, goto(listChain(lists[0]!.id)), `host interface ${endpoint.interface}`);
    };
    const [all] = states.filter(({ endpoint }) => endpoint.interface === '*');
    return {
      name,
      rules: [
        rule([onInterface(side, 'lo')], RETURN, 'loopback'),
        rule([{ kind: 'connection', states: ['RELATED', 'ESTABLISHED'] }], RETURN, 'known connection'),
        ...(family === 6 ? DISCOVERY.map(discovery) : []),
        ...failsafeRules(failsafe),
        ...states.filter(({ endpoint }) => endpoint.interface !== '*').map(to),
        all === undefined ? rule([], RETURN, 'no host endpoint') : to(all),
      ],
    };
  }
}

function onInterface(side: Side, pattern: string): Condition {
  return { kind: 'interface', side, pattern, negated: false };
}

function discovery(type: number): ChainRule {
  return rule(
    [
      { kind: 'protocol', protocol: ICMPV6, negated: false },
      { kind: 'icmp', family: 6, type, code: null, negated: false },
    ],
    RETURN,
    'neighbour discovery',
  );
}

function failsafeRules(failsafe: readonly ProtocolPort[]): ChainRule[] {
  return [...Map.groupBy(failsafe, ({ protocol }) => protocol)].flatMap(([protocol, ports]) => {
    const ranges = ports.map(({ port }): PortRange => ({ from: port, to: port }));
    const chunks = Array.from({ length: Math.ceil(ranges.length / SLOTS) }, (_, i) =>
      ranges.slice(i * SLOTS, (i + 1) * SLOTS),
    );
    return chunks.map((chunk) =>
      rule(
        [
          { kind: 'protocol', protocol, negated: false },
          { kind: 'ports', side: 'dst', ports: chunk, negated: false },
        ],
        RETURN,
        'failsafe',
      ),
    );
  });
}
