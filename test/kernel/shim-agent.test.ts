/**
 * The CNI executable when the agent is away, slow, wrong or dead.
 * In: both builds, each also with all waits divided by QUICK, so that the 90 s deadline can be watched.
 * Out: error codes and times; a DEL is always queued or refused, never lost.
 * Needs root: one network namespace of its own, removed at the end.
 */
import assert from 'node:assert/strict';
import { chmodSync, chownSync, mkdirSync, rmSync, symlinkSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  type Behaviour,
  build,
  config,
  encodeReply,
  entries,
  environment,
  errorOf,
  type Flavour,
  makeNetns,
  makeRoot,
  makeRunDirectory,
  queueName,
  start,
  startAgent,
} from './shim-harness.ts';

const QUICK = 20;
const root = makeRoot();
const netns = makeNetns();
after(() => {
  netns.remove();
  rmSync(root, { recursive: true });
});

const bytes = (...list: number[]) => Buffer.from(list);
const silent: Behaviour = () => undefined;
const succeed: Behaviour = (_, peer) => peer.write(encodeReply(0, ''));

/** What an agent may do wrong, and what the plugin says. */
const WRONGS: [string, Behaviour, RegExp][] = [
  ['closes', (_, peer) => peer.destroy(), /closed the connection before it answered$/],
  [
    'closes in the middle',
    (_, peer) => peer.end(encodeReply(0, 'abc').subarray(0, 7)),
    /closed the connection/,
  ],
  [
    'length 0',
    (_, peer) => peer.write(bytes(0, 0, 0, 0, 1)),
    /sent a frame of 0 bytes; a reply has 2 to 4194304$/,
  ],
  ['length 1', (_, peer) => peer.write(bytes(0, 0, 0, 1, 1)), /sent a frame of 1 bytes/],
  ['length over 4 MiB', (_, peer) => peer.write(bytes(0, 0x40, 0, 1, 1)), /sent a frame of 4194305 bytes/],
  ['HTTP', (_, peer) => peer.write('HTTP/1.1 400 Bad Request\r\n\r\n'), /sent a frame of 1213486160 bytes/],
];

for (const flavour of ['musl', 'sanitized'] as Flavour[]) {
  describe(flavour, { concurrency: true }, () => {
    const shim = build(flavour, root);
    const quick = build(flavour, root, QUICK);
    const run = (command: string, socket: string, path = shim) =>
      start(path, environment(command, netns.path), config(socket)).done;

    test('nobody listens: error after the time to connect, DEL is queued', async () => {
      const { socket, queue } = makeRunDirectory(root);
      const expected = {
        ADD: [11, 5000],
        CHECK: [11, 1000],
        GC: [11, 1000],
        STATUS: [50, 0],
        DEL: [0, 1000],
      } as const;
      const outcomes = Object.entries(expected).map(async ([command, [code, ms]]) => {
        const outcome = await run(command, socket);
        assert.ok(outcome.ms > ms - 200 && outcome.ms < ms + 900, `${command}: ${outcome.ms} ms`);
        if (command === 'DEL')
          return assert.deepEqual([outcome.status, outcome.stdout, outcome.stderr], [0, '', '']);
        const { code: got, msg, details } = errorOf(outcome);
        assert.deepEqual([got, msg], [code, `netctl agent: ${socket}: No such file or directory`]);
        assert.equal(details, 'netctld is not running, or overloaded');
      });
      await Promise.all(outcomes);
      assert.deepEqual(entries(queue), [queueName('edge', 'c1', 'eth0')]);
    });

    test('an agent that comes up in time is used, even when its directory is new', async () => {
      const { dir, socket } = makeRunDirectory(root);
      rmSync(dir, { recursive: true });
      const running = run('ADD', socket);
      await sleep(300);
      mkdirSync(dir, { mode: 0o700 });
      await sleep(200);
      const agent = await startAgent(socket, (_, peer) => peer.write(encodeReply(0, '{}')));
      assert.deepEqual((await running).stdout, '{}');
      await agent.close();
    });

    test('wrong answers', async () => {
      for (const [what, behaviour, message] of WRONGS) {
        const { socket, queue } = makeRunDirectory(root);
        const agent = await startAgent(socket, behaviour);
        for (const [command, code] of [
          ['ADD', 11],
          ['CHECK', 11],
          ['GC', 11],
          ['STATUS', 50],
        ] as const) {
          const { code: got, msg } = errorOf(await run(command, socket));
          assert.equal(got, code, what);
          assert.match(msg, message);
        }
        assert.deepEqual(entries(queue), []);
        assert.equal((await run('DEL', socket)).status, 0, what);
        assert.deepEqual(entries(queue), [queueName('edge', 'c1', 'eth0')]);
        await agent.close();
      }
    });

    test('another protocol version is named, and DEL is not queued', async () => {
      const { socket, queue } = makeRunDirectory(root);
      const agent = await startAgent(socket, (_, peer) => peer.end(encodeReply(0, 'new', 2)));
      for (const [command, code] of [
        ['ADD', 11],
        ['DEL', 11],
        ['STATUS', 50],
      ] as const) {
        const { code: got, msg, details } = errorOf(await run(command, socket));
        assert.equal(got, code);
        assert.equal(
          `${msg}${details ?? ''}`.includes('protocol version 2, this plugin speaks version 1'),
          true,
          msg,
        );
      }
      assert.deepEqual(entries(queue), []);
      await agent.close();
    });

    test('an agent that answers and closes without reading is heard', async () => {
      const { socket } = makeRunDirectory(root);
      const server = createServer((peer) => {
        peer.on('error', () => undefined);
        peer.pause();
        peer.write(encodeReply(3, 'early'), () => peer.destroy());
      }).listen(socket);
      const outcome = await start(shim, environment('ADD', netns.path), config(socket).padEnd(1 << 20)).done;
      assert.deepEqual([outcome.status, outcome.stdout], [3, 'early']);
      await new Promise((resolve) => server.close(resolve));
    });

    test('deadlines', async () => {
      const { socket, queue } = makeRunDirectory(root);
      const agent = await startAgent(socket, silent);
      const quickly = { ADD: 90_000, CHECK: 20_000, GC: 25_000, DEL: 20_000 };
      const outcomes = Object.entries(quickly).map(
        async ([command, ms]) => [command, ms / QUICK, await run(command, socket, quick)] as const,
      );
      const status = run('STATUS', socket);
      for (const [command, ms, outcome] of [
        ...(await Promise.all(outcomes)),
        ['STATUS', 2000, await status] as const,
      ]) {
        assert.ok(outcome.ms > ms - 50 && outcome.ms < ms + 900, `${command}: ${outcome.ms} ms`);
        if (command === 'DEL') assert.deepEqual([outcome.status, outcome.stdout], [0, '']);
        else assert.equal(errorOf(outcome).code, command === 'STATUS' ? 50 : 11);
        if (command !== 'DEL') assert.match(errorOf(outcome).msg, /did not answer in time$/);
      }
      assert.equal(entries(queue).length, 1);
      await agent.close();
    });

    test('standard input that never ends', async () => {
      const outcome = await start(quick, environment('CHECK', netns.path)).done;
      assert.deepEqual(
        [errorOf(outcome).code, errorOf(outcome).msg],
        [5, 'error reading from stdin: no end of input in time'],
      );
    });

    test('signals end every wait; DEL is queued', async () => {
      const away = makeRunDirectory(root);
      const slow = makeRunDirectory(root);
      const arrived = new Map<string, number>();
      const agent = await startAgent(slow.socket, (frame) => {
        const command = frame.env[0]!;
        arrived.set(command, frame.pid);
      });
      for (const signal of ['SIGTERM', 'SIGINT'] as const) {
        for (const [command, { socket, queue }] of [
          ['ADD', away],
          ['ADD', slow],
          ['DEL', away],
          ['DEL', slow],
        ] as const) {
          arrived.clear();
          const running = start(shim, environment(command, netns.path), config(socket));
          if (socket === slow.socket) while (!arrived.has(`CNI_COMMAND=${command}`)) await sleep(5);
          else await sleep(150);
          const sent = performance.now();
          process.kill(running.pid, signal);
          const outcome = await running.done;
          assert.ok(performance.now() - sent < 500);
          if (command === 'ADD') assert.match(errorOf(outcome).msg, /terminated by a signal/);
          else assert.deepEqual([outcome.status, outcome.stdout, entries(queue).length], [0, '', 1]);
        }
      }
      await agent.close();
    });

    test('a directory that others can write to is refused', async () => {
      const cases: [string, (dir: string) => void][] = [
        ['mode 0777 lets others write', (dir) => chmodSync(dir, 0o777)],
        ['mode 0770 lets others write', (dir) => chmodSync(dir, 0o770)],
        ['owned by uid 65534, must be root', (dir) => chownSync(dir, 65534, 65534)],
        ['-link is not a directory', (dir) => symlinkSync(dir, `${dir}-link`)],
      ];
      for (const [why, spoil] of cases) {
        const { dir, queue } = makeRunDirectory(root);
        const agent = await startAgent(join(dir, 'cni.sock'), succeed);
        spoil(dir);
        const spoiled = why.startsWith('-link') ? `${dir}-link` : dir;
        for (const [command, code] of [
          ['ADD', 11],
          ['CHECK', 11],
          ['GC', 11],
          ['STATUS', 50],
          ['DEL', 11],
        ] as const) {
          const { code: got, msg } = errorOf(await run(command, join(spoiled, 'cni.sock')));
          assert.equal(got, code);
          assert.ok(msg.includes(dir) && msg.includes(why), msg);
        }
        assert.deepEqual([agent.frames.length, entries(queue)], [0, []]);
        await agent.close();
      }
    });
  });
}
