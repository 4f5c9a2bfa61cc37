/**
 * BIRD's configuration for each kind of cluster, as it is reviewed: files in golden/, written anew with UPDATE=1.
 */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { compileBgp } from '../../../src/bgp/compile.ts';
import { renderBird, stampOf } from '../../../src/bgp/render.ts';
import { parseAddress } from '../../../src/model/ip.ts';
import { cases } from './cases.ts';
import { input, node } from './cluster.ts';

const directory = join(import.meta.dirname, 'golden');

describe('the configuration of', () => {
  for (const [name, records] of Object.entries(cases)) {
    test(name, () => {
      const file = join(directory, `${name}.conf`);
      const text = renderBird(compileBgp(records));
      if (process.env['UPDATE'] === '1') writeFileSync(file, text);
      assert.ok(existsSync(file), `${file} is there`);
      assert.equal(text, readFileSync(file, 'utf8'));
    });
  }

  test('nothing else is among the golden files', () => {
    assert.deepEqual(
      readdirSync(directory).sort(),
      Object.keys(cases)
        .map((name) => `${name}.conf`)
        .sort(),
    );
  });
});

test('the stamp changes with the text, and with nothing else', () => {
  const texts = Object.values(cases).map((records) => renderBird(compileBgp(records)));
  const stamps = texts.map(stampOf);
  assert.equal(new Set(stamps).size, texts.length);
  assert.ok(stamps.every((stamp) => stamp !== null));
  assert.equal(stampOf(renderBird(compileBgp(cases['mesh-of-3']!))), stampOf(texts[0]!));
  assert.equal(stampOf('router id 1.2.3.4;'), null);
});

test('a further peer of one kind is one further line, also the hundredth', () => {
  const size = (count: number): { lines: number; bytes: number } => {
    const nodes = Object.fromEntries(
      Array.from({ length: count }, (_, i) => [
        `node${i + 1}`,
        node(1, { address4: parseAddress(`10.0.${i}.1`) }),
      ]),
    );
    // In the middle, so that both kinds of peers are there: those that it waits for, and those that it connects to.
    const text = renderBird(compileBgp(input({ nodes, node: `node${Math.ceil(count / 2)}` })));
    return { lines: text.split('\n').length, bytes: Buffer.byteLength(text) };
  };
  assert.equal(size(100).lines - size(99).lines, 1);
  assert.equal(size(100).lines - size(10).lines, 90);
  assert.ok(size(100).bytes < 12_000, `${size(100).bytes} bytes`);
});
