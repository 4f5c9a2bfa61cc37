/** Running programs: output, input, failures, time limit. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ProgramError, run } from '../../../src/lib/process.ts';

test('standard input goes in, both outputs come back', async () => {
  const stdin = 'x'.repeat(300_000);
  const { stdout, stderr } = await run('sh', ['-c', 'cat; echo done >&2'], { stdin, timeoutMs: 10_000 });
  assert.equal(stdout, stdin);
  assert.equal(stderr, 'done\n');
});

test('a failure names the program, its first complaint and its exit code', async () => {
  await assert.rejects(
    run('sh', ['-c', 'echo; echo first >&2; echo second >&2; exit 3'], { timeoutMs: 10_000 }),
    (error) => {
      assert.ok(error instanceof ProgramError);
      assert.equal(error.message, 'sh: first (exit code 3)');
      assert.equal(error.exitCode, 3);
      assert.equal(error.stderr, 'first\nsecond\n');
      return true;
    },
  );
});

test('a program that is not there, or does not read its input, or dies', async () => {
  await assert.rejects(
    run('/no/such/program', [], { timeoutMs: 1000 }),
    /\/no\/such\/program: cannot be started/,
  );
  await run('true', [], { stdin: 'x'.repeat(1_000_000), timeoutMs: 10_000 });
  await assert.rejects(run('sh', ['-c', 'kill -TERM $$'], { timeoutMs: 10_000 }), /signal SIGTERM/);
});

test('a program that takes too long is killed', async () => {
  const start = performance.now();
  await assert.rejects(run('sleep', ['60'], { timeoutMs: 50 }), /sleep: did not end within 50 ms/);
  assert.ok(performance.now() - start < 10_000);
});
