/**
 * What a change of policy would change: which pairs of parties get another answer, for which traffic (pure).
 *
 *     definitions before ─► PolicyEngine ─► Explainer ─┐
 *     definitions after  ─► PolicyEngine ─► Explainer ─┴─► the pairs whose chains differ, packet by packet
 *
 * In: profiles, policies and address sets before and after; the endpoints of all hosts. Out: changed pairs. Never: work without bound:
 * parties stand for many endpoints, pairs whose chains are the same are not looked at, and after a number of packets it ends and says so.
 */
import { type Family, families, hostCidr } from '../model/ip.ts';
import { PolicyEngine } from './engine.ts';
import { Explainer } from './explain.ts';
import {
  type ImpactEndpoint,
  type Member,
  type Party,
  type PolicyDefinitions,
  partiesOf,
  rulesOf,
} from './impact-parties.ts';
import { type Traffic, trafficOf, trafficText } from './impact-traffic.ts';
import { chains } from './names.ts';

export interface ImpactChange {
  readonly source: Pick<Party, 'name' | 'endpoints' | 'examples'>;
  readonly destination: Pick<Party, 'name' | 'endpoints' | 'examples'>;
  readonly families: Family[];
  /** `tcp 22,80, udp` */
  readonly traffic: string;
  readonly before: 'allowed' | 'denied';
  readonly after: 'allowed' | 'denied';
}

export interface Impact {
  readonly changes: readonly ImpactChange[];
  /** Changes beyond those that are listed. */
  readonly more: number;
  /** False where it was too much to look at all. */
  readonly complete: boolean;
}

const LISTED = 200;
const PACKETS = 100_000;
/** Between two breaths of the caller. */
const PACKETS_AT_ONCE = 200;
const ELSEWHERE = 'elsewhere';

/** To be gone through to its end; each step is about a millisecond of work, so that others get their turn. */
export function* impactOf(
  before: PolicyDefinitions,
  after: PolicyDefinitions,
  endpoints: readonly ImpactEndpoint[],
): Generator<void, Impact> {
  const parties = partiesOf(before, after, endpoints);
  yield;
  const [now, then] = [explainerOf(before, parties), explainerOf(after, parties)];
  const rules = [...rulesOf(before), ...rulesOf(after)];
  const changes = new Map<string, ImpactChange>();
  let packets = 0;
  for (const family of families) {
    const kinds = trafficOf(rules, family);
    const differs = differenceOf(now, then, family);
    for (const [source, from, destination, to] of pairsOf(parties, family)) {
      if (!differs(from, to)) continue;
      const answers = new Map<string, Set<Traffic>>();
      for (const kind of kinds) {
        if (++packets > PACKETS) return finish(changes, false);
        if (packets % PACKETS_AT_ONCE === 0) yield;
        const [was, willBe] = [now, then].map((chains) => answerOf(chains, from, to, family, kind));
        if (was === willBe) continue;
        const key = `${was} ${willBe}`;
        if (!answers.has(key)) answers.set(key, new Set());
        answers.get(key)!.add(kind);
      }
      for (const [key, which] of answers) {
        const [was, willBe] = key.split(' ') as ['allowed' | 'denied', 'allowed' | 'denied'];
        const traffic = trafficText(kinds, which);
        const id = JSON.stringify([parties.indexOf(source), parties.indexOf(destination), traffic, key]);
        const known = changes.get(id);
        if (known !== undefined) known.families.push(family);
        else
          changes.set(id, {
            source: shown(source),
            destination: shown(destination),
            families: [family],
            traffic,
            before: was,
            after: willBe,
          });
      }
    }
  }
  return finish(changes, true);
}

function finish(changes: ReadonlyMap<string, ImpactChange>, complete: boolean): Impact {
  const all = [...changes.values()];
  return { changes: all.slice(0, LISTED), more: Math.max(0, all.length - LISTED), complete };
}

function shown({ name, endpoints, examples }: Party): ImpactChange['source'] {
  return { name, endpoints, examples };
}

/** Of endpoints with each other and with what is outside; two of one party where it has two. */
function* pairsOf(parties: readonly Party[], family: Family): Generator<[Party, Member, Party, Member]> {
  for (const source of parties) {
    for (const destination of parties) {
      if (source.endpoints === 0 && destination.endpoints === 0) continue;
      const from = source.members[0]!;
      const to = destination.members[source === destination ? 1 : 0];
      if (to === undefined || !from.addresses[family] || !to.addresses[family]) continue;
      yield [source, from, destination, to];
    }
  }
}

/** All endpoints on one host: a pair on two hosts meets the same outbound and inbound rules, one after the other. */
function explainerOf(definitions: PolicyDefinitions, parties: readonly Party[]): Explainer {
  const explainer = new Explainer();
  const engine = new PolicyEngine({ endpointToHost: 'drop' }, explainer);
  for (const [name, profile] of definitions.profiles) engine.onProfile(name, profile);
  for (const [name, policy] of definitions.policies) engine.onPolicy(name, policy);
  for (const [name, nets] of definitions.addressSets) engine.onAddressSet(name, nets);
  for (const { hostInterface, endpoint } of parties.flatMap(({ members }) => members))
    if (endpoint !== null) engine.onEndpoint(hostInterface, { ...endpoint, local: true, hostInterface });
  return explainer;
}

/** Whether the chains, with the sets that they name, differ for a pair. */
function differenceOf(
  now: Explainer,
  then: Explainer,
  family: Family,
): (from: Member, to: Member) => boolean {
  const known = new Map<string, boolean>();
  const differs = (member: Member, dispatcher: string): boolean => {
    if (member.endpoint === null) return false;
    const key = `${dispatcher} ${member.hostInterface}`;
    let result = known.get(key);
    if (result === undefined) {
      const pair = `${hostCidr(member.addresses[family]!)},${member.hostInterface}`;
      const [a, b] = [now, then].map((each) => each.textBehind(family, dispatcher, chains.allowed, pair));
      result = a !== b;
      known.set(key, result);
    }
    return result;
  };
  return (from, to) => differs(from, chains.from) || differs(to, chains.to);
}

function answerOf(
  chains: Explainer,
  from: Member,
  to: Member,
  family: Family,
  { protocol, sourcePort, destinationPort, icmp }: Traffic,
): 'allowed' | 'denied' {
  const { verdict } = chains.judge('FORWARD', {
    source: from.addresses[family]!,
    destination: to.addresses[family]!,
    inInterface: from.hostInterface || ELSEWHERE,
    outInterface: to.hostInterface || ELSEWHERE,
    protocol,
    sourcePort,
    destinationPort,
    icmp,
  });
  return verdict === 'drop' ? 'denied' : 'allowed';
}
