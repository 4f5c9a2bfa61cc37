/**
 * Begins together what comes together: calls that are begun in one moment share the store's commit, the transaction of policy and the
 * kernel's work. Connections are taken one in a turn of the event loop, so without this each of many would have all of that for itself.
 *
 * In: word of each connection, its request, its end. Out: the start of the request. Never: a request alone that waits; one that waits for
 * longer than connections come, or for more than a few turns.
 */
const mostTogether = 8;
const mostTurns = 16;

export class Together {
  /** Connections whose request has not come, waits or runs. */
  #open = 0;
  #arrivals = 0;
  #waiting: (() => void)[] = [];
  #isScheduled = false;

  /** A connection has come. */
  arrive(): void {
    this.#open++;
    this.#arrivals++;
  }

  /** And is over, whatever became of it. */
  leave(): void {
    this.#open--;
  }

  /** Its request has come. */
  begin(start: () => void): void {
    this.#arrivals++;
    this.#waiting.push(start);
    if (this.#open === 1 || this.#waiting.length >= mostTogether) this.#startAll();
    else if (!this.#isScheduled) {
      this.#isScheduled = true;
      this.#look(this.#arrivals, mostTurns);
    }
  }

  /** Not before a whole turn has brought nothing new. */
  #look(arrivals: number, turns: number): void {
    setImmediate(() => {
      if (turns > 0 && this.#waiting.length > 0 && (turns === mostTurns || this.#arrivals !== arrivals))
        return this.#look(this.#arrivals, turns - 1);
      this.#isScheduled = false;
      this.#startAll();
    });
  }

  #startAll(): void {
    for (const start of this.#waiting.splice(0)) start();
  }
}
