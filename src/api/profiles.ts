/**
 * Profiles over HTTP: add, show, remove; their tags; their rules, whole or one by one.
 *
 * In: requests and the store. Out: profile records. Never: a profile gone while endpoints need it (a missing profile denies
 * everything) unless the caller insists; a rule moved because somebody else changed the list at the same time.
 */
import { isDeepStrictEqual } from 'node:util';
import type { FastifyInstance } from 'fastify';
import { refuseChanged } from '../ipam/fenced.ts';
import { invalid, NetctlError } from '../lib/errors.ts';
import { hostEndpointFromJson } from '../model/host-endpoint.ts';
import { profileKey } from '../model/keys.ts';
import {
  newProfile,
  type Profile,
  parseProfileRecord,
  profileFromJson,
  profileRecord,
} from '../model/profile.ts';
import { type Rule, ruleJson, ruleOf } from '../model/rule.ts';
import { parseRuleText, ruleText } from '../model/rule-text.ts';
import type { Json, Revision, Store } from '../store/store.ts';
import type { ApiDeps } from './deps.ts';
import { listEndpoints, shortList } from './endpoints.ts';
import { byName, changedAnswer, ifMatch, isApplied, setRevision, typed } from './http.ts';
import {
  flushQuery,
  forceQuery,
  type ProfileItem,
  profileAdd,
  profileChanged,
  profileItem,
  profileList,
  profileParams,
  profileRules,
  removed,
  ruleAdd,
  ruleParams,
  ruleRemove,
  tagParams,
} from './schemas.ts';
import { create, flushRequest, raced, readOne, readReadable, rewrite } from './store-access.ts';

/** Words that stand where a profile's name may stand: `netctl profile show`. */
const RESERVED = ['add', 'remove', 'show'];

export function profileRoutes(instance: FastifyInstance, deps: ApiDeps): void {
  const api = typed(instance);
  const { store } = deps;

  api.get('/v1/profiles', { schema: { response: { 200: profileList } } }, async () => {
    const { revision, found, broken } = await readReadable(store, 'profile', parseProfileRecord);
    const items = found.map(({ key, value, revision }) => itemOf(key.profile, value, revision));
    return { revision, items: items.sort((a, b) => byName(a.name, b.name)), broken };
  });

  api.get(
    '/v1/profiles/:profile',
    { schema: { params: profileParams, response: { 200: profileItem } } },
    async (request, reply) => {
      const { profile } = request.params;
      const found = await readOne(store, profileKey(profile), parseProfileRecord);
      if (found === null) throw noProfile(profile);
      setRevision(reply, found.revision);
      return itemOf(profile, found.value, found.revision);
    },
  );

  api.post(
    '/v1/profiles',
    { schema: { body: profileAdd, response: { 201: profileChanged } } },
    async (request, reply) => {
      const item = await addProfile(store, request.body.name);
      reply.code(201);
      return changedAnswer(deps, reply, item);
    },
  );

  const removeSchema = { params: profileParams, querystring: forceQuery, response: { 200: removed } };
  api.delete('/v1/profiles/:profile', { schema: removeSchema }, async (request) => {
    const force = request.query.force === 'true';
    const revision = await removeProfile(store, request.params.profile, force, ifMatch(request));
    return { revision, applied: await isApplied(deps, revision) };
  });

  const rulesSchema = {
    params: profileParams,
    querystring: flushQuery,
    body: profileRules,
    response: { 200: profileChanged },
  };
  api.put('/v1/profiles/:profile/rules', { schema: rulesSchema }, async (request, reply) => {
    const { profile } = request.params;
    const change = (current: Profile) => profileFromJson(request.body, profile, current.tags);
    const item = await changeProfile(store, profile, change, {
      ifMatch: ifMatch(request),
      flush: request.query.flushConnections === 'true',
    });
    return changedAnswer(deps, reply, item);
  });

  const ruleAddSchema = {
    params: profileParams,
    querystring: flushQuery,
    body: ruleAdd,
    response: { 200: profileChanged },
  };
  api.post('/v1/profiles/:profile/rules', { schema: ruleAddSchema }, async (request, reply) => {
    const { direction, at, rule, text } = request.body;
    if ((rule === undefined) === (text === undefined))
      throw invalid('rule', rule ?? null, 'either rule or text');
    const added = rule === undefined ? readText(text ?? '') : ruleOf(rule);
    const change = (current: Profile) => ({
      ...current,
      [direction]: inserted(current[direction], added, at),
    });
    const item = await changeProfile(store, request.params.profile, change, {
      ifMatch: ifMatch(request),
      retry: at === undefined,
      flush: request.query.flushConnections === 'true',
    });
    return changedAnswer(deps, reply, item);
  });

  const ruleRemoveSchema = { params: ruleParams, querystring: ruleRemove, response: { 200: profileChanged } };
  api.delete(
    '/v1/profiles/:profile/rules/:direction',
    { schema: ruleRemoveSchema },
    async (request, reply) => {
      const { profile, direction } = request.params;
      const { at, text, flushConnections } = request.query;
      if ((at === undefined) === (text === undefined)) throw invalid('at', at ?? null, 'either at or text');
      const wanted = text === undefined ? null : readText(text);
      const change = (current: Profile) => {
        const index = wanted === null ? (at ?? 0) - 1 : indexOf(current[direction], wanted);
        if (index < 0 || index >= current[direction].length)
          throw noRule(profile, direction, text ?? `at ${at}`, current[direction].length);
        return { ...current, [direction]: current[direction].toSpliced(index, 1) };
      };
      const item = await changeProfile(store, profile, change, {
        ifMatch: ifMatch(request),
        retry: at === undefined,
        flush: flushConnections === 'true',
      });
      return changedAnswer(deps, reply, item);
    },
  );

  const tagSchema = { params: tagParams, response: { 200: profileChanged } };
  api.put('/v1/profiles/:profile/tags/:tag', { schema: tagSchema }, async (request, reply) => {
    const { profile, tag } = request.params;
    const change = (current: Profile) => ({ ...current, tags: [...new Set([...current.tags, tag])] });
    return changedAnswer(
      deps,
      reply,
      await changeProfile(store, profile, change, { ifMatch: ifMatch(request) }),
    );
  });

  api.delete('/v1/profiles/:profile/tags/:tag', { schema: tagSchema }, async (request, reply) => {
    const { profile, tag } = request.params;
    const change = (current: Profile) => {
      if (!current.tags.includes(tag)) {
        const has = current.tags.length === 0 ? 'none' : current.tags.join(', ');
        throw new NetctlError('NOT_FOUND', `profile ${profile} does not have tag ${tag}: it has ${has}`, {
          profile,
          tag,
        });
      }
      return { ...current, tags: current.tags.filter((other) => other !== tag) };
    };
    return changedAnswer(
      deps,
      reply,
      await changeProfile(store, profile, change, { ifMatch: ifMatch(request) }),
    );
  });
}

async function addProfile(store: Store, name: string): Promise<ProfileItem> {
  if (RESERVED.includes(name))
    throw invalid('name', name, `a name that is not one of netctl's words ${RESERVED.join(', ')}`);
  const profile = newProfile(name);
  const revision = await create(store, profileKey(name), toJson(profile), () => {
    return new NetctlError(
      'ALREADY_EXISTS',
      `profile ${name} exists already: see \`netctl profile ${name} rule show\``,
      { profile: name },
    );
  });
  return itemOf(name, profile, revision);
}

export async function removeProfile(
  store: Store,
  name: string,
  force: boolean,
  ifMatch: Revision | undefined,
  flush = false,
): Promise<Revision> {
  const key = profileKey(name);
  const entry = await store.get(key);
  if (entry === null) throw noProfile(name);
  refuseChanged(`profile ${name}`, ifMatch, entry.modified);
  if (!force) await refuseInUse(store, name);
  const result = await store.transact(
    [{ kind: 'modified', key, revision: entry.modified }],
    [{ kind: 'delete', key }, ...flushRequest(flush)],
  );
  if (!result.committed) throw raced(`profile ${name}`);
  return result.revision;
}

async function refuseInUse(store: Store, name: string): Promise<void> {
  const users = (await listEndpoints(store)).items
    .filter(({ profiles }) => profiles.includes(name))
    .map(({ id, node }) => `${id} on ${node}`);
  if (users.length === 0) return refuseInUseByHosts(store, name);
  throw new NetctlError(
    'IN_USE',
    `profile ${name} is used by ${users.length === 1 ? 'endpoint' : 'endpoints'} ${shortList(users)}: give them another one with ` +
      '`netctl endpoint profile ENDPOINT set NAME`, or use --force: what only this profile allows them is then denied',
    { profile: name, endpoints: users },
  );
}

/** A host that its profile is taken from shuts itself off but for its failsafe ports. */
async function refuseInUseByHosts(store: Store, name: string): Promise<void> {
  const { found } = await readReadable(store, 'host-endpoint', hostEndpointFromJson);
  const users = found
    .filter(({ value }) => value.profiles.includes(name))
    .map(({ key }) => `${key.node}/${key.name}`);
  if (users.length === 0) return;
  throw new NetctlError(
    'IN_USE',
    `profile ${name} is used by host ${users.length === 1 ? 'endpoint' : 'endpoints'} ${shortList(users)}: apply them with ` +
      'another one, or use --force: what only this profile allows these hosts is then denied',
    { profile: name, hostEndpoints: users },
  );
}

/**
 * @param options `retry`: false when the change names a position, which means something only in the list that the caller saw;
 * `flush`: connections that the change denies are cut
 */
async function changeProfile(
  store: Store,
  name: string,
  change: (current: Profile) => Profile,
  {
    ifMatch,
    retry = true,
    flush = false,
  }: { ifMatch: Revision | undefined; retry?: boolean; flush?: boolean },
): Promise<ProfileItem> {
  const { value, revision } = await rewrite(store, {
    key: profileKey(name),
    what: `profile ${name}`,
    parse: parseProfileRecord,
    serialise: toJson,
    change,
    writes: flushRequest(flush),
    missing: () => noProfile(name),
    ifMatch,
    retry,
  });
  return itemOf(name, value, revision);
}

/** Without a position at the end, unless the very rule is there already (so that a repeated command changes nothing). */
function inserted(rules: readonly Rule[], rule: Rule, at: number | undefined): readonly Rule[] {
  if (at === undefined) return indexOf(rules, rule) >= 0 ? rules : [...rules, rule];
  if (at > rules.length + 1) throw invalid('at', at, `a position from 1 to ${rules.length + 1}`);
  return rules.toSpliced(at - 1, 0, rule);
}

function indexOf(rules: readonly Rule[], wanted: Rule): number {
  return rules.findIndex((rule) => isDeepStrictEqual(ruleJson(rule), ruleJson(wanted)));
}

function readText(text: string): Rule {
  return parseRuleText(text.split(/\s+/).filter((word) => word !== ''));
}

function itemOf(name: string, profile: Profile, revision: Revision): ProfileItem {
  const { tags, inbound_rules, outbound_rules } = profileRecord(profile);
  const text = { inbound: profile.inbound.map(ruleText), outbound: profile.outbound.map(ruleText) };
  return { name, tags, inbound_rules, outbound_rules, text, revision } as ProfileItem;
}

function toJson(profile: Profile): Json {
  return profileRecord(profile) as unknown as Json;
}

function noProfile(name: string): NetctlError {
  return new NetctlError(
    'NOT_FOUND',
    `there is no profile ${name}: see \`netctl profile show\`, or add it with \`netctl profile add ${name}\``,
    {
      profile: name,
    },
  );
}

function noRule(profile: string, direction: string, wanted: string, count: number): NetctlError {
  return new NetctlError(
    'NOT_FOUND',
    `profile ${profile} has no ${direction} rule ${wanted} (it has ${count}): see \`netctl profile ${profile} rule show\``,
    { profile, direction },
  );
}
