/**
 * Label selectors: which endpoints a policy applies to, which addresses a rule means.
 *
 *     or = and {"||" and}   and = one {"&&" one}   one = "!" one | "(" or ")" | "all()" | "has(KEY)"
 *          | KEY "==" TEXT | KEY "!=" TEXT | KEY "in" "{" TEXT {"," TEXT} "}" | KEY "not in" "{" TEXT {"," TEXT} "}"
 *
 * KEY: letters, digits, _ . / -     TEXT: in double or single quotes. `!=` and `not in` hold also where the label is absent.
 *
 * In: text. Out: a tree, its value for given labels, its canonical text (which parses to the same tree). Never: a selector
 * that means everything because a part of it was not understood.
 */
import { invalid } from '../lib/errors.ts';

export type Labels = Readonly<Record<string, string>>;

export type Selector =
  | { readonly kind: 'all' }
  | { readonly kind: 'has'; readonly key: string }
  /** The label is one of the values (negated: is none of them, or absent). Sorted, each once, at least one. */
  | {
      readonly kind: 'in';
      readonly key: string;
      readonly values: readonly string[];
      readonly negated: boolean;
    }
  | { readonly kind: 'not'; readonly of: Selector }
  /** At least two, none of the same kind. */
  | { readonly kind: 'and' | 'or'; readonly of: readonly Selector[] };

const MOST = 1024;
const TOKEN = /\s*(?:(&&|\|\||==|!=|[!(){},])|("[^"]*"|'[^']*')|([\w./-]+))/y;
/** Safe in a comment of a rule and as words of the command line. */
const TEXT = /^(?:[^\p{C}\p{Z}"'`\\]+(?: [^\p{C}\p{Z}"'`\\]+)*)?$/u;

/** @throws INVALID naming `field` */
export function parseSelector(text: unknown, field = 'selector'): Selector {
  if (typeof text !== 'string' || text.length > MOST)
    throw invalid(field, text, `a selector such as role == "db" && has(zone), at most ${MOST} characters`);
  return new Parser(text, field).parse();
}

/** The one text of a selector: its identity. @throws INVALID naming `field` */
export function canonicalSelector(text: unknown, field = 'selector'): string {
  const canonical = selectorText(parseSelector(text, field));
  // With its blanks and parentheses it may be longer than what was written.
  parseSelector(canonical, field);
  return canonical;
}

export function selectorText(selector: Selector): string {
  switch (selector.kind) {
    case 'all':
      return 'all()';
    case 'has':
      return `has(${selector.key})`;
    case 'in': {
      const { key, values, negated } = selector;
      if (values.length === 1) return `${key} ${negated ? '!=' : '=='} "${values[0]}"`;
      return `${key} ${negated ? 'not in' : 'in'} {${values.map((value) => `"${value}"`).join(', ')}}`;
    }
    case 'not':
      return `!${grouped(selector.of)}`;
    case 'and':
      return selector.of
        .map((each) => (each.kind === 'or' ? `(${selectorText(each)})` : selectorText(each)))
        .join(' && ');
    case 'or':
      return selector.of.map(selectorText).join(' || ');
  }
}

/** `!has(x)` and `!all()` need no parentheses; `!a == "b"` would be hard to read. */
function grouped(selector: Selector): string {
  const text = selectorText(selector);
  return ['all', 'has', 'not'].includes(selector.kind) ? text : `(${text})`;
}

export function selects(selector: Selector, labels: Labels): boolean {
  switch (selector.kind) {
    case 'all':
      return true;
    case 'has':
      return Object.hasOwn(labels, selector.key);
    case 'in':
      return (
        (Object.hasOwn(labels, selector.key) && selector.values.includes(labels[selector.key]!)) !==
        selector.negated
      );
    case 'not':
      return !selects(selector.of, labels);
    case 'and':
      return selector.of.every((each) => selects(each, labels));
    case 'or':
      return selector.of.some((each) => selects(each, labels));
  }
}

/** What labels must at least have for the selector to hold: the key, with one of the values (null: any). */
export interface Requirement {
  readonly key: string;
  readonly values: readonly string[] | null;
}

/** A necessary condition to find candidates by, or null: none that a look-up by label could use. */
export function requirementOf(selector: Selector): Requirement | null {
  switch (selector.kind) {
    case 'has':
      return { key: selector.key, values: null };
    case 'in':
      return selector.negated ? null : { key: selector.key, values: selector.values };
    case 'and': {
      const found = selector.of.map(requirementOf).filter((each) => each !== null);
      return found.find(({ values }) => values !== null) ?? found[0] ?? null;
    }
    case 'or':
      return union(selector.of.map(requirementOf));
    default:
      return null;
  }
}

function union(requirements: readonly (Requirement | null)[]): Requirement | null {
  const [first, ...others] = requirements;
  if (!first || others.some((other) => other?.key !== first.key)) return null;
  const lists = requirements.map((each) => each?.values ?? null);
  return {
    key: first.key,
    values: lists.some((list) => list === null) ? null : [...new Set(lists.flatMap((list) => list ?? []))],
  };
}

/** Recursive descent over the tokens; the depth is bounded by the length of the text. */
class Parser {
  readonly #text: string;
  readonly #field: string;
  readonly #tokens: readonly string[];
  #at = 0;

  constructor(text: string, field: string) {
    this.#text = text;
    this.#field = field;
    this.#tokens = this.#tokenise();
  }

  parse(): Selector {
    const selector = this.#list('or', '||', () => this.#list('and', '&&', () => this.#one()));
    if (this.#at < this.#tokens.length) this.#refuse('&&, || or the end');
    return selector;
  }

  #tokenise(): string[] {
    const tokens: string[] = [];
    const scanner = new RegExp(TOKEN);
    const end = this.#text.trimEnd().length;
    while (scanner.lastIndex < end) {
      const at = scanner.lastIndex;
      const [, sign, quoted, word] =
        scanner.exec(this.#text) ?? this.#refuse(`a selector; not understood from position ${at + 1} on`);
      tokens.push((sign ?? quoted ?? word)!);
    }
    return tokens;
  }

  /** Nested ones of the same kind are one: `a && (b && c)`. */
  #list(kind: 'and' | 'or', sign: string, next: () => Selector): Selector {
    const of = [next()];
    while (this.#takes(sign)) of.push(next());
    const flat = of.flatMap((each) => (each.kind === kind ? each.of : [each]));
    return flat.length === 1 ? flat[0]! : { kind, of: flat };
  }

  #one(): Selector {
    if (this.#takes('!')) return { kind: 'not', of: this.#one() };
    if (this.#takes('(')) {
      const inner = this.#list('or', '||', () => this.#list('and', '&&', () => this.#one()));
      this.#expect(')');
      return inner;
    }
    const key = this.#key();
    if (key === 'all' && this.#takes('(')) {
      this.#expect(')');
      return { kind: 'all' };
    }
    if (key === 'has' && this.#takes('(')) {
      const label = this.#key();
      this.#expect(')');
      return { kind: 'has', key: label };
    }
    return this.#comparison(key);
  }

  #comparison(key: string): Selector {
    if (this.#takes('==')) return { kind: 'in', key, values: [this.#value()], negated: false };
    if (this.#takes('!=')) return { kind: 'in', key, values: [this.#value()], negated: true };
    const negated = this.#takes('not');
    if (!this.#takes('in')) this.#refuse(`${negated ? 'in' : '==, !=, in or not in'} after ${key}`);
    this.#expect('{');
    const values = [this.#value()];
    while (this.#takes(',')) values.push(this.#value());
    this.#expect('}');
    return { kind: 'in', key, values: [...new Set(values)].sort(), negated };
  }

  #key(): string {
    const token = this.#tokens[this.#at];
    if (token === undefined || !/^[\w./-]{1,253}$/.test(token))
      return this.#refuse('a label, all(), has(LABEL), ! or (');
    this.#at++;
    return token;
  }

  #value(): string {
    const token = this.#tokens[this.#at];
    if (token === undefined || !/^["']/.test(token)) return this.#refuse('a text in quotes');
    const value = token.slice(1, -1);
    if (!TEXT.test(value))
      return this.#refuse('printable characters in quotes, words separated by single spaces');
    this.#at++;
    return value;
  }

  #takes(token: string): boolean {
    if (this.#tokens[this.#at] !== token) return false;
    this.#at++;
    return true;
  }

  #expect(token: string): void {
    if (!this.#takes(token)) this.#refuse(token);
  }

  #refuse(accepted: string): never {
    const token = this.#tokens?.[this.#at];
    const where = token === undefined ? '' : ` instead of ${token}`;
    throw invalid(this.#field, this.#text, `${accepted}${where}`);
  }
}
