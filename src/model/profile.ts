/**
 * A profile: the tags that its endpoints carry and the rules for what they may receive and send.
 *
 * In: the JSON of a profile file (`id`, rules, perhaps tags) or of the store. Out: a Profile, and back. Never: a profile with one
 * rule left out because it was not understood: one bad rule refuses the whole.
 */
import { z } from 'zod';
import { invalid } from '../lib/errors.ts';
import { checkJson, exactObject, textOf } from './check.ts';
import { parseName } from './names.ts';
import { type Rule, type RuleJson, ruleJson, ruleOf, ruleSchema } from './rule.ts';

export interface Profile {
  readonly tags: readonly string[];
  /** In the order in which they are tried. */
  readonly inbound: readonly Rule[];
  readonly outbound: readonly Rule[];
}

const tags = z
  .array(textOf<string>(parseName, 'web'), 'a list of tags')
  .refine((list) => new Set(list).size === list.length, 'each tag once');
const rules = z.array(ruleSchema, 'a list of rules');

/** The value under `profiles/<name>` in the store. */
const profileRecordSchema = exactObject({ tags, inbound_rules: rules, outbound_rules: rules });
export type ProfileRecord = { tags: string[]; inbound_rules: RuleJson[]; outbound_rules: RuleJson[] };

/** What users write and read. */
export const profileSchema = exactObject({
  id: textOf<string>(parseName, 'web'),
  tags: tags.nullish(),
  inbound_rules: rules,
  outbound_rules: rules,
});
export type ProfileJson = ProfileRecord & { id: string };

/** What a profile is when nobody has said more: inbound from its own tag, outbound anything. */
export function newProfile(name: string): Profile {
  const allow = { action: 'allow', ipVersion: null, comment: null } as const;
  return {
    tags: [name],
    inbound: [{ ...allow, matches: [{ kind: 'tag', side: 'src', tag: name, negated: false }] }],
    outbound: [{ ...allow, matches: [] }],
  };
}

/**
 * A profile file.
 * @param tags the tags when the file names none (a file of rules replaces the rules only)
 * @throws INVALID with the path of the fault, also when `id` is not `name`
 */
export function profileFromJson(json: unknown, name: string, tags: readonly string[] = [name]): Profile {
  const checked = checkJson(profileSchema, json);
  if (checked.id !== name)
    throw invalid('id', checked.id, `the name of the profile, ${JSON.stringify(name)}`);
  return {
    tags: checked.tags ?? tags,
    inbound: checked.inbound_rules.map(ruleOf),
    outbound: checked.outbound_rules.map(ruleOf),
  };
}

export function profileToJson(profile: Profile, name: string): ProfileJson {
  return { id: name, ...profileRecord(profile) };
}

/** @throws INVALID: whoever reads the store takes such a profile as missing, that is as deny */
export function parseProfileRecord(json: unknown): Profile {
  const checked = checkJson(profileRecordSchema, json);
  return {
    tags: checked.tags,
    inbound: checked.inbound_rules.map(ruleOf),
    outbound: checked.outbound_rules.map(ruleOf),
  };
}

/**
 * What is left of a record that `parseProfileRecord` refused: it denies, and who carries its tags is still meant by the rules of others.
 * null when its tags cannot be read either.
 */
export function salvageProfile(json: unknown): Profile | null {
  const read = tags.safeParse(((json ?? {}) as Record<string, unknown>)['tags']);
  if (!read.success) return null;
  const comment = 'the record in the store is invalid';
  const denied: Rule[] = [{ action: 'deny', ipVersion: null, comment, matches: [] }];
  return { tags: read.data, inbound: denied, outbound: denied };
}

export function profileRecord(profile: Profile): ProfileRecord {
  return {
    tags: [...profile.tags],
    inbound_rules: profile.inbound.map(ruleJson),
    outbound_rules: profile.outbound.map(ruleJson),
  };
}
