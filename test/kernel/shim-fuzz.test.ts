/** The parsers of the CNI executable on 50,000 broken inputs, the same ones each time, under AddressSanitizer and UBSan. */
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { after, test } from 'node:test';
import { run } from '../../lab/run.ts';
import { buildFuzzer, makeRoot } from './shim-harness.ts';

const root = makeRoot();
after(() => rmSync(root, { recursive: true }));

test('no broken input is read beyond its end, or believed', async () => {
  const fuzzer = buildFuzzer(['gcc', '-fsanitize=address,undefined', '-DFUZZ_RUNS=50000'], root);
  const { code, stderr } = await run([fuzzer], { deadlineMs: 90_000 });
  assert.equal(code, 0, stderr);
});
