/** policy-switch-peer.ts in a container: started when it is ready, ended when what it has seen is wanted. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Container } from '../../lab/container.ts';

const script = new URL('./policy-switch-peer.ts', import.meta.url).pathname;

export interface Seen {
  readonly received: number;
  readonly sent: number;
  readonly made: number;
  readonly failed: number;
}

export class PeerProcess {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.#lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  }

  static async start(container: Container, ...args: string[]): Promise<PeerProcess> {
    const command = ['netns', 'exec', container.netns, process.execPath, script, ...args];
    const peer = new PeerProcess(spawn('ip', command, { stdio: ['pipe', 'pipe', 'inherit'] }));
    assert.equal((await peer.#lines.next()).value, 'ready');
    return peer;
  }

  async end(): Promise<Seen> {
    this.#child.stdin!.end();
    return JSON.parse((await this.#lines.next()).value as string) as Seen;
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }
}
