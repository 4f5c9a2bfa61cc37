/**
 * The addon by itself: wrong arguments, namespaces, background sends, termination of worker threads, datagrams, credentials.
 *
 * In: nothing. Out: tests. Never: a crash (each case would end the test process).
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import {
  linkDump,
  RTM_NEWLINK,
  RTNLGRP_LINK,
  readLink,
  writeLinkDelete,
  writeLinkGet,
} from '../../src/linux/netlink/link.ts';
import {
  MessageBatch,
  NLMSG_DONE,
  NLMSG_ERROR,
  readAnswer,
  readMessages,
} from '../../src/linux/netlink/message.ts';
import { NETLINK_ROUTE, native, OWN_NETNS } from '../../src/linux/real/native.ts';
import { addNetns, enterSandbox, ip } from './linux-contract-sandbox.ts';

enterSandbox(import.meta.url);

const open = () => native.openNetlink(OWN_NETNS, NETLINK_ROUTE, 1 << 20);

describe('addon', () => {
  test('closing packet sockets, over which the kernel takes its time, does not hold the thread', async () => {
    ip('link', 'add', 'near', 'type', 'veth', 'peer', 'name', 'far');
    const index = Number(/^(\d+): near/m.exec(ip('-o', 'link', 'show', 'near'))![1]);
    const sockets = Array.from({ length: 30 }, () => native.openPacket(OWN_NETNS, index, 0x0806));
    const packetSockets = (): number =>
      execFileSync('cat', ['/proc/net/packet'], { encoding: 'utf8' }).trim().split('\n').length - 1;
    assert.equal(packetSockets(), 30);
    const before = performance.now();
    for (const socket of sockets) native.closeInBackground(socket);
    const tookMs = performance.now() - before;
    assert.ok(tookMs < 300, `${Math.round(tookMs)} ms for 30 sockets`);
    for (let i = 0; i < 100 && packetSockets() > 0; i++) await sleep(50);
    assert.equal(packetSockets(), 0);
    ip('link', 'delete', 'near');
  });

  test('wrong arguments are TypeErrors, whatever the function', () => {
    const socket = open();
    const wrong: readonly unknown[] = [
      undefined,
      null,
      'x',
      1.5,
      Number.NaN,
      -7,
      2 ** 40,
      {},
      [],
      Symbol('s'),
      5n,
      () => {},
      socket,
    ];
    // ref and the like take exactly one socket: only what is no socket is wrong for them.
    for (const [name, method] of Object.entries(native) as [string, (...args: unknown[]) => unknown][]) {
      for (const value of wrong) {
        if (value === socket) continue;
        assert.throws(() => method(value, value, value), TypeError, `${name}(${String(value)})`);
      }
      assert.throws(() => method(), TypeError, `${name}()`);
    }
    const withSocket = [
      'send',
      'sendInBackground',
      'beginSend',
      'attachFilter',
      'joinGroup',
      'onReadable',
    ] as const;
    for (const name of withSocket) {
      assert.throws(() => (native[name] as (...args: unknown[]) => unknown)(socket, 'x'), TypeError, name);
    }
    assert.throws(() => native.attachFilter(socket, Buffer.alloc(7)), TypeError);
    assert.throws(() => native.send(socket, new Uint16Array(4) as unknown as Uint8Array), TypeError);
    assert.throws(() => native.readSysctl(OWN_NETNS, '/etc/passwd'), TypeError);
    assert.throws(() => native.readSysctl(OWN_NETNS, '/proc/sys/../version'), TypeError);
    assert.throws(() => native.readSysctl(OWN_NETNS, '/proc/sys/a\0b'), TypeError);
    native.close(socket);
  });

  test('one send at a time is begun, and its end waited for once; the socket may be closed meanwhile', () => {
    const [socket, other] = [open(), open()];
    const request = linkDump();
    assert.throws(() => native.finishSend(socket), { code: 'EINVAL' });
    for (let i = 0; i < 100; i++) {
      native.beginSend(socket, request);
      assert.throws(() => native.beginSend(other, request), { code: 'EBUSY' });
      assert.throws(() => native.finishSend(other), { code: 'EINVAL' });
      native.finishSend(socket);
      assert.throws(() => native.finishSend(socket), { code: 'EINVAL' });
      assert.ok(native.receive(socket));
      while (native.receive(socket) !== null);
    }
    assert.throws(() => native.beginSend(socket, Buffer.alloc(4097)), { code: 'EMSGSIZE' });
    native.beginSend(socket, Buffer.alloc(4096));
    native.close(socket);
    native.finishSend(socket);
    native.close(other);
  });

  test('a closed socket says so, and closing twice is fine', () => {
    const socket = open();
    native.close(socket);
    native.close(socket);
    assert.throws(() => native.send(socket, Buffer.alloc(16)), { code: 'EBADF' });
    assert.throws(() => native.receive(socket), { code: 'EBADF' });
    assert.throws(() => native.onReadable(socket, () => {}), { code: 'EBADF' });
  });

  test('a descriptor that is no namespace is EINVAL, and the thread stays where it was', () => {
    const fd = openSync('/dev/null', 'r');
    assert.throws(() => native.openNetlink(fd, NETLINK_ROUTE, 4096), { code: 'EINVAL' });
    closeSync(fd);
    assert.throws(() => native.openNetlink(987_654, NETLINK_ROUTE, 4096), { code: 'EBADF' });
  });

  test('a socket is born in its namespace and tells which it is', () => {
    const path = addNetns('nct-addon');
    ip('-n', 'nct-addon', 'link', 'add', 'va', 'type', 'veth', 'peer', 'name', 'vb');
    const fd = openSync(path, 'r');
    const socket = native.openNetlink(fd, NETLINK_ROUTE, 1 << 20);
    closeSync(fd);
    assert.deepEqual(linkNames(socket), ['lo', 'va', 'vb']);
    const again = native.netnsOf(socket);
    assert.equal(native.isNetworkNamespace(again), true);
    const second = native.openNetlink(again, NETLINK_ROUTE, 1 << 20);
    closeSync(again);
    assert.deepEqual(linkNames(second), ['lo', 'va', 'vb']);
    assert.deepEqual(linkNames(open()), ['lo']);
  });

  test('a background send is carried out after its socket was closed, and answers when it was not', async () => {
    ip('link', 'add', 'vc', 'type', 'veth', 'peer', 'name', 'vd');
    const deletion = (index: number) => {
      const batch = new MessageBatch(7);
      writeLinkDelete(batch, { index });
      return batch.finish();
    };
    const index = Number(/^(\d+): vc/.exec(ip('-o', 'link', 'show', 'vc'))?.[1]);
    const socket = open();
    const sent = native.sendInBackground(socket, deletion(index));
    native.close(socket);
    await sent;
    assert.deepEqual(linkNames(open()), ['lo']);

    const kept = open();
    await native.sendInBackground(kept, deletion(index));
    const [answer] = readMessages(native.receive(kept)!);
    assert.equal(answer?.type, NLMSG_ERROR);
    assert.equal(answer?.sequence, 7);
    assert.equal(readAnswer(answer!).errno, 19);
    assert.equal(native.receive(kept), null);
    await assert.rejects(native.sendInBackground(kept, Buffer.alloc(4 << 20)), { code: 'EMSGSIZE' });
  });

  test('40 background sends at once all answer', async () => {
    const socket = open();
    const batch = new MessageBatch(1);
    writeLinkDelete(batch, { index: 123_456 });
    await Promise.all(Array.from({ length: 40 }, () => native.sendInBackground(socket, batch.finish())));
    let answers = 0;
    for (let bytes = native.receive(socket); bytes !== null; bytes = native.receive(socket))
      answers += readMessages(bytes).length;
    assert.equal(answers, 40);
  });

  test('what a callback throws is an uncaught exception of the process, not a crash', () => {
    const script = `
      import { native } from ${JSON.stringify(new URL('../../src/linux/real/native.ts', import.meta.url).href)};
      import { linkDump } from ${JSON.stringify(new URL('../../src/linux/netlink/link.ts', import.meta.url).href)};
      process.on('uncaughtException', (error) => { console.log('caught', error.message); process.exit(7); });
      const socket = native.openNetlink(-1, 0, 65536);
      native.onReadable(socket, () => { throw new Error('from the callback'); });
      native.send(socket, linkDump());`;
    assert.throws(
      () =>
        execFileSync(process.execPath, ['--input-type=module', '-e', script], {
          env: {},
          encoding: 'utf8',
          stdio: 'pipe',
        }),
      (error: { status: number; stdout: string }) =>
        error.status === 7 && error.stdout === 'caught from the callback\n',
    );
  });

  test('a socket that is only listened to does not keep the process alive after unref', () => {
    const script = `
      import { native } from ${JSON.stringify(new URL('../../src/linux/real/native.ts', import.meta.url).href)};
      const socket = native.openNetlink(-1, 0, 65536);
      native.onReadable(socket, () => {});
      native.unref(socket); native.ref(socket); native.unref(socket);`;
    execFileSync(process.execPath, ['--input-type=module', '-e', script], { env: {}, timeout: 10_000 });
  });

  test('chains: parts that do not fit together are refused before anything is sent', async () => {
    const bytes = Buffer.alloc(16);
    const numbers = (...all: number[]): Uint8Array => new Uint8Array(Int32Array.from(all).buffer);
    for (const parts of [
      numbers(),
      numbers(0, -1),
      numbers(0, -1, 15),
      numbers(0, -1, -1),
      numbers(0, -1, 8, 1, -1, 9),
    ])
      assert.throws(() => native.runChains(parts, bytes), { code: 'ERR_INVALID_ARG_VALUE' });
    assert.throws(() => native.runChains('x' as unknown as Uint8Array, bytes), {
      code: 'ERR_INVALID_ARG_TYPE',
    });
    // A part of no bytes has no answer; a namespace that is none, an errno, and what follows it in its chain is not sent.
    const answers = await native.runChains(numbers(0, -1, 0, 1, 0x7fffffff, 8, 1, -1, 8), bytes);
    const errnos = [0, 8, 16].map((at) => answers.readInt32LE(at));
    assert.deepEqual([errnos, answers.length], [[0, 9, -1], 24]);
  });

  test('20 workers end with watched sockets and sends under way', async () => {
    const source = `
      const { native } = await import(${JSON.stringify(new URL('../../src/linux/real/native.ts', import.meta.url).href)});
      const { linkDump, writeLinkDelete, writeLinkGet } = await import(${JSON.stringify(new URL('../../src/linux/netlink/link.ts', import.meta.url).href)});
      const { MessageBatch } = await import(${JSON.stringify(new URL('../../src/linux/netlink/message.ts', import.meta.url).href)});
      const { workerData, parentPort } = await import('node:worker_threads');
      const watched = native.openNetlink(-1, 0, 65536);
      native.joinGroup(watched, ${RTNLGRP_LINK});
      native.onReadable(watched, () => {});
      const closed = native.openNetlink(-1, 0, 65536);
      native.onReadable(closed, () => {});
      native.close(closed);
      const unwatched = native.openNetlink(-1, 0, 65536);
      const sender = native.openNetlink(-1, 0, 65536);
      const batch = new MessageBatch(1);
      writeLinkDelete(batch, { index: workerData });
      void native.sendInBackground(sender, batch.finish()).then(() => native.send(watched, linkDump()));
      const look = new MessageBatch(1);
      writeLinkGet(look, { index: 1 });
      const bytes = look.finish();
      const parts = new Uint8Array(Int32Array.of(0, -1, bytes.length).buffer);
      setInterval(() => void native.runChains(parts, bytes), 1);
      parentPort.postMessage('ready');
      setInterval(() => native.send(unwatched, linkDump()), 1);`;
    for (let i = 0; i < 20; i++) {
      ip('link', 'add', `vw${i}`, 'type', 'veth', 'peer', 'name', `vx${i}`);
      const index = Number(/^(\d+): vw/.exec(ip('-o', 'link', 'show', `vw${i}`))?.[1]);
      const worker = new Worker(`(async () => {${source}})()`, { eval: true, workerData: index });
      await once(worker, 'message');
      if (i % 3 > 0) await sleep(i % 3 === 1 ? 3 : 30);
      assert.equal(await worker.terminate(), 1);
    }
    for (let i = 0; i < 100 && linkNames(open()).length > 1; i++) await sleep(10);
    assert.deepEqual(linkNames(open()), ['lo']);
  });

  test('sockets that nobody refers to any more are collected', () => {
    const before = Number(
      execFileSync('sh', ['-c', `ls /proc/${process.pid}/fd | wc -l`], { encoding: 'utf8' }),
    );
    const script = `
      import { native } from ${JSON.stringify(new URL('../../src/linux/real/native.ts', import.meta.url).href)};
      import { readdirSync } from 'node:fs';
      import { setImmediate } from 'node:timers/promises';
      for (let i = 0; i < 200; i++) native.openNetlink(-1, 0, 65536);
      for (let i = 0; i < 5; i++) { gc(); await setImmediate(); }
      console.log(readdirSync('/proc/self/fd').length);`;
    const left = Number(
      execFileSync(process.execPath, ['--expose-gc', '--input-type=module', '-e', script], { env: {} }),
    );
    assert.ok(left < 100, `${left} descriptors left, ${before} in the test process`);
  });

  test('datagrams reach path and abstract sockets, and an absent one is an error', () => {
    const directory = mkdtempSync(join(tmpdir(), 'nct-'));
    const path = join(directory, 'notify');
    const sender = [process.execPath, '--input-type=module', '-e', SENDER];
    for (const name of [path, `@nct-${process.pid}`]) {
      const received = execFileSync('perl', ['-e', RECEIVER, name, ...sender], { encoding: 'utf8', env: {} });
      assert.equal(received, 'READY=1');
    }
    assert.throws(() => native.sendDatagram(join(directory, 'none'), Buffer.from('x')), { code: 'ENOENT' });
    assert.throws(() => native.sendDatagram('@nct-none', Buffer.from('x')), { code: 'ECONNREFUSED' });
    assert.throws(() => native.sendDatagram(`/${'x'.repeat(200)}`, Buffer.from('x')), TypeError);
    rmSync(directory, { recursive: true });
  });

  test('what is no packet is not sent', () => {
    for (const bytes of [
      Buffer.alloc(0),
      Buffer.alloc(19, 0x45),
      Buffer.alloc(39, 0x60),
      Buffer.alloc(60, 0x50),
    ])
      assert.throws(() => native.sendPacket(-1, bytes), { code: 'ERR_INVALID_ARG_VALUE' });
    assert.throws(() => native.sendPacket(-1, 'x' as never), TypeError);
  });

  test('a unix socket tells who is at the other end; other descriptors do not', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'nct-'));
    const server = createServer().listen(join(directory, 'socket'));
    await once(server, 'listening');
    const client = connect(join(directory, 'socket'));
    const [peer] = (await once(server, 'connection')) as [Socket];
    assert.deepEqual(native.peerCredentials(descriptorOf(peer)), { pid: process.pid, uid: 0, gid: 0 });
    peer.destroy();
    client.destroy();
    server.close();
    rmSync(directory, { recursive: true });

    const tcp = createServer().listen(0, '127.0.0.1');
    await once(tcp, 'listening');
    assert.throws(() => native.peerCredentials(descriptorOf(tcp)), { code: 'ENOTCONN' });
    tcp.close();
    const file = openSync('/dev/null', 'r');
    assert.throws(() => native.peerCredentials(file), { code: 'ENOTSOCK' });
    closeSync(file);
  });
});

const SENDER = `
  import { native } from ${JSON.stringify(new URL('../../src/linux/real/native.ts', import.meta.url).href)};
  native.sendDatagram(process.argv[1], Buffer.from('READY=1'));`;

/** Node.js has no unix datagram sockets to receive with. */
const RECEIVER = `
use Socket;
my ($name, @send) = @ARGV;
my $path = $name =~ /^@(.*)/ ? "\\0$1" : $name;
socket(my $s, AF_UNIX, SOCK_DGRAM, 0) or die "socket: $!";
bind($s, pack_sockaddr_un($path)) or die "bind: $!";
system(@send, $name) == 0 or die "sender: $?";
alarm 10;
recv($s, my $text, 100, 0);
print $text;`;

function descriptorOf(handle: object): number {
  return (handle as { _handle: { fd: number } })._handle.fd;
}

/** Names of all links, dumped synchronously. */
function linkNames(socket: ReturnType<typeof open>): string[] {
  const names: string[] = [];
  native.send(socket, linkDump());
  for (let bytes = native.receive(socket); bytes !== null; bytes = native.receive(socket)) {
    for (const message of readMessages(bytes)) {
      if (message.type === RTM_NEWLINK) names.push(readLink(message)!.name);
      if (message.type === NLMSG_DONE) return names.sort();
    }
  }
  return assert.fail('the list has no end');
}

test('a link asked for by index is one message', () => {
  const socket = open();
  const batch = new MessageBatch(3);
  writeLinkGet(batch, { index: 1 });
  native.send(socket, batch.finish());
  assert.equal(readLink(readMessages(native.receive(socket)!)[0]!)?.name, 'lo');
});
