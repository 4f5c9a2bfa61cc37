/**
 * Network namespaces as files.
 *
 * In: a path (`/run/netns/x`, `/proc/1/ns/net`). Out: an open Netns with its identity. Never: a file that is something else.
 */
import { closeSync, fstatSync, openSync } from 'node:fs';
import { NetctlError } from '../../lib/errors.ts';
import type { Netns } from '../ports.ts';
import { native } from './native.ts';

/** @param onClose called once */
export function openNetns(path: string, onClose: () => void = () => undefined): Netns {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (error) {
    throw new NetctlError(
      'NETNS_INVALID',
      `${path} cannot be opened: ${(error as Error).message}`,
      { path },
      error,
    );
  }
  if (!native.isNetworkNamespace(fd)) {
    closeSync(fd);
    throw new NetctlError('NETNS_INVALID', `${path} is not a network namespace`, { path });
  }
  const { dev, ino } = fstatSync(fd);
  let open = true;
  return {
    fd,
    identity: { device: dev, inode: ino },
    close() {
      if (!open) return;
      open = false;
      closeSync(fd);
      onClose();
    },
  };
}
