/**
 * The port Bird: the real program and the one in memory under one contract, and what only the real one can show.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { eventually } from '../../lab/run.ts';
import { parseConfigureReply } from '../../src/bgp/reply.ts';
import { parseSessions, parseStatus } from '../../src/bgp/status.ts';
import { type Bird, BirdRejection } from '../../src/linux/bird.ts';
import { FakeBird } from '../../src/linux/fake/bird.ts';
import { createBird } from '../../src/linux/real/bird.ts';
import { enterSandbox } from './linux-contract-sandbox.ts';

// Birds of the namespace are counted: those of other files are not to be among them.
enterSandbox(import.meta.url);

const program = '/usr/sbin/bird';
const deaf = { onLog: () => undefined, onEnd: () => undefined };
/** A configuration with a peer that nobody is, as renderBird lays it out. */
const text = (stamp: string): string => `define netctl_stamp = "${stamp}";
router id 192.0.2.1;
timeformat protocol iso long;
log syslog { fatal };
protocol device { }
template bgp peer1 {
  local 127.0.0.1 port 1790 as 64512;
  multihop;
  ipv4 { import all; export none; };
}
protocol bgp mesh_1 from peer1 { neighbor 127.0.0.2 port 1790 as 64513; passive on; }
`;

interface Rig {
  readonly bird: Bird;
  crash(): Promise<void>;
  close(): Promise<void>;
}

function realRig(): Rig & { readonly directory: string } {
  const directory = mkdtempSync(join(tmpdir(), 'bird-'));
  const bird = createBird({ program, directory });
  const crash = async (): Promise<void> => {
    const pid = bird.pid();
    if (pid === null || !isBird(pid)) return;
    process.kill(pid, 'SIGKILL');
    await eventually('BIRD has ended', 5000, async () => !isBird(pid));
  };
  return {
    bird,
    directory,
    crash,
    async close() {
      await crash();
      rmSync(directory, { recursive: true });
    },
  };
}

function fakeRig(): Rig {
  const bird = new FakeBird();
  return { bird, crash: async () => bird.crash(), close: async () => undefined };
}

for (const [name, make] of [
  ['real', realRig],
  ['fake', fakeRig],
] as const) {
  test(`${name}: is installed, started, asked, told and lost`, async () => {
    const rig = make();
    const { bird } = rig;
    try {
      assert.match((await bird.version()) ?? '', /^2\./);
      assert.equal(bird.installed(), null);
      assert.equal(await bird.connect(deaf), null);
      await assert.rejects(bird.start(false), 'without a configuration');
      await bird.install(text('one'));
      assert.equal(bird.installed(), text('one'));
      await bird.start(false);
      await assert.rejects(bird.start(false), /another BIRD/);
      let ended = 0;
      const session = await bird.connect({ ...deaf, onEnd: () => ended++ });
      assert.ok(session !== null);
      assert.match(await session.ask('eval netctl_stamp'), /^0023 "?one"?$/);
      await bird.install(text('two'));
      const [reply, stamp] = await Promise.all([session.ask('configure'), session.ask('eval netctl_stamp')]);
      assert.equal(parseConfigureReply(reply).accepted, true);
      assert.match(stamp, /two/, 'replies come in the order of the commands');
      const [peer] = parseSessions(await session.ask('show protocols all'));
      assert.deepEqual(
        [peer?.protocol, peer?.address, peer?.asNumber, peer?.localAsNumber],
        ['mesh_1', '127.0.0.2', 64513, 64512],
      );
      assert.match(parseStatus(await session.ask('show status')).version, /^2\./);
      await rig.crash();
      await eventually('its end is heard of', 10_000, async () => ended === 1);
      await assert.rejects(session.ask('show status'), /has ended/);
      assert.equal(await bird.connect(deaf), null);
      await bird.start(true);
      const again = await bird.connect({ ...deaf, onEnd: () => ended++ });
      again?.close();
      await rig.crash();
      assert.equal(ended, 1, 'nobody hears of an end after close()');
    } finally {
      await rig.close();
    }
  });
}

describe('the real BIRD', () => {
  test('refuses a broken configuration in its own words, and the one before stays', async () => {
    const rig = realRig();
    try {
      await rig.bird.install(text('good'));
      await assert.rejects(
        rig.bird.install(text('bad').replace('local 127.0.0.1', 'local nonsense')),
        (error: unknown) => error instanceof BirdRejection && /line 7.*nonsense|7:\d+/.test(error.message),
      );
      assert.equal(rig.bird.installed(), text('good'));
    } finally {
      await rig.close();
    }
  });

  test('tells its log, whole replies in between', async () => {
    const rig = realRig();
    try {
      await rig.bird.install(text('log').replace('passive on;', 'passive on; debug { states };'));
      await rig.bird.start(false);
      const lines: string[] = [];
      const session = await rig.bird.connect({ ...deaf, onLog: (line) => lines.push(line) });
      await session!.ask('echo all');
      const replies = await Promise.all(['restart "mesh_1"', 'show status'].map((ask) => session!.ask(ask)));
      assert.match(replies[1]!, /Daemon is up and running$/);
      await eventually('the log line is there', 10_000, async () =>
        lines.includes('mesh_1: State changed to start'),
      );
      session!.close();
    } finally {
      await rig.close();
    }
  });

  test('lives on when those who started it end, and others are found', async () => {
    const [mine, other] = [realRig(), realRig()];
    try {
      await mine.bird.install(text('mine'));
      // Another process starts it, as an agent, in a process group and session that end.
      const source = `import { createBird } from ${JSON.stringify(new URL('../../src/linux/real/bird.ts', import.meta.url).href)};
        await createBird(${JSON.stringify({ program, directory: mine.directory })}).start(false);
        process.kill(-process.pid, 'SIGKILL');`;
      const agent = spawn(process.execPath, ['--input-type=module', '-e', source], {
        detached: true,
        stdio: 'ignore',
      });
      await once(agent, 'exit');
      assert.equal(agent.signalCode, 'SIGKILL');
      const session = await mine.bird.connect(deaf);
      assert.ok(session !== null);
      session.close();
      assert.deepEqual(mine.bird.others(), []);
      await other.bird.install(text('other').replaceAll('1790', '1791'));
      await other.bird.start(false);
      assert.deepEqual(mine.bird.others(), [other.bird.pid()]);
    } finally {
      await mine.close();
      await other.close();
    }
  });

  test('absent: there is no version', async () => {
    assert.equal(await createBird({ program: '/nowhere/bird', directory: '/nowhere' }).version(), null);
  });
});

function isBird(pid: number): boolean {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trim() === 'bird';
  } catch {
    return false;
  }
}
