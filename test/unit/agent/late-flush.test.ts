/** Connections that are deleted after the answer to DEL: gathered, waited for, and never forgotten. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { LateFlush } from '../../../src/agent/late-flush.ts';
import { KernelError } from '../../../src/linux/ports.ts';
import type { Address } from '../../../src/model/ip.ts';
import { poolSchema } from '../../../src/model/records.ts';
import type { Json } from '../../../src/store/store.ts';
import { ManualClock } from '../store/manual-clock.ts';
import { Rig, request } from './rig.ts';

const [one, two, three] = ['10.0.0.1', '10.0.0.2', 'fd00::3'] as [Address, Address, Address];

/** The kernel answers each flush when the test says so. */
function made() {
  const clock = new ManualClock();
  const flushes: { addresses: readonly Address[]; answer: PromiseWithResolvers<void> }[] = [];
  const errors: object[] = [];
  const late = new LateFlush({
    clock,
    conntrack: {
      flushAddresses(addresses) {
        const answer = Promise.withResolvers<void>();
        flushes.push({ addresses: [...addresses], answer });
        return answer.promise;
      },
    },
    logger: { error: (fields) => void errors.push(fields) },
  });
  const flushed = (): (readonly Address[])[] => flushes.map(({ addresses }) => addresses);
  return { clock, flushes, flushed, errors, late };
}

/** Whether it has settled, once everything that can go on has. */
async function isSettled(promise: Promise<unknown>): Promise<boolean> {
  let settled = false;
  promise.then(
    () => (settled = true),
    () => (settled = true),
  );
  await turn();
  return settled;
}

const turn = (): Promise<void> => new Promise((next) => setImmediate(next));
const refusal = new KernelError('flush connections', 'ENOBUFS', null);

describe('flush after the answer', () => {
  test('what comes within 100 ms of the first goes together', async () => {
    const { clock, flushed, late } = made();
    late.add([one]);
    clock.advance(20);
    late.add([two, three]);
    clock.advance(79);
    await turn();
    assert.deepEqual(flushed(), []);
    clock.advance(1);
    await turn();
    assert.deepEqual(flushed(), [[one, two, three]]);
  });

  test('what comes while the kernel is at work goes next, 100 ms after it came', async () => {
    const { clock, flushes, flushed, late } = made();
    late.add([one]);
    clock.advance(100);
    await turn();
    late.add([two]);
    flushes[0]!.answer.resolve();
    await turn();
    assert.deepEqual(flushed(), [[one]]);
    clock.advance(100);
    await turn();
    assert.deepEqual(flushed(), [[one], [two]]);
  });

  test('who gets an address that waits does not wait for the 100 ms, but for the kernel', async () => {
    const { clock, flushes, flushed, late } = made();
    late.add([one]);
    const waiting = late.before([three, one]);
    assert.equal(await isSettled(waiting), false);
    assert.deepEqual(flushed(), [[one]]);
    flushes[0]!.answer.resolve();
    await waiting;
    clock.advance(100);
    await turn();
    assert.deepEqual(flushed(), [[one]], 'nothing is left for the timer');
  });

  test('who gets one whose flush is under way waits for its end', async () => {
    const { clock, flushes, late } = made();
    late.add([one]);
    clock.advance(100);
    await turn();
    const waiting = late.before([one]);
    assert.equal(await isSettled(waiting), false);
    flushes[0]!.answer.resolve();
    await waiting;
    assert.equal(flushes.length, 1);
  });

  test('who gets any other waits for nothing', async () => {
    const { flushed, late } = made();
    late.add([one]);
    await late.before([two]);
    await late.before([]);
    assert.deepEqual(flushed(), []);
  });

  test('what the kernel refuses is logged and kept: whoever gets it fails, too, until it is done', async () => {
    const { clock, flushes, flushed, errors, late } = made();
    late.add([one]);
    clock.advance(100);
    await turn();
    late.add([two]);
    flushes[0]!.answer.reject(refusal);
    await turn();
    assert.deepEqual(errors, [{ addresses: 2, error: refusal.message }]);
    const refused = late.before([one]);
    await turn();
    assert.deepEqual(new Set(flushed()[1]), new Set([one, two]));
    flushes[1]!.answer.reject(refusal);
    await assert.rejects(refused, refusal);
    const periodic = late.all();
    await turn();
    flushes[2]!.answer.resolve();
    await periodic;
    await late.before([one, two]);
    assert.equal(flushes.length, 3);
  });

  test('one that fails for who waits for it is not held against who comes next', async () => {
    const { flushes, late } = made();
    late.add([one]);
    const [first, second] = [late.before([one]), late.before([one])];
    await turn();
    flushes[0]!.answer.reject(refusal);
    await assert.rejects(first, refusal);
    await turn();
    flushes[1]!.answer.resolve();
    await second;
  });

  test('with nothing to flush, all of it is done', async () => {
    const { flushed, errors, late } = made();
    await late.all();
    assert.equal(await late.settle(), true);
    assert.deepEqual([flushed(), errors], [[], []]);
  });
});

describe('connections at DEL', () => {
  const owner = { tenant: 'default', app: 'web', instance: 'web-0' };
  const portMappings = [{ protocol: 'tcp', hostPort: 8080, containerPort: 80, hostIP: null }] as const;
  for (const [what, cooldownSeconds, wishes, isLate] of [
    ['an address that cools down', 30, {}, true],
    ['one that cools down for a moment', 1, {}, true],
    ['one that is free at once', 0, {}, false],
    ['one that its owner keeps', 30, { owner, onRelease: 'never' }, false],
    ['one that its owner keeps for a while', 30, { owner, onRelease: 'ttl', retainSeconds: 60 }, false],
    ['published ports', 30, { portMappings }, false],
  ] as const) {
    test(`${what}: ${isLate ? 'a moment after the answer' : 'before the address is released'}`, async () => {
      const rig = new Rig(undefined, 'nftables');
      const attachments = await rig.start();
      const value = poolSchema.parse({ cidr: '10.0.0.0/24', blockSize: 26, cooldownSeconds });
      await rig.store.transact([], [{ kind: 'put', key: 'pools/four', value: value as unknown as Json }]);
      const asked = { ...request('a'), pools: ['four'], ...wishes };
      const { addresses } = await attachments.attach(asked);
      rig.linux.failNext('flushAddresses', 'ENOBUFS');
      if (!isLate) {
        await assert.rejects(attachments.detach(asked), { code: 'KERNEL' });
        assert.equal((await rig.keys('endpoints/')).length, 1);
      }
      await attachments.detach(asked);
      assert.deepEqual(rig.linux.tracked.flushedAddresses, isLate ? [] : addresses);
      if (isLate) await attachments.expire();
      await attachments.expire();
      assert.deepEqual(rig.linux.tracked.flushedAddresses, addresses);
      assert.deepEqual(rig.linux.pendingFailures, []);
    });
  }

  test('what was not deleted yet when the agent died is deleted at the next start', async () => {
    const rig = new Rig();
    const attachments = await rig.start();
    const { addresses } = await attachments.attach(request('a'));
    await attachments.detach(request('a'));
    assert.deepEqual(rig.linux.tracked.flushedAddresses, []);
    await rig.successor().start();
    assert.deepEqual(rig.linux.tracked.flushedAddresses, addresses);
  });

  test('an orderly end waits for it', async () => {
    const rig = new Rig();
    const attachments = await rig.start();
    const { addresses } = await attachments.attach(request('a'));
    await attachments.detach(request('a'));
    await rig.agent.stop();
    assert.deepEqual(rig.linux.tracked.flushedAddresses, addresses);
  });

  test('an address is not free while the kernel refuses', async () => {
    const rig = new Rig();
    const attachments = await rig.start();
    const { addresses } = await attachments.attach(request('a'));
    await attachments.detach(request('a'));
    const again = { ...request('b'), addresses };
    for (const _ of [1, 2]) rig.linux.failNext('flushAddresses', 'ENOBUFS');
    rig.clock.advance(31_000);
    await attachments.expire();
    await assert.rejects(attachments.attach(again), { code: 'ADDRESS_UNAVAILABLE' });
    await attachments.expire();
    await attachments.expire();
    assert.deepEqual(rig.linux.tracked.flushedAddresses, addresses);
    assert.deepEqual((await attachments.attach(again)).addresses, addresses);
  });

  test('who gets an address that somebody else has set free meanwhile gets it without them, or not at all', async () => {
    const rig = new Rig();
    const attachments = await rig.start();
    const { addresses } = await attachments.attach(request('a'));
    await attachments.detach(request('a'));
    const writes = addresses.map((address) => ({ kind: 'delete', key: `addresses/${address}` }) as const);
    await rig.store.transact([], writes);
    await turn();
    rig.linux.failNext('flushAddresses', 'ENOBUFS');
    const again = { ...request('b'), addresses };
    await assert.rejects(attachments.attach(again), { code: 'KERNEL' });
    assert.deepEqual(await rig.keys('endpoints/'), []);
    assert.deepEqual((await attachments.attach(again)).addresses, addresses);
    assert.deepEqual(rig.linux.tracked.flushedAddresses, addresses);
  });
});
