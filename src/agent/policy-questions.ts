/**
 * Questions about policy that the store answers: who may reach whom, and what a change would change.
 *
 * In: the store, a question. Out: answers worked out anew from the records. Never: a write, nor the thread held for long.
 */
import { setImmediate } from 'node:timers/promises';
import { addressSetFromJson } from '../model/address-set.ts';
import { parseKey } from '../model/keys.ts';
import { policyFromJson, salvagePolicy } from '../model/policy.ts';
import { parseProfileRecord } from '../model/profile.ts';
import { endpointSchema } from '../model/records.ts';
import { type Impact, impactOf } from '../policy/impact.ts';
import type { ImpactEndpoint, PolicyDefinitions } from '../policy/impact-parties.ts';
import type { Json, Store } from '../store/store.ts';
import type { Config } from './config.ts';
import { policyOptions } from './policy-options.ts';
import { Why, type WhyAnswer, type WhyQuery } from './why.ts';

export class PolicyQuestions {
  readonly #store: Store;
  readonly #config: Config;

  constructor(store: Store, config: Config) {
    this.#store = store;
    this.#config = config;
  }

  /** @throws NOT_FOUND, CONFLICT, INVALID */
  async why(query: WhyQuery): Promise<WhyAnswer> {
    const { entries } = await this.#store.list('');
    return new Why(entries, this.#config.node.name, policyOptions(this.#config)).answer(query);
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
