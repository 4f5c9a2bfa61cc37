/**
 * The lab from outside, by the built command line: hosts come and go, containers join, and nothing is ever left.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { Lab } from '../../lab/lab.ts';
import { findPrograms } from '../../lab/programs.ts';
import { eventually, type Result, run } from '../../lab/run.ts';

const { netctl } = findPrograms();
const name = (suffix: string) => `t${process.pid}-${suffix}`;
/** Whatever a lab starts inherits it. */
const marked = (lab: string) => ({ NETCTL_LAB_TEST: `mark-${lab}` });

function processesOf(lab: string): string[] {
  return readdirSync('/proc')
    .filter((pid) => /^\d+$/.test(pid))
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/environ`, 'utf8').includes(`NETCTL_LAB_TEST=mark-${lab}\0`);
      } catch {
        return false;
      }
    });
}

async function nothingLeft(lab: string): Promise<void> {
  await eventually(`no process of ${lab}`, 5000, async () => processesOf(lab).length === 0);
  assert.equal(existsSync(`/run/netctl-lab/${lab}`), false);
}

/** `netctl lab WORDS --name LAB` */
function lab(lab: string, words: readonly string[]): Promise<Result> {
  const [verb = '', ...rest] = words;
  return run([netctl, 'lab', verb, '--name', lab, ...rest], { env: marked(lab), deadlineMs: 90_000 });
}

async function ok(which: string, words: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await lab(which, words);
  assert.equal(code, 0, `lab ${words.join(' ')}: ${stderr}`);
  return stdout;
}

interface Row {
  readonly name: string;
  readonly healthy: boolean;
  readonly containers: readonly { readonly name: string; readonly addresses: readonly string[] }[];
}

describe('netctl lab', () => {
  test('up, attach, exec, detach, down', async () => {
    const which = name('a');
    try {
      const rows = JSON.parse(await ok(which, ['up', '--nodes', '2', '-o', 'json'])) as Row[];
      assert.deepEqual(
        rows.map(({ name, healthy }) => [name, healthy]),
        [
          ['node1', true],
          ['node2', true],
        ],
      );
      assert.ok(processesOf(which).length > 4);
      const again = await lab(which, ['up']);
      assert.equal(again.code, 1);
      assert.match(again.stderr, /there is a lab/);

      const made = JSON.parse(
        await ok(which, ['attach', 'node1', 'web', '--profile', 'web', '--network', 'shop', '-o', 'json']),
      ) as { addresses: string[] };
      await ok(which, ['attach', 'node2', 'db', '--ip', '10.65.7.7']);
      const [address = ''] = made.addresses;
      assert.match(
        await ok(which, ['exec', 'node1/web', '--', 'ip', '-4', '-o', 'address']),
        new RegExp(`${address}/32`),
      );
      assert.match(
        await ok(which, ['exec', 'node2/db', '--', 'ip', '-4', '-o', 'address']),
        /10\.65\.7\.7\/32/,
      );
      const shown = await ok(which, [
        'exec',
        'node1',
        '--',
        'netctl',
        'endpoint',
        'show',
        '--node',
        'node1',
        '-o',
        'json',
      ]);
      assert.match(shown, /"shop"/);
      assert.equal((await lab(which, ['exec', 'node1', '--', 'sh', '-c', 'exit 7'])).code, 7);
      assert.equal((await ok(which, ['exec', 'node2', '--', 'hostname'])).trim(), 'node2');
      const hosts = JSON.parse(await ok(which, ['status', '-o', 'json'])) as Row[];
      assert.deepEqual(hosts.flatMap(({ containers }) => containers.map((one) => one.name)).sort(), [
        'db',
        'web',
      ]);

      await ok(which, ['detach', 'node1', 'web']);
      assert.notEqual((await lab(which, ['exec', 'node1/web', '--', 'true'])).code, 0);
      assert.equal((await lab(which, ['detach', 'node1', 'web'])).code, 1);
      await ok(which, ['exec', 'node2', '--', 'pkill', '-KILL', '-f', 'netctld.mjs']);
      const status = await lab(which, ['status', '-o', 'json']);
      assert.equal(status.code, 4);
      assert.match(status.stdout, /the agent is down/);
    } finally {
      await ok(which, ['down']);
    }
    await nothingLeft(which);
    assert.match(await ok(which, ['down']), /there is no lab/);
  });

  for (const moment of ['hosts', 'agents', 'Ctrl-C removes it']) {
    test(`Ctrl-C leaves nothing (at "${moment}")`, async () => {
      const which = name(`c${moment.length}`);
      const child = spawn(netctl, ['lab', 'up', '--name', which, '--nodes', '3', '--wait'], {
        env: { ...process.env, ...marked(which) },
        stdio: ['ignore', 'ignore', 'pipe'],
        detached: true,
      });
      let told = '';
      child.stderr.setEncoding('utf8').on('data', (text: string) => {
        told += text;
      });
      const ended = new Promise<number | null>((resolve) => child.once('exit', resolve));
      await eventually(moment, 60_000, async () => told.includes(moment));
      // The terminal signals everything in the foreground.
      process.kill(-child.pid!, 'SIGINT');
      assert.equal(await ended, moment.startsWith('Ctrl') ? 0 : 1, told);
      await nothingLeft(which);
    });
  }

  test('a command line that is killed on the way leaves a lab that goes down', async () => {
    const which = name('k');
    const child = spawn(netctl, ['lab', 'up', '--name', which], {
      env: { ...process.env, ...marked(which) },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let told = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      told += text;
    });
    const ended = new Promise((resolve) => child.once('exit', resolve));
    await eventually('hosts', 60_000, async () => told.includes('hosts'));
    child.kill('SIGKILL');
    await ended;
    assert.ok(processesOf(which).length > 0);
    await ok(which, ['down']);
    await nothingLeft(which);
  });

  test('bad input is refused before anything is made', async () => {
    const which = name('bad');
    for (const [words, told] of [
      [['up', '--nodes', '0'], /0 nodes/],
      [['up', '--nodes', '1000'], /1 to 200/],
      [['up', '--reflectors', '9'], /reflectors/],
      [['up', '--router', 'cisco'], /bird, frr, gobgp/],
      [['status'], /there is no lab/],
      [['exec', 'node1', '--', 'true'], /there is no lab/],
    ] as const) {
      const { code, stderr } = await lab(which, words);
      assert.equal(code, 1, stderr);
      assert.match(stderr, told);
      assert.equal(stderr.trim().split('\n').length, 1);
    }
    const { code, stderr } = await run([netctl, 'lab', 'up', '--name', '../x']);
    assert.equal(code, 1);
    assert.match(stderr, /no name of a lab/);
    await nothingLeft(which);
  });

  test('two labs at once; a host that lost its power comes back with what it had', async () => {
    const labs = await Promise.all(['x', 'y'].map((suffix) => Lab.up({ name: name(suffix), nodes: 2 })));
    try {
      const [one, two] = labs as [Lab, Lab];
      const made = await Promise.all(labs.map((lab) => lab.node('node1').attach('same')));
      assert.equal(made[0]?.addresses[0], made[1]?.addresses[0], 'nothing of one is seen in the other');
      await two.down();
      assert.equal((await one.node('node1').exec(['ping', '-c1', '-W2', '192.168.78.22'])).code, 0);

      const node = one.node('node2');
      await node.mustNetctl(['profile', 'add', 'kept']);
      await node.cable('down');
      assert.notEqual((await one.node('node1').exec(['ping', '-c1', '-W1', '192.168.78.22'])).code, 0);
      await node.cable('up');
      await node.crash();
      assert.equal(node.isUp, false);
      await one.reboot(node);
      assert.match(await node.mustNetctl(['profile', 'show']), /kept/);
      assert.deepEqual(node.containers(), []);
      assert.equal(Lab.open(one.name).node('node2').agentPid, node.agentPid, 'another process finds it');
    } finally {
      await Promise.all(labs.map((lab) => lab.down()));
    }
    for (const lab of labs) await nothingLeft(lab.name);
  });
});
