/**
 * The host that the policy benchmarks speak of: endpoints with three profiles each, ten rules in and ten out per profile.
 *
 * In: how many endpoints, how many distinct lists of profiles among them, how many members a tag has. Out: profiles and endpoints
 * as values, told to an engine here, rendered as Felix does in felix.ts. Never: a rule before the 25th that applies to the
 * connections that are measured (all endpoints to all, TCP port 5201).
 */
import { createHash } from 'node:crypto';
import { type Address, addressFrom, addressValue, parseAddress } from '../src/model/ip.ts';
import { type Profile, profileFromJson } from '../src/model/profile.ts';
import type { PolicyEndpoint } from '../src/policy/endpoint-members.ts';
import type { PolicyEngine } from '../src/policy/engine.ts';

export interface World {
  readonly profiles: ReadonlyMap<string, Profile>;
  /** Of this host. */
  readonly endpoints: ReadonlyMap<string, PolicyEndpoint>;
  /** Of other hosts; they carry the tags that the rules name. */
  readonly others: ReadonlyMap<string, PolicyEndpoint>;
}

export const servedPort = 5201;
const RULES = 10;
/** Of all 30 rules of an endpoint, the one that applies, from 0. */
const APPLIES = 24;
const first = addressValue(parseAddress('10.65.0.1'));
const firstOther = addressValue(parseAddress('10.128.0.1'));

export function addressOf(index: number): Address {
  return addressFrom(4, first + BigInt(index));
}

/** As the agent names them: no two begin alike by more than chance. */
export function interfaceOf(index: number): string {
  return `nctl${createHash('sha256').update(`${index}`).digest('hex').slice(0, 11)}`;
}

/** @param lists how many distinct lists of three profiles @param members how many endpoints elsewhere carry each tag of a rule */
export function makeWorld({
  endpoints,
  lists,
  members = 10,
}: {
  endpoints: number;
  lists: number;
  members?: number;
}): World {
  const profiles = new Map<string, Profile>();
  for (let list = 0; list < lists; list++)
    for (let part = 0; part < 3; part++)
      profiles.set(profileName(list, part), makeProfile(profileName(list, part), part));
  for (let tag = 0; tag < RULES; tag++) {
    const name = tagName(tag);
    const none = { id: name, tags: [name], inbound_rules: [], outbound_rules: [] };
    profiles.set(name, profileFromJson(none, name));
  }
  return {
    profiles,
    endpoints: new Map(
      Array.from({ length: endpoints }, (_, i) => [
        `here/${i}`,
        {
          local: true,
          hostInterface: interfaceOf(i),
          addresses: [addressOf(i)],
          profiles: [0, 1, 2].map((part) => profileName(i % lists, part)),
        },
      ]),
    ),
    others: new Map(Array.from({ length: members * RULES }, (_, i) => [`there/${i}`, other(i, i % RULES)])),
  };
}

/** One on another host, with the tag of a rule. */
export function other(index: number, tag: number): PolicyEndpoint {
  const addresses = [addressFrom(4, firstOther + BigInt(index))];
  return { local: false, hostInterface: interfaceOf(index), addresses, profiles: [tagName(tag)] };
}

export function tell(engine: PolicyEngine, { profiles, endpoints, others }: World): void {
  for (const [name, profile] of profiles) engine.onProfile(name, profile);
  for (const [id, endpoint] of others) engine.onEndpoint(id, endpoint);
  for (const [id, endpoint] of endpoints) engine.onEndpoint(id, endpoint);
}

function profileName(list: number, part: number): string {
  return `list${list}-part${part}`;
}

function tagName(tag: number): string {
  return `tag${tag}`;
}

/** The tags are carried elsewhere; `all`, which the rule that applies names, by every endpoint here. */
function makeProfile(name: string, part: number): Profile {
  const rules = (side: 'src' | 'dst') =>
    Array.from({ length: RULES }, (_, i) => {
      const applies = part * RULES + i === APPLIES;
      return {
        action: 'allow',
        protocol: 'tcp',
        [`${side}_tag`]: applies ? 'all' : tagName(i),
        dst_ports: [applies ? servedPort : 1000 + i],
      };
    });
  return profileFromJson(
    {
      id: name,
      tags: part === 0 ? ['all'] : [],
      inbound_rules: rules('src'),
      outbound_rules: rules('dst'),
    },
    name,
  );
}
