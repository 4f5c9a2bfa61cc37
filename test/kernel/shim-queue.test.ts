/**
 * The delete queue as the CNI executable writes it.
 * In: both builds, mostly with all waits divided by QUICK; nobody listens. Out: queue files, or a refused DEL.
 * The default queue is tried in a mount namespace of its own, so that the machine's is never touched. Needs root.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import {
  chmodSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { after, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  build,
  config,
  decodeFrame,
  encodeReply,
  entries,
  environment,
  errorOf,
  type Flavour,
  makeRoot,
  makeRunDirectory,
  queueName,
  start,
  startAgent,
} from './shim-harness.ts';

const QUICK = 20;
const root = makeRoot();
after(() => rmSync(root, { recursive: true }));

/** Holds the queue's lock, as a starting agent does, until the returned function is called. */
async function lockQueue(queue: string, mode = '--exclusive'): Promise<() => Promise<void>> {
  const child = spawn('flock', [mode, join(queue, 'lock'), 'sh', '-c', 'echo held; read x']);
  const closed = new Promise<void>((resolve) => child.on('close', () => resolve()));
  await new Promise((resolve) => child.stdout.once('data', resolve));
  return () => {
    child.stdin.end('\n');
    return closed;
  };
}

for (const flavour of ['musl', 'sanitized'] as Flavour[]) {
  describe(flavour, { concurrency: true }, () => {
    const shim = build(flavour, root);
    const quick = build(flavour, root, QUICK);
    const run = (command: string, socket: string, path = shim) =>
      start(path, environment(command), config(socket)).done;

    test('a queue file is the request, and a repeated DEL replaces it', async () => {
      const { dir, socket } = makeRunDirectory(root, false);
      const queue = join(root, `state-${basename(dir)}`);
      mkdirSync(queue, { mode: 0o700 });
      symlinkSync(queue, join(dir, 'delqueue'));
      const del = (args: string, ifname = 'eth0', argv0 = 'netctl-ipam') =>
        start(quick, { ...environment('DEL'), CNI_ARGS: args, CNI_IFNAME: ifname }, config(socket), { argv0 })
          .done;
      const before = Date.now();
      assert.equal((await del('a=1')).status, 0);
      assert.equal((await del('a=2;b="')).status, 0);
      assert.equal((await del('', 'eth1')).status, 0);
      const file = queueName('edge', 'c1', 'eth0');
      assert.deepEqual(entries(queue).sort(), [file, queueName('edge', 'c1', 'eth1')].sort());
      const frame = decodeFrame(readFileSync(join(queue, file)));
      const { CNI_PATH, ...rest } = environment('DEL');
      const sent = Object.entries({ ...rest, CNI_ARGS: 'a=2;b="', CNI_PATH }).map(([k, v]) => `${k}=${v}`);
      const [queuedAt, bootId] = frame.env.slice(-2);
      assert.deepEqual(frame.env.slice(0, -2), [...sent, 'NETCTL_ROLE=ipam']);
      assert.match(queuedAt!, /^NETCTL_QUEUED_AT=\d{13}$/);
      const at = Number(queuedAt!.split('=')[1]);
      assert.ok(at >= before && at <= Date.now());
      assert.equal(
        bootId,
        `NETCTL_BOOT_ID=${readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()}`,
      );
      assert.deepEqual([frame.netnsFd, frame.input.toString()], [-1, config(socket)]);
      assert.equal(statSync(join(queue, file)).mode & 0o777, 0o600);
    });

    test('a reader never sees a part of a file, and nothing else stays', async () => {
      const { socket, queue } = makeRunDirectory(root);
      const file = join(queue, queueName('edge', 'c1', 'eth0'));
      const big = config(socket).padEnd(1 << 20);
      let writers = 12;
      let read = 0;
      const all = Array.from({ length: writers }, async () => {
        assert.equal((await start(quick, environment('DEL'), big).done).status, 0);
        writers--;
      });
      while (writers > 0) {
        await sleep(1);
        if (!entries(queue).includes(basename(file))) continue;
        assert.equal(decodeFrame(readFileSync(file)).input.length, 1 << 20);
        read++;
      }
      await Promise.all(all);
      assert.ok(read > 0);
      assert.deepEqual(readdirSync(queue).sort(), [basename(file), 'lock'].sort());
    });

    test('a queue that cannot take it refuses the DEL', async () => {
      const none = makeRunDirectory(root, false);
      assert.match(
        errorOf(await run('DEL', none.socket, quick)).msg,
        /^DEL was neither done nor queued: no delete queue: /,
      );
      const file = makeRunDirectory(root, false);
      writeFileSync(file.queue, '');
      assert.match(errorOf(await run('DEL', file.socket, quick)).msg, /delqueue is not a directory$/);
      const open = makeRunDirectory(root);
      chmodSync(open.queue, 0o777);
      assert.match(errorOf(await run('DEL', open.socket, quick)).msg, /delqueue is unsafe: mode 0777/);

      const short = makeRunDirectory(root); // the write fails half-way
      const limited = start('/usr/bin/prlimit', environment('DEL'), config(short.socket), {
        args: ['--fsize=64', quick],
        argv0: 'prlimit',
      });
      const refused = errorOf(await limited.done);
      assert.deepEqual([refused.code, refused.cniVersion], [11, '1.1.0']);
      assert.match(refused.msg, /cannot write .*: File too large$/);
      assert.match(refused.details!, /cni\.sock: No such file or directory$/);
      assert.deepEqual(entries(short.queue), []);

      const full = makeRunDirectory(root);
      const name = (i: number) => join(full.queue, `${i.toString(16).padStart(32, '0')}.delete`);
      for (let i = 0; i < 1024; i++) writeFileSync(name(i), '');
      assert.equal((await run('DEL', full.socket, quick)).status, 0);
      assert.equal((await run('DEL', full.socket, quick)).status, 0, 'a repetition takes no room');
      const other = start(quick, { ...environment('DEL'), CNI_CONTAINERID: 'c2' }, config(full.socket));
      const { code, msg } = errorOf(await other.done);
      assert.equal(code, 11);
      assert.match(msg, /the delete queue is full: 1025 files wait for the agent, at most 1024 may$/);
    });

    test('the lock of a starting agent: waits for it, then finds the agent', async () => {
      const { socket, queue } = makeRunDirectory(root);
      const release = await lockQueue(queue);
      const running = run('DEL', socket);
      await sleep(1500); // past the 1 s for connecting, within the 5 s for the lock
      assert.deepEqual(entries(queue), []);
      const agent = await startAgent(socket, async (_, peer) => {
        const releaseAgain = await lockQueue(queue); // who asks the agent must not hold it
        await releaseAgain();
        peer.write(encodeReply(0, ''));
      });
      await release();
      const { status, ms } = await running;
      assert.equal(status, 0);
      assert.ok(ms < 5000, `${ms} ms`);
      assert.deepEqual([agent.frames.length, entries(queue)], [1, []]);
      await agent.close();
    });

    test('another plugin under the lock is no hindrance', async () => {
      const { socket, queue } = makeRunDirectory(root);
      const release = await lockQueue(queue, '--shared');
      assert.equal((await run('DEL', socket, quick)).status, 0);
      assert.equal(entries(queue).length, 1);
      await release();
    });

    test('a lock that is never released refuses the DEL', async () => {
      const { socket, queue } = makeRunDirectory(root);
      const release = await lockQueue(queue);
      assert.match(errorOf(await run('DEL', socket, quick)).msg, /lock is held by the agent$/);
      await release();
    });

    test('the default queue is made when it is missing', () => {
      const script = `mount -t tmpfs none /run; mount -t tmpfs none /var/lib; echo '{"name":"edge"}' | "$0"; echo "status $?"
        stat -c '%a %n' /var/lib/netctl /var/lib/netctl/delqueue; ls /var/lib/netctl/delqueue`;
      const output = execFileSync('unshare', ['-m', 'sh', '-c', script, quick], {
        env: { ...process.env, ...environment('DEL') },
      });
      assert.deepEqual(output.toString().trim().split('\n'), [
        'status 0',
        '700 /var/lib/netctl',
        '700 /var/lib/netctl/delqueue',
        ...[queueName('edge', 'c1', 'eth0'), 'lock'].sort(),
      ]);
    });
  });
}
