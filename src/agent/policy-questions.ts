/**
 * Questions about policy: who may reach whom (confirmed by a packet where asked), and what a change would change.
 *
 * In: the store, a question. Out: answers worked out anew from the records. Never: a write to the store, nor the thread held for long.
 */
import { randomInt } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';
import type { Linux } from '../linux/ports.ts';
import { addressSetFromJson } from '../model/address-set.ts';
import type { Address } from '../model/ip.ts';
import { endpointKey, hostEndpointKey, parseKey } from '../model/keys.ts';
import { policyFromJson, salvagePolicy } from '../model/policy.ts';
import { parseProfileRecord } from '../model/profile.ts';
import { endpointSchema } from '../model/records.ts';
import { type Impact, impactOf } from '../policy/impact.ts';
import type { ImpactEndpoint, PolicyDefinitions } from '../policy/impact-parties.ts';
import type { Entry, Json, Store } from '../store/store.ts';
import type { Config } from './config.ts';
import { policyOptions } from './policy-options.ts';
import { type ProbeAnswer, probe } from './probe.ts';
import { wayOut } from './way-out.ts';
import { clientPort, Why, type WhyAnswer, type WhyQuery } from './why.ts';

export class PolicyQuestions {
  readonly #store: Store;
  readonly #config: Config;
  readonly #parts: ConstructorParameters<typeof PolicyQuestions>[2];

  /** @param parts for probes; `backend`: what enforces policy on this host now */
  constructor(
    store: Store,
    config: Config,
    parts: {
      readonly linux: Pick<Linux, 'openNetns' | 'openRouting' | 'tracePacket'>;
      readonly bootId: string;
      backend(): string;
    },
  ) {
    this.#store = store;
    this.#config = config;
    this.#parts = parts;
  }

  /** @param isProbed a real packet is to confirm it @throws NOT_FOUND, CONFLICT, INVALID */
  async why(query: WhyQuery, isProbed = false): Promise<WhyAnswer & { readonly probe: ProbeAnswer | null }> {
    const { entries } = await this.#store.list('');
    const { name: node } = this.#config.node;
    // A connection that was there before would be known, whatever the rules say of new ones.
    const sourcePort = isProbed ? randomInt(clientPort, clientPort + 10_000) : clientPort;
    const why = new Why(entries, node, policyOptions(this.#config), await this.#waysOut(entries));
    const answer = why.answer({ ...query, sourcePort });
    if (!isProbed) return { ...answer, probe: null };
    const { endpoint: id } = answer.source;
    const record = entries.find(({ key }) => id !== null && key === endpointKey(node, id));
    const endpoint = record === undefined ? null : endpointSchema.parse(record.value);
    const parts = {
      linux: this.#parts.linux,
      node,
      backend: this.#parts.backend(),
      bootId: this.#parts.bootId,
    };
    return { ...answer, probe: await probe(parts, answer, endpoint, query.protocol, sourcePort) };
  }

  /** Only what host endpoints name depends on it, and the table may be long. */
  async #waysOut(entries: readonly Entry[]): Promise<(address: Address) => string | null> {
    const isOwn = ({ key }: Entry): boolean => key.startsWith(hostEndpointKey(this.#config.node.name, ''));
    if (!entries.some(isOwn)) return () => null;
    const routing = this.#parts.linux.openRouting();
    try {
      const [routes, links] = [await routing.routes(), await routing.links()];
      return (address) => wayOut(address, routes, links);
    } finally {
      routing.close();
    }
  }

  /** What would be another answer if these records were written; null: deleted. */
  async impact(changes: ReadonlyMap<string, Json | null>): Promise<Impact> {
    const { entries } = await this.#store.list('');
    const before = new Map(entries.map(({ key, value }) => [key, value]));
    const after = new Map(before);
    for (const [key, value] of changes) {
      if (value === null) after.delete(key);
      else after.set(key, value);
    }
    const work = impactOf(definitionsOf(before), definitionsOf(after), endpointsOf(before));
    for (;;) {
      const step = work.next();
      if (step.done) return step.value;
      await setImmediate();
    }
  }
}

/** What cannot be read denies, as it does in the kernel. */
function definitionsOf(records: ReadonlyMap<string, Json>): PolicyDefinitions {
  const profiles: [string, ReturnType<typeof parseProfileRecord> | null][] = [];
  const policies: [
    string,
    ReturnType<typeof policyFromJson> | NonNullable<ReturnType<typeof salvagePolicy>>,
  ][] = [];
  const addressSets: [string, ReturnType<typeof addressSetFromJson> | null][] = [];
  for (const [path, json] of records) {
    const key = parseKey(path);
    if (key?.kind === 'profile') profiles.push([key.profile, orNull(() => parseProfileRecord(json))]);
    if (key?.kind === 'address-set') addressSets.push([key.set, orNull(() => addressSetFromJson(json))]);
    if (key?.kind === 'policy') {
      const policy = orNull(() => policyFromJson(json)) ?? salvagePolicy(json, '');
      if (policy !== null) policies.push([key.policy, policy]);
    }
  }
  return { profiles: new Map(profiles), policies: new Map(policies), addressSets: new Map(addressSets) };
}

function endpointsOf(records: ReadonlyMap<string, Json>): ImpactEndpoint[] {
  return Array.from(records, ([path, json]) => {
    const key = parseKey(path);
    const endpoint = key?.kind === 'endpoint' ? endpointSchema.safeParse(json) : null;
    return key?.kind === 'endpoint' && endpoint?.success ? { id: key.endpoint, ...endpoint.data } : null;
  }).filter((endpoint) => endpoint !== null);
}

function orNull<T>(parse: () => T): T | null {
  try {
    return parse();
  } catch {
    return null;
  }
}
