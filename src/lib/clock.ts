/**
 * Time as a port, so that back-off, cooldowns and expiry are tested without waiting.
 *
 * In: delays in milliseconds. Out: the time, callbacks. Never: a timer that keeps the process alive on its own.
 */

export interface Timer {
  /** Once cancelled it does not call. Cancelling twice, or after the call, is allowed. */
  cancel(): void;
}

export interface Clock {
  /** Milliseconds since 1970 (UTC). It may jump when the machine's clock is set. */
  now(): number;
  /** Milliseconds since some moment; it never jumps, whatever is done to the machine's clock. */
  monotonic(): number;
  /** Calls once after the delay, never before `setTimer` has returned. */
  setTimer(delayMilliseconds: number, call: () => void): Timer;
}

/** Resolves after so many milliseconds. */
export function pause(clock: Clock, milliseconds: number): Promise<void> {
  return new Promise((resolve) => void clock.setTimer(milliseconds, resolve));
}

export const systemClock: Clock = {
  now: Date.now,
  monotonic: () => performance.now(),
  setTimer(delayMilliseconds, call) {
    const timer = setTimeout(call, delayMilliseconds);
    timer.unref();
    return { cancel: () => clearTimeout(timer) };
  },
};
