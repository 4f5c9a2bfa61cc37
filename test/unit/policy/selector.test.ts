/** Label selectors: parsed, printed back, evaluated; and the index over them. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { canonicalSelector, parseSelector, selectorText, selects } from '../../../src/model/selector.ts';
import { LabelIndex } from '../../../src/policy/label-index.ts';
import { labelsArbitrary, selectorArbitrary } from './arbitrary.ts';

const canonical: [text: string, canonical: string][] = [
  ['all()', 'all()'],
  [' has( zone )', 'has(zone)'],
  [`role=='db'&&has(zone)`, 'role == "db" && has(zone)'],
  ['env in {"b","a","b"}', 'env in {"a", "b"}'],
  ['env not in {"b"}', 'env != "b"'],
  ['!(a == "1" || b == "2") && (c == "3" || has(d))', '!(a == "1" || b == "2") && (c == "3" || has(d))'],
  ['a == "1" && (b == "2" && c == "3")', 'a == "1" && b == "2" && c == "3"'],
  ['!role == "db"', '!(role == "db")'],
  ['!!has(x)', '!!has(x)'],
  ['all == "x" || has == "y" || in in {"z"}', 'all == "x" || has == "y" || in == "z"'],
];

const meanings: [text: string, labels: Record<string, string>, picked: boolean][] = [
  ['all()', {}, true],
  ['role == "db"', { role: 'db' }, true],
  ['role == "db"', {}, false],
  ['role != "db"', {}, true],
  ['role not in {"db", "web"}', { role: 'app' }, true],
  ['role not in {"db", "web"}', { role: 'web' }, false],
  ['has(toString)', {}, false],
  ['a == "1" || b == "2" && c == "3"', { a: '1' }, true],
  ['(a == "1" || b == "2") && c == "3"', { a: '1' }, false],
];

const refused: [text: unknown, because: RegExp][] = [
  ['', /a label/],
  ['role', /==, !=, in or not in after role/],
  ['role = "db"', /not understood/],
  ['role == db', /a text in quotes instead of db/],
  ['role == "a\nb"', /printable characters/],
  ['role == "a  b"', /single spaces/],
  ['role in {}', /a text in quotes instead of }/],
  ['has(zone', /\)/],
  ['all() all()', /&&, \|\| or the end instead of all/],
  ['all() &&', /a label/],
  ['x'.repeat(1025), /at most 1024/],
  [`${'a=="1"||'.repeat(127)}a=="1"`, /at most 1024/],
  [17, /a selector/],
];

describe('a selector', () => {
  for (const [text, expected] of canonical)
    test(`${text} is ${expected}`, () => assert.equal(canonicalSelector(text), expected));
  for (const [text, labels, picked] of meanings)
    test(`${text} ${picked ? 'picks' : 'does not pick'} ${JSON.stringify(labels)}`, () =>
      assert.equal(selects(parseSelector(text), labels), picked));
  for (const [text, because] of refused)
    test(`${String(text).slice(0, 30)} is refused`, () => {
      assert.throws(() => canonicalSelector(text), { code: 'INVALID', message: because });
    });

  test('parses back from its text', () => {
    fc.assert(
      fc.property(selectorArbitrary, (selector) => {
        const text = selectorText(selector);
        fc.pre(text.length <= 1024);
        assert.deepEqual(parseSelector(text), structuredClone(selector));
      }),
      { numRuns: 500 },
    );
  });
});

test('the index picks what looking at everything would pick', () => {
  const id = fc.constantFrom('a', 'b', 'c');
  const step = fc.oneof(
    fc.record({ thing: id, labels: fc.option(labelsArbitrary) }),
    fc.record({ picker: id, selector: fc.option(selectorArbitrary) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 20 }), (steps) => {
      const index = new LabelIndex();
      const things = new Map<string, Record<string, string>>();
      const pickers = new Map<string, ReturnType<typeof parseSelector>>();
      const told = new Set<string>();
      for (const each of steps) {
        const isThing = 'thing' in each;
        const { came, went } = isThing
          ? index.setThing(each.thing, each.labels)
          : index.setSelector(each.picker, each.selector);
        const pair = (other: string): string =>
          isThing ? `${each.thing} ${other}` : `${other} ${each.picker}`;
        for (const other of came) {
          assert(!told.has(pair(other)));
          told.add(pair(other));
        }
        for (const other of went) assert(told.delete(pair(other)));
        if (isThing) each.labels === null ? things.delete(each.thing) : things.set(each.thing, each.labels);
        else each.selector === null ? pickers.delete(each.picker) : pickers.set(each.picker, each.selector);
      }
      const expected = [...things].flatMap(([thing, labels]) =>
        [...pickers].filter(([, selector]) => selects(selector, labels)).map(([name]) => `${thing} ${name}`),
      );
      assert.deepEqual([...told].sort(), expected.sort());
      for (const thing of things.keys())
        assert.deepEqual(
          [...index.pickedBy(thing)].sort(),
          expected.filter((pair) => pair.startsWith(`${thing} `)).map((pair) => pair.split(' ')[1]),
        );
    }),
    { numRuns: 500 },
  );
});
