/**
 * Whether the kernel's refusal is one of some.
 *
 * In: what was thrown, symbolic names (`EEXIST`). Out: true or false. Never: true for what the kernel did not say.
 */
import { KernelError } from '../linux/ports.ts';

export function isErrno(error: unknown, ...names: string[]): boolean {
  return error instanceof KernelError && names.includes(error.errno);
}
