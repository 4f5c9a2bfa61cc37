/**
 * Ports that die: from the n-th step on, nothing that is asked of them is done any more, as when SIGKILL comes between two steps of an agent.
 *
 * In: ports, the names of what changes something; the step to die at. Out: the same ports, mortal; the steps that were taken. Never: a change
 * after death; a descriptor that the dead keep open.
 */
import type { Batch, BatchRefusal, Linux } from '../../src/linux/ports.ts';
import type { Store } from '../../src/store/store.ts';

export class Life {
  /** What was done so far, in order. */
  readonly steps: string[] = [];
  #last = Number.POSITIVE_INFINITY;
  #isOver = false;

  get isOver(): boolean {
    return this.#isOver;
  }

  /** The steps from now on count; before the given one (from 1), it is over. */
  endAt(step: number): void {
    this.steps.length = 0;
    this.#last = step;
  }

  look(): void {
    if (this.#isOver) throw new Error('the agent is dead');
  }

  step(what: string): void {
    this.look();
    if (this.steps.length + 1 >= this.#last) this.#isOver = true;
    this.look();
    this.steps.push(what);
  }
}

/** What gives descriptors and listeners back is done for the dead, too. */
const always = new Set(['close', 'families', 'identity', 'fd']);
const changing = new Set([
  'batch',
  'ahead',
  'transact',
  'send',
  'writeSysctl',
  'deleteLink',
  'flushAddresses',
  'restore',
]);

export function mortal<T extends object>(target: T, life: Life): T {
  return new Proxy(target, {
    get(_, key) {
      const value: unknown = Reflect.get(target, key, target);
      if (typeof value === 'object' && value !== null && !always.has(String(key)) && isPort(value))
        return mortal(value, life);
      if (typeof value !== 'function') return value;
      if (always.has(String(key))) return value.bind(target);
      if (key === 'batches')
        return (batches: readonly Batch[]) => oneByOne(value.bind(target) as Linux['batches'], batches, life);
      return (...args: unknown[]): unknown => {
        if (changing.has(String(key))) life.step(String(key));
        else life.look();
        const answer: unknown = value.apply(target, args);
        return String(key).startsWith('open') && key !== 'openNetns'
          ? mortal(answer as object, life)
          : answer;
      };
    },
  });
}

/** The kernel's work for an endpoint is a step for each batch. */
async function oneByOne(
  carryOut: Linux['batches'],
  batches: readonly Batch[],
  life: Life,
): Promise<BatchRefusal | null> {
  for (const [number, batch] of batches.entries()) {
    life.step('batch');
    const refusal = await carryOut([batch]);
    if (refusal !== null) return { ...refusal, batch: number };
  }
  return null;
}

/** The store survives. A commit may be the last thing before death, or its answer the first that is not heard. */
export function mortalStore(store: Store, life: Life): Store {
  return new Proxy(store, {
    get(_, key) {
      const value: unknown = Reflect.get(store, key, store);
      if (typeof value !== 'function') return value;
      if (key === 'close') return async () => undefined;
      if (key !== 'transact') return value.bind(store);
      return async (...args: unknown[]): Promise<unknown> => {
        life.step('commit');
        const answer: unknown = await value.apply(store, args);
        life.step('hear of the commit');
        return answer;
      };
    },
  });
}

function isPort(value: object): boolean {
  return Object.values(value).some((each) => typeof each === 'function');
}
