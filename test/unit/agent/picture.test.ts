/** The picture beside a watch that tells of everything late: it never shows a record as it was before what is here already. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { IpamNode } from '../../../lab/ipam-node.ts';
import { type Address, parseAddress } from '../../../src/model/ip.ts';
import { addressKey } from '../../../src/model/keys.ts';
import { MemoryStore } from '../../../src/store/memory.ts';
import type { ChangeSet, Json, Revision, Store, Write } from '../../../src/store/store.ts';
import { ManualClock } from '../store/manual-clock.ts';

const addresses = ['10.1.0.1', '10.1.0.2', '10.1.0.3'].map((text) => parseAddress(text));

const recordOf = (instance: string): Json => ({
  pool: 'p',
  state: 'retained',
  owner: { tenant: 't', app: 'a', instance },
  node: null,
  endpoint: null,
  container: null,
  mac: null,
  onRelease: 'delete',
  ttlSeconds: null,
  generation: 1,
  allocatedAt: '2026-01-01T00:00:00.000Z',
  cooldownUntil: null,
  reservation: null,
  expiresAt: null,
  borrowed: false,
  conflict: null,
});

/** A picture, the store that it is of, and the watch's words that it has not heard. */
class Rig {
  readonly store: Store = new MemoryStore();
  readonly node = new IpamNode('n1', this.store, new ManualClock());
  readonly log: ChangeSet[] = [];
  readonly #instances = new Map<Revision, string>();
  #heard = 0;

  async write(address: Address, instance: string | null): Promise<{ writes: Write[]; revision: Revision }> {
    const key = addressKey(address);
    const write: Write =
      instance === null ? { kind: 'delete', key } : { kind: 'put', key, value: recordOf(instance) };
    const result = await this.store.transact([], [write]);
    assert.ok(result.committed);
    const { revision } = result;
    const entry = await this.store.get(key);
    if (revision > (this.log.at(-1)?.revision ?? 0)) this.log.push({ revision, changes: [{ key, entry }] });
    if (instance !== null) this.#instances.set(revision, instance);
    return { writes: [write], revision };
  }

  async own(address: Address, instance: string | null): Promise<void> {
    const { writes, revision } = await this.write(address, instance);
    this.node.picture.made(writes, revision);
  }

  async read(address: Address): Promise<void> {
    const key = addressKey(address);
    this.node.picture.read(key, await this.store.get(key));
  }

  /** The watch tells of the next change. */
  hear(): void {
    const changeSet = this.log[this.#heard];
    if (changeSet === undefined) return;
    this.#heard++;
    this.node.picture.apply(changeSet.changes, changeSet.revision);
  }

  hearAll(): void {
    while (this.#heard < this.log.length) this.hear();
  }

  shown(address: Address): string | undefined {
    return this.node.record(address)?.owner.instance;
  }

  async inStore(address: Address): Promise<string | undefined> {
    const entry = await this.store.get(addressKey(address));
    return entry === null ? undefined : this.#instances.get(entry.modified);
  }
}

const [one] = addresses as [Address];

test('a release of this agent is not undone by the watch, which tells of the assignment only now', async () => {
  const rig = new Rig();
  await rig.own(one, 'a');
  await rig.own(one, null);
  rig.hear();
  assert.equal(rig.shown(one), undefined);
  rig.hear();
  assert.equal(rig.shown(one), undefined);
  await rig.own(one, 'b');
  assert.equal(rig.shown(one), 'b');
});

test('of what another agent did after it the watch tells', async () => {
  const rig = new Rig();
  await rig.own(one, 'a');
  await rig.write(one, 'b');
  rig.hear();
  assert.equal(rig.shown(one), 'a');
  rig.hear();
  assert.equal(rig.shown(one), 'b');
});

test('what the watch was quicker to tell of is not put back by who hears of it later', async () => {
  const rig = new Rig();
  const { writes, revision } = await rig.write(one, 'a');
  const read = await rig.store.get(addressKey(one));
  await rig.write(one, 'b');
  rig.hearAll();
  rig.node.picture.made(writes, revision);
  rig.node.picture.read(addressKey(one), read);
  assert.equal(rig.shown(one), 'b');
});

test('a store that was put back from a copy is right, although its revisions are older', async () => {
  const rig = new Rig();
  await rig.own(one, 'a');
  await rig.own(one, 'b');
  rig.hearAll();
  await rig.own(one, 'c');
  rig.node.picture.apply([{ key: addressKey(one), entry: { value: recordOf('a'), modified: 1 } }], 1);
  assert.equal(rig.shown(one), 'a');
});

test('whatever the order of what is made, read and told: a record never goes back, and in the end is as the store has it', async () => {
  const act = fc.tuple(fc.constantFrom('own', 'remove', 'other', 'gone', 'read', 'hear'), fc.nat(2));
  await fc.assert(
    fc.asyncProperty(fc.array(act, { maxLength: 40 }), async (acts) => {
      const rig = new Rig();
      let made = 0;
      for (const [what, which] of acts) {
        const address = addresses[which]!;
        const before = rig.shown(address);
        if (what === 'own') await rig.own(address, `i${made++}`);
        if (what === 'remove') await rig.own(address, null);
        if (what === 'other') await rig.write(address, `i${made++}`);
        if (what === 'gone') await rig.write(address, null);
        if (what === 'read') await rig.read(address);
        if (what === 'hear') rig.hear();
        if (['own', 'remove', 'read'].includes(what))
          assert.equal(rig.shown(address), await rig.inStore(address), `${what} is shown at once`);
        const number = (instance: string | undefined): number => Number(instance?.slice(1) ?? Infinity);
        assert.ok(number(before) <= number(rig.shown(address)) || before === undefined, `${what} ${before}`);
      }
      rig.hearAll();
      for (const address of addresses) assert.equal(rig.shown(address), await rig.inStore(address));
    }),
    { numRuns: 300 },
  );
});
