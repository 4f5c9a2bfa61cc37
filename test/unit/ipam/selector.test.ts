/** Selectors: what they mean (against an evaluator written apart), and that a wrong one is refused with the place of its fault. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { parseAddressRange } from '../../../src/model/address-range.ts';
import { type Labels, parseSelector } from '../../../src/model/selector.ts';

const labels: Labels = { rack: 'r1', zone: 'z', role: 'a', 'disk/type': 'fast-ssd' };

describe('selector', () => {
  const cases: [string, boolean][] = [
    ['all()', true],
    ['rack == "r1"', true],
    ["rack == 'r2'", false],
    ['rack != "r2"', true],
    ['none != "x"', true],
    ['none == "x"', false],
    ['has(zone)', true],
    ['has(constructor)', false],
    ['!has(zone)', false],
    ['role in {"a","b"}', true],
    ['role not in {"a", "b"}', false],
    ['none not in {"a"}', true],
    ['disk/type contains "ssd"', true],
    ['disk/type starts with "fast" && disk/type ends with "ssd"', true],
    ['rack == "r1" && has(zone) && role in {"a","b"} && !(disk/type contains "hdd")', true],
    ['rack == "r2" || rack == "r1" && role == "b"', false],
    ['(rack == "r2" || rack == "r1") && !!has(role)', true],
    ['in == "x" || has == "y" || all == "z"', false],
  ];
  for (const [text, expected] of cases)
    test(`${text} → ${expected}`, () => assert.equal(parseSelector(text)(labels), expected));

  const faults: [string, RegExp][] = [
    ['', /a selector such as/],
    ['rack', /==, !=, in, .*at character 5/],
    ['rack == r1', /text in quotes at character 9/],
    ['rack == "r1', /at character 8|quotes/],
    ['rack == "r1" zone', /&&, \|\| or the end at character 14/],
    ['(rack == "r1"', /\) at character 14/],
    ['role in {}', /text in quotes at character 10/],
    ['has(zone', /\) at character 9/],
    ['rack = "r1"', /at character 5/],
    ['!', /name of a label at character 2/],
    ['x'.repeat(1025), /at most 1024 characters/],
    [`${'('.repeat(40)}all()${')'.repeat(40)}`, /at most 32 nested/],
  ];
  for (const [text, message] of faults)
    test(`refused: ${text.slice(0, 40)}`, () =>
      assert.throws(() => parseSelector(text, 'nodeSelector'), { code: 'INVALID', message }));

  type Tree =
    | { op: 'and' | 'or'; left: Tree; right: Tree }
    | { op: 'not'; of: Tree }
    | { op: '==' | '!=' | 'contains'; key: string; value: string }
    | { op: 'has'; key: string }
    | { op: 'in' | 'not in'; key: string; values: string[] };
  const key = fc.constantFrom('a', 'b', 'c.d/e');
  const value = fc.constantFrom('', 'x', 'y', 'xy', '&& ||');
  const { tree } = fc.letrec<{ tree: Tree }>((tie) => ({
    tree: fc.oneof(
      { maxDepth: 4 },
      fc.record({ op: fc.constantFrom('==', '!=', 'contains'), key, value }) as fc.Arbitrary<Tree>,
      fc.record({ op: fc.constant('has'), key }) as fc.Arbitrary<Tree>,
      fc.record({
        op: fc.constantFrom('in', 'not in'),
        key,
        values: fc.array(value, { minLength: 1, maxLength: 3 }),
      }) as fc.Arbitrary<Tree>,
      fc.record({ op: fc.constant('not'), of: tie('tree') }) as fc.Arbitrary<Tree>,
      fc.record({
        op: fc.constantFrom('and', 'or'),
        left: tie('tree'),
        right: tie('tree'),
      }) as fc.Arbitrary<Tree>,
    ),
  }));
  const write = (node: Tree): string => {
    switch (node.op) {
      case 'and':
        return `(${write(node.left)}) && (${write(node.right)})`;
      case 'or':
        return `(${write(node.left)})||(${write(node.right)})`;
      case 'not':
        return `!(${write(node.of)})`;
      case 'has':
        return `has( ${node.key} )`;
      case 'in':
      case 'not in':
        return `${node.key} ${node.op} {${node.values.map((text) => `"${text}"`).join(' , ')}}`;
      default:
        return `${node.key} ${node.op} '${node.value}'`;
    }
  };
  const holds = (node: Tree, given: Labels): boolean => {
    switch (node.op) {
      case 'and':
        return holds(node.left, given) && holds(node.right, given);
      case 'or':
        return holds(node.left, given) || holds(node.right, given);
      case 'not':
        return !holds(node.of, given);
      case 'has':
        return node.key in given;
      case 'in':
        return node.values.includes(given[node.key] as string);
      case 'not in':
        return !node.values.includes(given[node.key] as string);
      case '==':
        return given[node.key] === node.value;
      case '!=':
        return given[node.key] !== node.value;
      case 'contains':
        return given[node.key]?.includes(node.value) ?? false;
    }
  };
  test('property: a written tree means what the tree means', () => {
    fc.assert(
      fc.property(tree, fc.dictionary(key, value), (node, given) => {
        assert.equal(parseSelector(write(node))({ ...given }), holds(node, given));
      }),
      { numRuns: 500 },
    );
  });

  test('property: any text is understood or refused as INVALID', () => {
    const piece = fc.constantFrom(
      'a',
      '==',
      '"x"',
      '!',
      '(',
      ')',
      '&&',
      '||',
      'in',
      '{',
      '}',
      ',',
      'has',
      ' ',
      '$',
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => {
        try {
          parseSelector(pieces.join(' '))({});
        } catch (error) {
          assert.equal((error as { code: string }).code, 'INVALID');
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe('range', () => {
  test('first and last address, or a prefix; anything else is refused', () => {
    assert.equal(parseAddressRange('10.0.0.1-10.0.0.9'), '10.0.0.1-10.0.0.9');
    assert.equal(parseAddressRange('10.0.0.0/30'), '10.0.0.0-10.0.0.3');
    assert.equal(parseAddressRange('fd00::0-fd00::f'), 'fd00::-fd00::f');
    for (const text of [
      '10.0.0.9-10.0.0.1',
      '10.0.0.1',
      '10.0.0.1-fd00::1',
      '1-2',
      '10.0.0.1-10.0.0.2-10.0.0.3',
      7,
    ])
      assert.throws(() => parseAddressRange(text), { code: 'INVALID' }, String(text));
  });
});
