/**
 * netctl in this process against an API that listens on a unix socket, anew for each test.
 *
 * In: command lines, standard input, environment. Out: exit code and both streams. Never: a part of the command line or of the
 * API replaced.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable, Writable } from 'node:stream';
import { after, afterEach, beforeEach } from 'node:test';
import type { Environment } from '../../../src/cli/client.ts';
import { main } from '../../../src/cli/main.ts';
import { type Fixture, makeApi } from '../api/fixture.ts';

export interface Run {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** For a whole test file: the API of the current test, and what runs netctl against it. */
export function useCli() {
  const directory = mkdtempSync(join(tmpdir(), 'netctl-cli-'));
  let sockets = 0;
  const cli = {
    directory,
    socket: '',
    fixture: {} as Fixture,
    /** Another API instead of the one that the test began with. */
    async listen(overrides: Parameters<typeof makeApi>[0] = {}): Promise<void> {
      await cli.fixture.api?.close();
      cli.socket = join(directory, `${sockets++}.sock`);
      cli.fixture = makeApi(overrides);
      await cli.fixture.api.listen({ path: cli.socket });
    },
    netctl,
    all,
  };
  beforeEach(() => cli.listen());
  afterEach(() => cli.fixture.api.close());
  after(() => rmSync(directory, { recursive: true }));
  return cli;

  async function netctl(
    line: string | readonly string[],
    stdin = '',
    env: Environment = {},
    isTTY = false,
  ): Promise<Run> {
    const argv = typeof line === 'string' ? line.split(' ').filter((word) => word !== '') : line;
    const [stdout, stderr] = [new Sink(isTTY), new Sink(isTTY)];
    const input = Object.assign(Readable.from(stdin === '' ? [] : [Buffer.from(stdin)]), { isTTY });
    const code = await main(
      argv,
      { NETCTL_API: `unix:${cli.socket}`, ...env },
      { stdin: input, stdout, stderr },
      '0.1.0',
    );
    return { code, stdout: stdout.text, stderr: stderr.text };
  }

  /** Runs the lines, each of which must succeed; the output of the last. */
  async function all(...lines: string[]): Promise<string> {
    let stdout = '';
    for (const line of lines) {
      const run = await netctl(line);
      assert.equal(run.code, 0, `${line}: ${run.stderr}`);
      assert.equal(run.stderr, '', line);
      stdout = run.stdout;
    }
    return stdout;
  }
}

export function lines(...text: string[]): string {
  return text.map((line) => `${line}\n`).join('');
}

/** A real process. */
export function run(command: string, args: readonly string[]): Promise<Run> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let [stdout, stderr] = ['', ''];
    child.stdout.on('data', (chunk) => (stdout += chunk));
    child.stderr.on('data', (chunk) => (stderr += chunk));
    child.on('error', reject);
    child.on('close', (code) => resolve({ code: code ?? -1, stdout, stderr }));
  });
}

class Sink extends Writable {
  text = '';
  readonly isTTY: boolean;

  constructor(isTTY = false) {
    super();
    this.isTTY = isTTY;
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.text += chunk.toString();
    done();
  }
}
