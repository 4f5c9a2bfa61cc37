/**
 * The real BIRD reads what we write: the golden files, and the configurations of random clusters; and refuses what is broken.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { compileBgp } from '../../src/bgp/compile.ts';
import { renderBird } from '../../src/bgp/render.ts';
import { ProgramError, run } from '../../src/lib/process.ts';
import { aCluster } from '../unit/bgp/arbitrary.ts';

const bird = '/usr/sbin/bird';
const golden = join(import.meta.dirname, '../unit/bgp/golden');
const directory = mkdtempSync(join(tmpdir(), 'netctl-bird-'));
after(() => rmSync(directory, { recursive: true }));

/** Its complaint, or null. */
async function complaint(text: string): Promise<string | null> {
  const file = join(directory, 'bird.conf');
  writeFileSync(file, text, { mode: 0o600 });
  try {
    await run(bird, ['-p', '-c', file], { timeoutMs: 20_000 });
    return null;
  } catch (error) {
    if (error instanceof ProgramError) return error.stderr;
    throw error;
  }
}

for (const name of readdirSync(golden)) {
  test(`BIRD reads ${name}`, async () => {
    assert.equal(await complaint(readFileSync(join(golden, name), 'utf8')), null);
  });
}

test('BIRD reads the configuration of any cluster', async () => {
  await fc.assert(
    fc.asyncProperty(aCluster, async (cluster) => {
      assert.equal(await complaint(renderBird(compileBgp(cluster))), null);
    }),
    { numRuns: 60 },
  );
});

test('BIRD refuses a configuration that was damaged, wherever it was cut', async () => {
  const text = readFileSync(join(golden, 'filters.conf'), 'utf8');
  for (const end of ['import filter { ', 'protocol bgp', 'password "', 'if net ~ [ '].map((part) =>
    text.indexOf(part),
  ))
    if (end > 0)
      assert.match((await complaint(text.slice(0, end + 8))) ?? '', /syntax error|Unterminated|Missing/);
});
