/**
 * Why a macvlan endpoint's packet passes, or does not, in its container: the chains that stand there, interpreted.
 *
 * In: an endpoint, what an engine tells of its host. Out: an explanation. Never: a chain of the host's asked, which such packets do not meet.
 */
import { containerEnds, type OwnHost } from '../dataplane/container-ends.ts';
import { families, familyOf, hostCidr } from '../model/ip.ts';
import type { Endpoint } from '../model/records.ts';
import { compileContainer, containerEntries, ownExtraSet, ownSet } from '../policy/container-chains.ts';
import type { PolicyEngine } from '../policy/engine.ts';
import { Explainer, type Explanation, type Packet } from '../policy/explain.ts';
import type { PolicyOutput } from '../policy/output.ts';
import { setMembers } from '../policy/set-members.ts';
import { ToldLists } from '../policy/told-lists.ts';

export function explainContainer(
  engine: Pick<PolicyEngine, 'tellTo'>,
  endpoint: Endpoint,
  host: OwnHost,
  entry: keyof typeof containerEntries,
  packet: Packet,
): Explanation {
  const explainer = new Explainer();
  const lists = new ToldLists();
  const hear: PolicyOutput = {
    set: (name, spec) => explainer.set(name, spec),
    chain: (family, name, chain) => explainer.chain(family, name, chain),
    member(set, member, present) {
      explainer.member(set, member, present);
      lists.member(set, member, present);
    },
  };
  engine.tellTo(hear);
  for (const family of families) {
    const own = endpoint.addresses.filter((address) => familyOf(address) === family).map(hostCidr);
    const extra = setMembers(endpoint.extraSources).filter((each) => each.family === family);
    const sets = [
      [ownSet(family), [...own, ...extra.map(({ member }) => member)]],
      [ownExtraSet(family), extra.map(({ member }) => member)],
    ] as const;
    for (const [set, members] of sets) {
      hear.set(set, { type: 'net', family });
      for (const member of members) hear.member(set, member, true);
    }
    const ends = containerEnds(endpoint, host, family);
    const list = lists.listOf(endpoint.hostInterface, family);
    for (const chain of compileContainer(family, list, ends, extra.length > 0))
      hear.chain(family, chain.name, chain);
  }
  return explainer.judgeFrom(containerEntries[entry], packet);
}
