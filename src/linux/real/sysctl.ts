/**
 * Files below /proc/sys, in any network namespace.
 *
 * In: `net/ipv4/ip_forward`. Out: its text without the line end. Never: a file elsewhere.
 */
import { invalid } from '../../lib/errors.ts';
import type { Netns } from '../ports.ts';
import { asKernelErrors } from './exchange.ts';
import { native, OWN_NETNS } from './native.ts';

export function readSysctl(path: string, netns?: Netns): string {
  const file = sysctlFile(path);
  return asKernelErrors(`read ${file}`, () => native.readSysctl(netns?.fd ?? OWN_NETNS, file))
    .toString()
    .trim();
}

export function writeSysctl(path: string, value: string, netns?: Netns): void {
  const file = sysctlFile(path);
  asKernelErrors(`write ${value} to ${file}`, () =>
    native.writeSysctl(netns?.fd ?? OWN_NETNS, file, Buffer.from(value)),
  );
}

/** @throws INVALID */
export function sysctlFile(path: string): string {
  const parts = path.split('/');
  if (path.includes('\0') || parts.some((part) => part === '' || part === '.' || part === '..')) {
    throw invalid('sysctl', path, 'a path such as net/ipv4/ip_forward');
  }
  return `/proc/sys/${path}`;
}
