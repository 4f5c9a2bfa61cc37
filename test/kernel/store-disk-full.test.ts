/** The SQLite store on a disk that fills up: a small tmpfs in a mount namespace of its own, gone with the process. Needs root. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';

test('no space: refused with the reason, acknowledged writes stay, and it goes on when there is space again', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'netctl-disk-'));
  const scenario = join(import.meta.dirname, 'store-disk-full-process.ts');
  const unshare = ['--mount', '--propagation', 'private', process.execPath, scenario, directory];
  try {
    const { stdout } = await promisify(execFile)('unshare', unshare, { timeout: 60_000 });
    assert.match(stdout, /^held: [1-9]\d* transactions before the disk was full, [1-9]\d* after\n$/);
  } finally {
    rmSync(directory, { recursive: true });
  }
});
