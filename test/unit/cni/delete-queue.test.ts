/** The delete queue under the races that a plugin, a runtime and a dying agent can make of it. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { DeleteQueue } from '../../../src/cni/delete-queue.ts';
import { NetctlError } from '../../../src/lib/errors.ts';
import type { Attacher, AttachmentId } from '../../../src/model/attachment.ts';

const silent = { debug() {}, info() {}, warn() {}, error() {} };

function entry(containerId: string, queuedAt: number, command = 'DEL', config: object = {}): Buffer {
  const env = `CNI_COMMAND=${command}\0CNI_CONTAINERID=${containerId}\0CNI_IFNAME=eth0\0NETCTL_QUEUED_AT=${queuedAt}\0`;
  const rest = Buffer.from(`${env}${JSON.stringify({ cniVersion: '1.0.0', name: 'edge', ...config })}`);
  const frame = Buffer.alloc(17);
  frame.writeUInt32BE(13 + rest.length, 0);
  frame.writeUInt8(1, 4);
  frame.writeInt32BE(-1, 9);
  frame.writeUInt32BE(Buffer.byteLength(env), 13);
  return Buffer.concat([frame, rest]);
}

describe('the delete queue', () => {
  let directory: string;
  let detached: [string, number][];
  let onDetach: (id: AttachmentId) => Promise<void>;

  const attacher = {
    detach: async (id: AttachmentId, before?: Date): Promise<void> => {
      await onDetach(id);
      detached.push([id.containerId, before?.getTime() ?? 0]);
    },
  } as Attacher;
  /** As the plugin does it. */
  const put = (name: string, content: Buffer): void => {
    writeFileSync(join(directory, `.${name}.delete.1`), content);
    renameSync(join(directory, `.${name}.delete.1`), join(directory, `${name}.delete`));
  };
  const queueOf = (): DeleteQueue => new DeleteQueue(directory, attacher, silent);

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'netctl-queue-'));
    detached = [];
    onDetach = async () => undefined;
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  test('what a plugin left that was killed as it wrote goes once no plugin can still be at it', async () => {
    for (const name of ['.old.delete.1', '.fresh.delete.2']) writeFileSync(join(directory, name), 'half');
    writeFileSync(join(directory, 'lock'), '');
    const anHourAgo = Date.now() / 1000 - 3600;
    for (const name of ['.old.delete.1', 'lock']) utimesSync(join(directory, name), anHourAgo, anHourAgo);
    assert.equal(await queueOf().drain(), 0);
    assert.deepEqual(readdirSync(directory).sort(), ['.fresh.delete.2', 'lock']);
  });

  test('each entry once, with the time at which it was queued; then it is gone', async () => {
    put('a', entry('a', 1000));
    put('b', entry('b', 2000));
    const queue = queueOf();
    assert.equal(await queue.drain(), 2);
    assert.deepEqual(detached.sort(), [
      ['a', 1000],
      ['b', 2000],
    ]);
    assert.equal(await queue.drain(), 0);
    assert.deepEqual(readdirSync(directory), []);
  });

  test('a DEL that is queued while an older one of the same container runs is not lost', async () => {
    put('a', entry('a', 1000));
    onDetach = async () => {
      onDetach = async () => undefined;
      put('a', entry('a', 5000));
    };
    const queue = queueOf();
    await queue.drain();
    await queue.drain();
    assert.deepEqual(detached, [
      ['a', 1000],
      ['a', 5000],
    ]);
    assert.deepEqual(readdirSync(directory), []);
  });

  test('a second drain while one is at work neither repeats nor breaks it', async () => {
    put('a', entry('a', 1000));
    const { promise, resolve } = Promise.withResolvers<void>();
    onDetach = () => promise;
    const queue = queueOf();
    const first = queue.drain();
    assert.equal(await queue.drain(), 0);
    resolve();
    assert.equal(await first, 1);
    assert.equal(detached.length, 1);
  });

  test('what fails for now stays, also over the death of the agent, and holds up nothing', async () => {
    put('a', entry('a', 1000));
    put('b', entry('b', 1000));
    onDetach = async ({ containerId }) => {
      if (containerId === 'a') throw new NetctlError('STORE_UNAVAILABLE', 'not now');
    };
    assert.equal(await queueOf().drain(), 1);
    onDetach = async () => undefined;
    put('a', entry('a', 3000));
    assert.equal(await queueOf().drain(), 1);
    assert.deepEqual(detached, [
      ['b', 1000],
      ['a', 3000],
    ]);
  });

  test('what can never be read is dropped; what is no DEL is not done; half-written files are left alone', async () => {
    put('a', Buffer.from('nonsense'));
    put('b', entry('b', 1, 'ADD').subarray(0, 40));
    put('c', entry('c', 1, 'GC'));
    writeFileSync(join(directory, '.d.delete.77'), 'half');
    await queueOf().drain();
    assert.deepEqual([detached, readdirSync(directory)], [[], ['.d.delete.77']]);
  });

  test('what cannot be an entry holds up none', async () => {
    mkdirSync(join(directory, '0.delete', 'more'), { recursive: true });
    symlinkSync('/nowhere', join(directory, '1.delete'));
    // Read, it would be waited for without end.
    execFileSync('mkfifo', [join(directory, '2.delete')]);
    put('a', entry('a', 1000));
    const queue = queueOf();
    await queue.drain();
    await queue.drain();
    assert.deepEqual(detached, [['a', 1000]]);
    assert.deepEqual(readdirSync(directory), []);
  });

  test('an entry whose network was configured wrongly meanwhile is done all the same', async () => {
    put('a', entry('a', 1000, 'DEL', { mtu: 'x', mode: 'zz', ipam: { type: 'a/b' } }));
    await queueOf().drain();
    assert.deepEqual(detached, [['a', 1000]]);
  });

  test('a directory that is gone ends nothing', async () => {
    const queue = queueOf();
    renameSync(directory, `${directory}-away`);
    assert.equal(await queue.drain(), 0);
    renameSync(`${directory}-away`, directory);
  });
});
