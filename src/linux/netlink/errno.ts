/**
 * Error numbers of the kernel as their symbolic names.
 *
 * In: a positive number. Out: `EEXIST`, or `E<number>` for one without a name. Never: a number of one subsystem read with the
 * names of another (ipset's own begin at 4096: netlink/ipset.ts).
 */
import { constants } from 'node:os';

const NAMES = new Map(Object.entries(constants.errno).map(([name, number]) => [number, name]));
/** EWOULDBLOCK and ENOTSUP are second names of the same numbers. */
NAMES.set(constants.errno.EAGAIN, 'EAGAIN');
NAMES.set(constants.errno.EOPNOTSUPP, 'EOPNOTSUPP');
/** The kernel's own, which user space should never have seen (include/linux/errno.h). */
NAMES.set(524, 'ENOTSUPP');

export function errnoName(errno: number): string {
  return NAMES.get(errno) ?? `E${errno}`;
}
