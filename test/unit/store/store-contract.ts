/**
 * The contract of the store: what every adapter answers, in the words of src/store/store.ts.
 *
 * In: a factory of empty stores. Out: tests, registered under the adapter's name. Never: anything that only one adapter has.
 */
import { describe } from 'node:test';
import { describeReads } from './contract-reads.ts';
import { describeTransactions } from './contract-transactions.ts';
import { describeWatches } from './contract-watches.ts';
import type { Subject } from './support.ts';

export function describeStore(name: string, open: () => Promise<Subject>): void {
  describe(name, () => {
    describeReads(open);
    describeTransactions(open);
    describeWatches(open);
  });
}
