/**
 * Label selectors: `rack == "r1" && has(zone) && role in {"a","b"} && !(disk contains "ssd")`.
 *
 * In: the text of an operator. Out: a function of labels. Never: a text that is half understood (the error says where and what
 * was expected), work that grows faster than the text (its length and its depth are limited).
 *
 *   or    = and { "||" and }          and = unary { "&&" unary }
 *   unary = "!" unary | "(" or ")" | "all()" | "has(" label ")" | label test
 *   test  = "==" text | "!=" text | "in" set | "not in" set | "contains" text | "starts with" text | "ends with" text
 */
import { invalid } from '../lib/errors.ts';

export type Labels = Readonly<Record<string, string>>;
export type Selector = (labels: Labels) => boolean;

const longest = 1024;
const deepest = 32;

/** `!=` and `not in` hold for a label that is not there, as in Calico; every other test does not. @throws INVALID naming `field` */
export function parseSelector(text: unknown, field = 'selector'): Selector {
  const accepted = 'a selector such as rack == "r1" && has(zone) && role in {"a","b"}';
  if (typeof text !== 'string' || text.trim() === '') throw invalid(field, text, accepted);
  if (text.length > longest) throw invalid(field, text, `at most ${longest} characters`);
  return new Parser(text, (expected, at) =>
    invalid(
      field,
      text,
      `${expected} at character ${at + 1}, as in ${accepted.slice('a selector such as '.length)}`,
    ),
  ).parse();
}

const TOKEN = /\s*(\|\||&&|==|!=|[!(){},]|"[^"]*"|'[^']*'|[A-Za-z0-9_./-]+)/y;
const LABEL = /^[A-Za-z0-9][A-Za-z0-9_./-]{0,127}$/;

class Parser {
  readonly #tokens: { readonly text: string; readonly at: number }[] = [];
  readonly #refuse: (expected: string, at: number) => Error;
  #position = 0;
  #depth = 0;
  readonly #end: number;

  constructor(text: string, refuse: (expected: string, at: number) => Error) {
    this.#refuse = refuse;
    const trimmed = text.trimEnd();
    this.#end = trimmed.length;
    TOKEN.lastIndex = 0;
    for (let at = 0; at < trimmed.length; at = TOKEN.lastIndex) {
      const found = TOKEN.exec(trimmed);
      if (found === null) throw refuse('a label, an operator or a text in quotes', at);
      this.#tokens.push({ text: found[1]!, at: TOKEN.lastIndex - found[1]!.length });
    }
  }

  parse(): Selector {
    const selector = this.#or();
    if (this.#peek() !== '') throw this.#expected('&&, || or the end');
    return selector;
  }

  #or(): Selector {
    if (++this.#depth > deepest) throw this.#expected(`at most ${deepest} nested parentheses`);
    const any = [this.#and()];
    while (this.#take('||')) any.push(this.#and());
    this.#depth--;
    return any.length === 1 ? any[0]! : (labels) => any.some((selector) => selector(labels));
  }

  #and(): Selector {
    const all = [this.#unary()];
    while (this.#take('&&')) all.push(this.#unary());
    return all.length === 1 ? all[0]! : (labels) => all.every((selector) => selector(labels));
  }

  #unary(): Selector {
    let negated = false;
    while (this.#take('!')) negated = !negated;
    const selector = this.#take('(') ? this.#closed(this.#or()) : this.#test();
    return negated ? (labels) => !selector(labels) : selector;
  }

  #closed<T>(inner: T): T {
    this.#need(')');
    return inner;
  }

  #test(): Selector {
    const label = this.#label();
    if (this.#peek() === '(' && label === 'all') {
      this.#need('(');
      return this.#closed(() => true);
    }
    if (this.#peek() === '(' && label === 'has') {
      this.#need('(');
      const wanted = this.#label();
      return this.#closed((labels: Labels) => labelOf(labels, wanted) !== undefined);
    }
    if (this.#take('==')) return this.#compare(label, (value, text) => value === text);
    if (this.#take('!=')) return negate(this.#compare(label, (value, text) => value === text));
    if (this.#take('contains')) return this.#compare(label, (value, text) => value.includes(text));
    if (this.#take('starts')) return this.#with(label, (value, text) => value.startsWith(text));
    if (this.#take('ends')) return this.#with(label, (value, text) => value.endsWith(text));
    if (this.#take('in')) return this.#in(label);
    if (this.#take('not')) {
      this.#need('in');
      return negate(this.#in(label));
    }
    throw this.#expected('==, !=, in, not in, contains, starts with or ends with');
  }

  #with(label: string, holds: (value: string, text: string) => boolean): Selector {
    this.#need('with');
    return this.#compare(label, holds);
  }

  #compare(label: string, holds: (value: string, text: string) => boolean): Selector {
    const text = this.#text();
    return (labels) => {
      const value = labelOf(labels, label);
      return value !== undefined && holds(value, text);
    };
  }

  #in(label: string): Selector {
    this.#need('{');
    const values = new Set([this.#text()]);
    while (this.#take(',')) values.add(this.#text());
    this.#need('}');
    return (labels) => {
      const value = labelOf(labels, label);
      return value !== undefined && values.has(value);
    };
  }

  #label(): string {
    const token = this.#peek();
    if (!LABEL.test(token)) throw this.#expected('the name of a label');
    this.#position++;
    return token;
  }

  #text(): string {
    const token = this.#peek();
    if (!/^["']/.test(token)) throw this.#expected('a text in quotes');
    this.#position++;
    return token.slice(1, -1);
  }

  #peek(): string {
    return this.#tokens[this.#position]?.text ?? '';
  }

  #take(token: string): boolean {
    if (this.#peek() !== token) return false;
    this.#position++;
    return true;
  }

  #need(token: string): void {
    if (!this.#take(token)) throw this.#expected(token);
  }

  #expected(what: string): Error {
    return this.#refuse(what, this.#tokens[this.#position]?.at ?? this.#end);
  }
}

const negate =
  (selector: Selector): Selector =>
  (labels) =>
    !selector(labels);

/** Labels come from JSON: a name such as `constructor` is no label unless it was given. */
const labelOf = (labels: Labels, label: string): string | undefined =>
  Object.hasOwn(labels, label) ? labels[label] : undefined;
