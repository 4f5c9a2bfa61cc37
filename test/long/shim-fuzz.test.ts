/** libFuzzer on the parsers of the CNI executable, for as long as NETCTL_TEST_SECONDS says (600). */
import assert from 'node:assert/strict';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { run } from '../../lab/run.ts';
import { buildFuzzer, makeRoot } from '../kernel/shim-harness.ts';

const seconds = Number(process.env['NETCTL_TEST_SECONDS'] ?? 600);
const root = makeRoot();
after(() => rmSync(root, { recursive: true }));

test(`${seconds} s of libFuzzer`, { timeout: (seconds + 120) * 1000 }, async () => {
  const fuzzer = buildFuzzer(['clang', '-fsanitize=fuzzer,address,undefined'], root);
  const corpus = join(root, 'corpus');
  mkdirSync(corpus);
  const seeds = [
    '0{"cniVersion":"1.0.0","name":"edge","socket":"/run/netctl/cni.sock"}',
    '1\0\0\0\t\x01\0{"a":1}',
    '2ADD\xffc1\xff/run/netns/c1\xffeth0\xffIP=10.0.0.1\xff/opt/cni/bin',
  ];
  for (const [i, seed] of seeds.entries()) writeFileSync(join(corpus, `${i}`), Buffer.from(seed, 'latin1'));
  const limits = [
    `-max_total_time=${seconds}`,
    '-timeout=5',
    '-rss_limit_mb=1024',
    `-artifact_prefix=${root}/`,
  ];
  const { code, stderr } = await run([fuzzer, ...limits, corpus], { deadlineMs: (seconds + 60) * 1000 });
  const summary = stderr.split('\n').slice(-12).join('\n');
  assert.equal(code, 0, summary);
  console.log(`# ${/Done \d+ runs in \d+ second/.exec(stderr)?.[0]}`);
});
