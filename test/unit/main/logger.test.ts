/** The agent's log, written by a process of its own whose reader is slow. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { resolve } from 'node:path';
import { test } from 'node:test';
import { eventually } from '../../../lab/run.ts';

const logger = resolve(import.meta.dirname, '../../../src/main/logger.ts');
/** More than a pipe takes before somebody reads it. */
const large = 300_000;

/** @param bytes of the first line */
function logging(bytes: number, then: string): ReturnType<typeof spawn> {
  const code = `
    const { createLogger } = await import(${JSON.stringify(logger)});
    const logger = createLogger({ level: 'info', format: 'json' });
    logger.info({ filler: 'x'.repeat(${bytes}) }, 'first');
    ${then}`;
  return spawn(process.execPath, ['--input-type=module', '-e', code], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
}

test('a line that comes while another one is being written is not held back', async () => {
  const child = logging(
    large,
    `setTimeout(() => logger.info({}, 'second'), 100);
    setTimeout(() => undefined, 60_000);`,
  );
  try {
    // Until the process has written what the pipe takes, and has come to the second line.
    await new Promise((waited) => setTimeout(waited, 1000));
    let text = '';
    child.stdout!.on('data', (chunk) => {
      text += chunk;
    });
    await eventually('both lines', 10_000, async () => /"second"/.test(text));
  } finally {
    child.kill('SIGKILL');
  }
});

test('what is left when the process ends is written', async () => {
  const child = logging(10, `logger.info({}, 'last'); process.exit(0);`);
  let text = '';
  for await (const chunk of child.stdout!) text += chunk;
  assert.match(text, /"first"\}\n.*"last"\}\n$/);
});
