/** Documents that repeat a table of the code say the same as the code. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { configDoc, configDocPath } from '../../scripts/config-doc.ts';
import { cniCodes } from '../../src/cni/errors.ts';
import { type ErrorCode, errorKinds } from '../../src/lib/errors.ts';

test('docs/errors.md lists every code with its kind and its CNI number, and no other', () => {
  const page = readFileSync(new URL('../../docs/errors.md', import.meta.url), 'utf8');
  const rows = [...page.matchAll(/^\| `([A-Z_]+)` \| (\S+) \| (\d+) \| \S/gm)].map(
    ([, code, kind, number]) => `${code} ${kind} ${number}`,
  );
  const codes = Object.entries(errorKinds).map(
    ([code, kind]) => `${code} ${kind} ${cniCodes[code as ErrorCode]}`,
  );
  assert.deepEqual(rows.sort(), codes.sort());
});

test('docs/config.md is what `node scripts/config-doc.ts` writes', () => {
  assert.equal(readFileSync(configDocPath, 'utf8'), configDoc());
});
