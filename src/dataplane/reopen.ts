/**
 * The namespace of an endpoint, found again.
 *
 * In: an endpoint's record. Out: its open namespace, or null where it is gone. Never: another namespace that has its path now.
 */
import type { Linux, Netns } from '../linux/ports.ts';
import type { Endpoint } from '../model/records.ts';

/** The caller closes it. */
export function reopen(
  linux: Pick<Linux, 'openNetns'>,
  { netns: { path, device, inode } }: Endpoint,
): Netns | null {
  let netns: Netns;
  try {
    netns = linux.openNetns(path);
  } catch {
    return null;
  }
  if (device === netns.identity.device && inode === netns.identity.inode) return netns;
  netns.close();
  return null;
}
