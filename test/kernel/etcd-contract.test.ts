/**
 * The contract of the store on a real etcd.
 *
 * In: one etcd for all tests. Out: the contract's verdict. Never: a difference hidden: each test has a prefix of its own, and
 * revisions are counted from where etcd stood when the test began, since etcd has one count for all and begins it at 1.
 */
import { after, before } from 'node:test';
import type { ChangeSet, Compare, Entry, Store } from '../../src/store/store.ts';
import { describeStore } from '../unit/store/store-contract.ts';
import { type Cluster, startEtcd } from './etcd-harness.ts';

let etcd: Cluster;
let count = 0;
before(async () => {
  // The contract writes 2,500 keys at once; etcd's default is 128.
  etcd = await startEtcd(1, { flags: ['--max-txn-ops', '4000'] });
});
after(() => etcd.dispose());

describeStore('etcd store', async () => {
  count += 1;
  const store = etcd.open({ prefix: `/contract/${count}/` });
  const { revision: base } = await store.list('');
  return {
    store: countingFrom(base, store),
    inOrder: false,
    compact: async () => {
      const { revision } = await store.list('');
      await etcd.ctl('compaction', String(revision));
    },
    dispose: () => store.close(),
  };
});

/** The store with its revisions counted from `base`. Revision 0 stays what it is: no key was ever written by it. */
function countingFrom(base: number, store: Store): Store {
  const entryOf = (entry: Entry): Entry => ({
    ...entry,
    created: entry.created - base,
    modified: entry.modified - base,
  });
  const compareOf = (compare: Compare): Compare =>
    (compare.kind === 'modified' && compare.revision > 0) || compare.kind === 'unwritten'
      ? { ...compare, revision: compare.revision + base }
      : compare;
  const changeSetOf = ({ revision, changes }: ChangeSet): ChangeSet => ({
    revision: revision - base,
    changes: changes.map(({ key, entry }) => ({ key, entry: entry && entryOf(entry) })),
  });
  return {
    get: async (key) => {
      const entry = await store.get(key);
      return entry && entryOf(entry);
    },
    list: async (prefix) => {
      const { revision, entries } = await store.list(prefix);
      return { revision: revision - base, entries: entries.map(entryOf) };
    },
    transact: async (compares, writes) => {
      const result = await store.transact(compares.map(compareOf), writes);
      return result.committed ? { committed: true, revision: result.revision - base } : result;
    },
    watch: (prefix, from, watcher) =>
      store.watch(prefix, from >= 0 ? from + base : from, {
        onChanges: (changeSet) => watcher.onChanges(changeSetOf(changeSet)),
        onEnd: (error) => watcher.onEnd(error),
      }),
    close: () => store.close(),
  };
}
