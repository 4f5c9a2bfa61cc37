/** `netctl lab` as words on a command line: what is handed to the lab, what people see, which exit code. The lab itself: test/kernel/lab*. */
import assert from 'node:assert/strict';
import { Readable, Writable } from 'node:stream';
import { describe, test } from 'node:test';
import type { LabControl, LabHost } from '../../../src/cli/lab-control.ts';
import { main } from '../../../src/cli/main.ts';

const host = (name: string, healthy: boolean): LabHost => ({
  name,
  address4: '192.168.78.21',
  address6: 'fd00:78::15',
  agent: 14,
  healthy,
  sessions: { established: 4, all: 4 },
  problems: healthy ? [] : ['policy: not in sync'],
  containers: [{ name: 'web', network: 'edge', addresses: ['10.65.0.1', 'fd00:65::1'] }],
});

/** Writes down what it is asked. */
function recorder(asked: unknown[], hosts: LabHost[] = [host('node1', true)]): LabControl {
  return {
    async up({ progress, ...options }) {
      asked.push(['up', options]);
      for (const done of [0, 1, 2]) progress('hosts', done, 2);
      return hosts;
    },
    interrupted: async () => void asked.push(['interrupted']),
    down: async (name) => asked.push(['down', name]) > 0,
    status: async () => hosts,
    async exec(...all) {
      asked.push(['exec', ...all]);
      return 7;
    },
    async attach(...all) {
      asked.push(['attach', ...all]);
      return { name: all[2], network: 'edge', addresses: ['10.65.0.1'] };
    },
    detach: async () => Promise.reject(new Error('node1 has no container x')),
  };
}

async function netctl(argv: readonly string[], control: LabControl, isTTY = false) {
  const texts = ['', ''];
  const sink = (i: number) =>
    Object.assign(
      new Writable({
        write(chunk, _encoding, done) {
          texts[i] += String(chunk);
          done();
        },
      }),
      { isTTY },
    );
  const streams = { stdin: Readable.from([]), stdout: sink(0), stderr: sink(1) };
  const code = await main(argv, { NO_COLOR: '1' }, streams, '0', async () => control);
  return { code, stdout: texts[0] ?? '', stderr: texts[1] ?? '' };
}

describe('netctl lab', () => {
  test('up: options, the table, and after an interrupt it is taken down', async () => {
    const asked: unknown[] = [];
    const words = 'lab up --nodes 5 --reflectors 2 --router frr --name x --wait'.split(' ');
    const { code, stdout } = await netctl(words, recorder(asked));
    assert.equal(code, 0);
    assert.deepEqual(asked, [
      ['up', { name: 'x', nodes: 5, reflectors: 2, router: 'frr' }],
      ['interrupted'],
      ['down', 'x'],
    ]);
    assert.match(stdout, /^HOST .*\nnode1 .*healthy +4\/4 +web=10\.65\.0\.1/);
    assert.equal((await netctl(['lab', 'up', '--nodes', 'three'], recorder([]))).code, 2);
  });

  test('progress is one line that is rewritten on a terminal, and only what is done elsewhere', async () => {
    const plain = (await netctl(['lab', 'up'], recorder([]))).stderr.split('\n');
    assert.equal(plain.filter((line) => line.includes('hosts')).length, 1);
    assert.match(plain[0] ?? '', /s {2}hosts 2\/2$/);
    const terminal = (await netctl(['lab', 'up'], recorder([]), true)).stderr.split('\n')[0] ?? '';
    assert.deepEqual(
      terminal.split('\r\u001b[K').map((text) => text.replace(/.*s {2}/, '')),
      ['', 'hosts 0/2', 'hosts 1/2', 'hosts 2/2'],
    );
  });

  test('exec: what stands after -- is left as it is, and so is the exit code', async () => {
    const asked: unknown[] = [];
    const { code } = await netctl(
      ['lab', 'exec', 'node1/web', '--', 'ls', '-l', '--', '--name'],
      recorder(asked),
    );
    assert.equal(code, 7);
    assert.deepEqual(asked, [['exec', 'default', 'node1/web', ['ls', '-l', '--', '--name']]]);
    assert.equal((await netctl(['lab', 'exec', 'node1'], recorder([]))).code, 2);
  });

  test('attach, detach, status', async () => {
    const asked: unknown[] = [];
    const words = 'lab attach node1 web --profile a --profile b --network n --ip 10.65.0.1'.split(' ');
    assert.match((await netctl(words, recorder(asked))).stdout, /node1\/web: 10\.65\.0\.1/);
    const options = { profiles: ['a', 'b'], network: 'n', ip: '10.65.0.1' };
    assert.deepEqual(asked, [['attach', 'default', 'node1', 'web', options]]);
    const { code, stderr } = await netctl(['lab', 'detach', 'node1', 'x'], recorder([]));
    assert.deepEqual([code, stderr], [1, 'netctl: node1 has no container x\n']);
    const sick = recorder([], [host('node1', true), host('node2', false)]);
    assert.equal((await netctl(['lab', 'status'], sick)).code, 4);
    assert.match((await netctl(['lab', 'status', '-o', 'wide'], sick)).stdout, /policy: not in sync/);
  });
});
