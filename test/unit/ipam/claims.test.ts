/** Who wants the same new block as another request of this process lets it ask, and plans anew. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Claims } from '../../../src/ipam/claims.ts';
import { type CommitParts, commit, type Plan } from '../../../src/ipam/commit.ts';
import { NetctlError } from '../../../src/lib/errors.ts';
import type { Compare, Store, Write } from '../../../src/store/store.ts';

const block = 'blocks/10.0.0.0-26';

/** A store in which each decision waits to be let go. */
function slowly(decide: () => 'committed' | Error): { parts: CommitParts; asked: string[]; go: () => void } {
  const claims = new Set<string>();
  const asked: string[] = [];
  const { promise, resolve } = Promise.withResolvers<void>();
  const store = {
    async transact(compares: readonly Compare[], writes: readonly Write[]) {
      asked.push(writes.map(({ key }) => key).join(' '));
      await promise;
      const outcome = decide();
      if (outcome instanceof Error) throw outcome;
      const failed = compares.find(({ kind, key }) => kind === 'absent' && claims.has(key));
      if (failed !== undefined) return { committed: false, failed: failed.key };
      for (const { key } of writes) claims.add(key);
      return { committed: true, revision: claims.size };
    },
    get: async () => null,
  } as unknown as Store;
  const picture = { made: () => undefined, read: () => undefined };
  const parts = { store, picture, claims: new Claims(), onLostRace: () => assert.fail('a race was lost') };
  return { parts, asked, go: resolve };
}

/** Ten who want an address of the same block, which each claims while nobody has. */
function ten(parts: CommitParts, has: () => boolean): { all: Promise<number>[]; settled: () => number } {
  let open = 0;
  const plan = (i: number) => (): Plan => {
    open++;
    const address: Write = { kind: 'put', key: `addresses/10.0.0.${i}`, value: null };
    const settle = (): void => void open--;
    if (has()) return { compares: [], writes: [address], settle };
    return {
      compares: [{ kind: 'absent', key: block }],
      writes: [{ kind: 'put', key: block, value: null }, address],
      settle,
    };
  };
  const all = Array.from({ length: 10 }, (_, i) => commit(parts, plan(i)));
  return { all, settled: () => open };
}

describe('claims of blocks', () => {
  test('one asks, the others plan anew with what it got', async () => {
    const { parts, asked, go } = slowly(() => 'committed');
    const { all, settled } = ten(parts, () => asked.length > 0 && parts.claims.other([absent]) === null);
    go();
    await Promise.all(all);
    assert.equal(asked.length, 10);
    assert.deepEqual(
      asked.filter((keys) => keys.includes(block)),
      [`${block} addresses/10.0.0.0`],
    );
    assert.equal(settled(), 0);
  });

  test('a store that cannot be asked is asked once for all of them', async () => {
    const error = new NetctlError('STORE_UNAVAILABLE', 'cluster: it does not answer');
    const { parts, asked, go } = slowly(() => error);
    const { all, settled } = ten(parts, () => false);
    go();
    for (const result of await Promise.allSettled(all))
      assert.equal(result.status === 'rejected' && result.reason, error);
    assert.equal(asked.length, 1);
    assert.equal(settled(), 0);
  });

  test('what one is refused for in another way is no word about the others', async () => {
    let refusals = 1;
    const { parts, asked, go } = slowly(() => {
      if (refusals-- > 0) return new NetctlError('INVALID', 'too large');
      return 'committed';
    });
    const isFree = (): boolean => asked.length > 1 && parts.claims.other([absent]) === null;
    const { all } = ten(parts, isFree);
    go();
    const results = await Promise.allSettled(all);
    assert.deepEqual(
      results.map(({ status }) => status === 'rejected'),
      [true, ...Array.from({ length: 9 }, () => false)],
    );
    assert.equal(asked.filter((keys) => keys.includes(block)).length, 2);
  });
});

const absent: Compare = { kind: 'absent', key: block };
