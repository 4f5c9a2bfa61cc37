/**
 * BIRD's filters: what a session takes, what it announces, and the filters of users as functions.
 *
 * In: sessions and filter rules. Out: lines of configuration. Never: a rule of the other family that would match everything once its
 * prefixes are left out; an accept in a filter that lets more out than the node's own routes.
 */
import { createHash } from 'node:crypto';
import type { BgpFilterRule } from '../model/bgp.ts';
import { prefixMatchOf } from '../model/bgp-text.ts';
import { type Family, familyOf } from '../model/ip.ts';
import type { BgpConfig, BgpSession } from './config.ts';

/** Never taken from a router outside: addresses that mean something else on every host, the containers' gateway among them. */
const local: Readonly<Record<Family, string>> = {
  4: '127.0.0.0/8+, 169.254.0.0/16+, 224.0.0.0/3+',
  6: '::1/128, fe80::/10+, ff00::/8+',
};

/** A line of the channel. What is not in the pools goes between nodes in neither direction. */
export function importFilter(session: BgpSession, family: Family): string {
  const { onlyPools, importFilters, localAsNumber } = session;
  const refuse = onlyPools
    ? `if ! in_pools${family}() then reject;`
    : `if net ~ [ ${local[family]} ] then reject;`;
  return `    import filter { ${[refuse, ...calls(importFilters, family, localAsNumber), 'accept;'].join(' ')} };`;
}

export function exportFilter(session: BgpSession, family: Family): string {
  const { passesOn, localAsNumber, prepend, communities, exportFilters } = session;
  const isAnnounced = passesOn
    ? `is_own${family}() || (source = RTS_BGP && in_pools${family}())`
    : `is_own${family}()`;
  const statements = [
    `if ! (${isAnnounced}) then reject;`,
    ...addCommunities(communities),
    ...prepending(localAsNumber, prepend),
    ...calls(exportFilters, family, localAsNumber),
    'accept;',
  ];
  return `    export filter { ${statements.join(' ')} };`;
}

/** A function that decides, or returns where no rule matches. */
export function filterFunction({ name, rules }: BgpConfig['filters'][number], family: Family): string[] {
  const head = `function ${functionName(name, family)}(int own_as) # ${name}`;
  if (rules === null) return [head, '{ reject; }'];
  return [head, '{', ...rules.flatMap((rule) => ruleLines(rule, family)), '}'];
}

/** @param asNumber what a rule with `prepend` puts in front */
function calls(filters: readonly string[], family: Family, asNumber: number): string[] {
  return filters.map((name) => `${functionName(name, family)}(${asNumber});`);
}

/** Names may differ in `.` and `-` alone, which BIRD does not take. */
function functionName(name: string, family: Family): string {
  return `filter${family}_${createHash('sha256').update(name).digest('hex').slice(0, 12)}`;
}

function ruleLines(rule: BgpFilterRule, family: Family): string[] {
  const prefixes = rule.prefixes.map(prefixMatchOf).filter(({ cidr }) => familyOf(cidr) === family);
  if (rule.prefixes.length > 0 && prefixes.length === 0) return [];
  const sets = prefixes.map(({ cidr, min, max }) => `${cidr}{${min},${max}}`);
  const conditions = [
    ...(sets.length === 0 ? [] : [`net ~ [ ${sets.join(', ')} ]`]),
    ...(rule.communities.length === 0 ? [] : [hasCommunity(rule.communities)]),
    ...(rule.asPathPrefix.length === 0 ? [] : [`bgp_path ~ [= ${rule.asPathPrefix.join(' ')} * =]`]),
  ];
  const done =
    rule.action === 'reject'
      ? ['reject;']
      : [
          ...addCommunities(rule.addCommunities),
          ...prepending('own_as', rule.prepend),
          ...(rule.localPreference === null ? [] : [`bgp_local_pref = ${rule.localPreference};`]),
          'accept;',
        ];
  return [`  if ${conditions.length === 0 ? 'true' : conditions.join(' && ')} then { ${done.join(' ')} }`];
}

function hasCommunity(communities: readonly string[]): string {
  const of = (length: number): string =>
    communities
      .map((text) => text.split(':'))
      .filter((parts) => parts.length === length)
      .map((parts) => `(${parts.join(',')})`)
      .join(', ');
  const [standard, large] = [of(2), of(3)];
  const either = [
    ...(standard === '' ? [] : [`bgp_community ~ [ ${standard} ]`]),
    ...(large === '' ? [] : [`bgp_large_community ~ [ ${large} ]`]),
  ];
  return `(${either.join(' || ')})`;
}

function addCommunities(communities: readonly string[]): string[] {
  return communities.map((text) => {
    const parts = text.split(':');
    return `${parts.length === 2 ? 'bgp_community' : 'bgp_large_community'}.add((${parts.join(',')}));`;
  });
}

function prepending(asNumber: number | string, times: number): string[] {
  return new Array<string>(times).fill(`bgp_path.prepend(${asNumber});`);
}
