/**
 * The store's keys and values within etcd: a prefix in front of each key, the value as JSON text.
 *
 * In: keys, compares and writes of the port; etcd's records and events. Out: etcd's ranges and transactions; entries and change
 * sets. Never: a key outside the prefix, a value that is not JSON taken for one.
 */
import { NetctlError } from '../lib/errors.ts';
import {
  compareResult,
  compareTarget,
  eventType,
  type KeyValue,
  type txnMethod,
  type WatchEvent,
} from './etcd-messages.ts';
import type { Given } from './etcd-protobuf.ts';
import { compareKeys } from './key-order.ts';
import type { ChangeSet, Compare, Entry, Json } from './store.ts';
import { holds, type Transaction, type Versions } from './transaction.ts';

export interface Range {
  readonly key: Buffer;
  readonly rangeEnd: Buffer;
}

/** No key was ever written by it. (0 is what etcd says of absent keys, so comparing with 0 would hold for them.) */
const noRevision = Number.MAX_SAFE_INTEGER;

export class EtcdKeyspace {
  readonly #prefix: string;
  readonly #prefixBytes: number;

  constructor(prefix: string) {
    this.#prefix = prefix;
    this.#prefixBytes = Buffer.byteLength(prefix);
  }

  bytes(key: string): Buffer {
    return Buffer.from(this.#prefix + key);
  }

  /** All keys that begin with the prefix. UTF-8 has no byte 0xff, so the last byte can always be raised. */
  range(prefix: string): Range {
    const key = this.bytes(prefix);
    const rangeEnd = Buffer.from(key);
    rangeEnd[rangeEnd.length - 1]! += 1;
    return { key, rangeEnd };
  }

  /** @throws STORE_UNAVAILABLE for a value that is not JSON, naming the key: acting on the rest would take it for absent */
  entry({ key, value, createRevision, modRevision }: KeyValue): Entry {
    const name = this.#name(key);
    return {
      key: name,
      value: this.#parse(name, value),
      created: createRevision,
      modified: modRevision,
    };
  }

  /**
   * Values are parsed when somebody asks for them, and fail then as `entry` does: most events are the echo of what their reader wrote.
   * @param events all of these revisions, in the order of revisions
   */
  *changeSets(events: readonly WatchEvent[]): Generator<ChangeSet> {
    for (const [revision, ofRevision] of Map.groupBy(events, (event) => event.kv!.modRevision)) {
      const changes = ofRevision.map(({ type, kv }) => ({
        key: this.#name(kv!.key),
        entry: type === eventType.delete ? null : this.#lazyEntry(kv!),
      }));
      yield { revision, changes: changes.sort((a, b) => compareKeys(a.key, b.key)) };
    }
  }

  /** When the compares do not all hold, etcd reads what was compared, so that the answer can name the first. */
  transaction({ compares, writes }: Transaction): Given<(typeof txnMethod)['request']> {
    return {
      compare: compares.map((compare) => this.#compare(compare)),
      success: writes.map(({ key, text }) =>
        text === null
          ? { deleteRange: { key: this.bytes(key) } }
          : { put: { key: this.bytes(key), value: Buffer.from(text) } },
      ),
      failure: compares.map((compare) => ({ range: { ...this.#compared(compare), keysOnly: true } })),
    };
  }

  /** The key that contradicts the compare, by what etcd has read of what was compared; or null. */
  contradiction(compare: Compare, kvs: readonly KeyValue[] = []): string | null {
    if (compare.kind !== 'unwritten') return holds(compare, versionsOf(kvs)) ? null : compare.key;
    return kvs[0] === undefined ? null : this.#name(kvs[0].key);
  }

  #compared(
    compare: Compare,
  ): Partial<Range> & { readonly minModRevision?: number; readonly limit?: number } {
    if (compare.kind !== 'unwritten') return { key: this.bytes(compare.key) };
    return { ...this.range(compare.key), minModRevision: compare.revision + 1, limit: 1 };
  }

  #compare(compare: Compare): NonNullable<Given<(typeof txnMethod)['request']>['compare']>[number] {
    if (compare.kind === 'unwritten') {
      const modRevision = compare.revision + 1;
      return {
        ...this.range(compare.key),
        result: compareResult.less,
        target: compareTarget.modified,
        modRevision,
      };
    }
    const key = this.bytes(compare.key);
    if (compare.kind === 'modified') {
      const modRevision = compare.revision > 0 ? compare.revision : noRevision;
      return { result: compareResult.equal, target: compareTarget.modified, key, modRevision };
    }
    const result = compare.kind === 'absent' ? compareResult.equal : compareResult.notEqual;
    return { result, target: compareTarget.create, key, createRevision: 0 };
  }

  #lazyEntry({ key, value: text, createRevision, modRevision }: KeyValue): Entry {
    const name = this.#name(key);
    const parse = (): Json => this.#parse(name, text);
    let value: Json | undefined;
    return {
      key: name,
      get value() {
        value ??= parse();
        return value;
      },
      created: createRevision,
      modified: modRevision,
    };
  }

  #name(key: Buffer): string {
    return key.toString('utf8', this.#prefixBytes);
  }

  #parse(name: string, value: Buffer): Entry['value'] {
    try {
      return JSON.parse(value.toString());
    } catch (cause) {
      const problem = `etcd: the value of ${this.#prefix}${name} is not JSON: correct or delete it`;
      throw new NetctlError('STORE_UNAVAILABLE', problem, { key: this.#prefix + name }, cause);
    }
  }
}

/** The versions that a record shows, or undefined for none. */
export function versionsOf(kvs: readonly KeyValue[] | undefined): Versions | undefined {
  const kv = kvs?.[0];
  return kv && { created: kv.createRevision, modified: kv.modRevision };
}
