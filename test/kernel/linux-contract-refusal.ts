/**
 * Expectations of the Linux contract: a call that the kernel has to refuse.
 *
 * In: an errno, a call. Out: the KernelError, or a failed assertion. Never: any other error taken for it.
 */
import assert from 'node:assert/strict';
import { KernelError } from '../../src/linux/ports.ts';

/** The error of a call that has to fail with this errno. */
export function refused(errno: string, call: () => unknown): KernelError {
  try {
    call();
  } catch (error) {
    assert.ok(error instanceof KernelError, String(error));
    assert.equal(error.errno, errno, error.message);
    return error;
  }
  return assert.fail(`succeeded, expected ${errno}`);
}

/** For assert.rejects. */
export function rejected(errno: string): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof KernelError, String(error));
    assert.equal(error.errno, errno, error.message);
    return true;
  };
}
