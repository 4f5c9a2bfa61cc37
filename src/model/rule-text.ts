/**
 * Rules as the command line takes and shows them.
 *
 *     (allow|deny|log) [ipv4|ipv6] [PROTOCOL] [from ENDS] [to ENDS] [type N|NAME [code N]] [comment WORDS…]
 *     PROTOCOL = tcp|udp|sctp|icmp|icmpv6|NUMBER      P = 80,443,1000:2000
 *     ENDS = [ports P] [tag T] [cidr C] [set S] [selector (E)]
 *
 * `not` (or `!`) before PROTOCOL, a part of ENDS, type or code negates that one. Parts may come in any order; comment is last. The
 * words of a policy's rule may begin with `pass`, too.
 *
 * In: words. Out: a Rule, and the words of a Rule. Never: a check of its own: the words become JSON, and rule.ts judges.
 */
import { invalid } from '../lib/errors.ts';
import { portText } from './port-range.ts';
import { protocolName } from './protocol.ts';
import { type Match, type Rule, ruleFromJson, type Side } from './rule.ts';

/** @throws INVALID naming the word, or the key of the rule's JSON form */
export function parseRuleText(words: readonly string[]): Rule {
  const [action, ...rest] = words;
  if (action !== 'allow' && action !== 'deny' && action !== 'log')
    throw invalid('rule', action ?? '', 'allow, deny or log first');
  return ruleFromJson({ action, ...new ClauseReader(rest).read() });
}

/** Parses back to the same rule. */
export function ruleText(rule: Rule): string {
  const words: (string | number)[] = [rule.action];
  if (rule.ipVersion !== null) words.push(`ipv${rule.ipVersion}`);
  for (const match of rule.matches)
    if (match.kind === 'protocol') words.push(...not(match), protocolName(match.protocol));
  for (const [side, preposition] of SIDES) {
    const ends = rule.matches.filter((match) => 'side' in match && match.side === side).flatMap(endWords);
    if (ends.length > 0) words.push(preposition, ...ends);
  }
  for (const match of rule.matches) if (match.kind === 'icmp') words.push(...icmpWords(match));
  if (rule.comment !== null) words.push('comment', rule.comment);
  return words.join(' ');
}

const SIDES = [
  ['src', 'from'],
  ['dst', 'to'],
] as const;

function endWords(match: Match): string[] {
  if (match.kind === 'ports') return [...not(match), 'ports', match.ports.map(portText).join(',')];
  if (match.kind === 'tag') return [...not(match), 'tag', match.tag];
  if (match.kind === 'net') return [...not(match), 'cidr', match.net];
  if (match.kind === 'set') return [...not(match), 'set', match.set];
  if (match.kind === 'selector') return [...not(match), 'selector', `(${match.selector})`];
  return [];
}

function icmpWords(match: Match & { kind: 'icmp' }): (string | number)[] {
  return [
    ...not(match),
    'type',
    match.type,
    ...(match.code === null ? [] : [...not(match), 'code', match.code]),
  ];
}

function not(match: Match): string[] {
  return match.negated ? ['not'] : [];
}

/** Types of ICMP have names besides. */
function numeric(word: string): number | string {
  return /^\d+$/.test(word) ? Number(word) : word;
}

/** Walks through the words after the action; collects the keys of the JSON form. */
class ClauseReader {
  readonly #words: readonly string[];
  readonly #json: Record<string, unknown> = {};
  #at = 0;
  #side: Side | null = null;

  constructor(words: readonly string[]) {
    this.#words = words;
  }

  read(): Record<string, unknown> {
    while (this.#at < this.#words.length) this.#clause();
    return this.#json;
  }

  #clause(): void {
    const negated = this.#takeNot();
    const word = this.#next(negated ? 'what not to match' : 'a part of a rule');
    const mark = negated ? '!' : '';
    if (word === 'ports')
      this.#set(
        `${mark}${this.#sideFor(word)}_ports`,
        this.#next('ports such as 80,443,1000:2000').split(','),
      );
    else if (word === 'tag') this.#set(`${mark}${this.#sideFor(word)}_tag`, this.#next('a tag'));
    else if (word === 'cidr') this.#set(`${mark}${this.#sideFor(word)}_net`, this.#next('a prefix'));
    else if (word === 'set') this.#set(`${mark}${this.#sideFor(word)}_set`, this.#next('an address set'));
    else if (word === 'selector') this.#set(`${mark}${this.#sideFor(word)}_selector`, this.#takeSelector());
    else if (word === 'type') this.#set(`${mark}icmp_type`, numeric(this.#next('a type of ICMP')));
    else if (word === 'code') this.#set(`${mark}icmp_code`, this.#nextNumber(word));
    else if (negated) this.#set('!protocol', word);
    else if (word === 'from' || word === 'to') this.#side = word === 'from' ? 'src' : 'dst';
    else if (word === 'ipv4' || word === 'ipv6') this.#set('ip_version', word === 'ipv4' ? 4 : 6);
    else if (word === 'comment') this.#set('comment', this.#takeRest());
    else this.#set('protocol', word);
  }

  #takeNot(): boolean {
    const word = this.#words[this.#at];
    if (word !== 'not' && word !== '!') return false;
    this.#at++;
    return true;
  }

  #next(what: string): string {
    const word = this.#words[this.#at++];
    if (word === undefined) throw invalid('rule', this.#words.join(' '), `${what} at the end`);
    return word;
  }

  #nextNumber(what: string): number {
    const word = this.#next(`a number after ${what}`);
    if (!/^\d+$/.test(word)) throw invalid(`icmp_${what}`, word, 'a number');
    return Number(word);
  }

  /** From `(` to its `)`; parentheses inside quotes do not count. */
  #takeSelector(): string {
    const words: string[] = [];
    for (;;) {
      words.push(this.#next('a selector in parentheses, such as (role == "db")'));
      const text = words.join(' ');
      if (!text.startsWith('(')) throw invalid('selector', text, 'it in parentheses, such as (role == "db")');
      const bare = text.replace(/"[^"]*"|'[^']*'/g, '');
      if (/["']/.test(bare)) continue;
      if (bare.split('(').length === bare.split(')').length) return text;
    }
  }

  #takeRest(): string {
    const rest = this.#words.slice(this.#at).join(' ');
    this.#at = this.#words.length;
    return rest;
  }

  #sideFor(word: string): Side {
    if (this.#side === null)
      throw invalid('rule', word, '"from" or "to" before ports, tag, cidr, set and selector');
    return this.#side;
  }

  #set(key: string, value: unknown): void {
    if (key in this.#json) throw invalid('rule', String(value), `${key} once only`);
    this.#json[key] = value;
  }
}
