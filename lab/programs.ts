/**
 * Where netctl's programs are: in a build (dist/bin), or where `make install` and the Debian package put them.
 *
 * In: the place of the running file. Out: paths that exist. Never: a program of another installation than the caller's.
 */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export interface Programs {
  readonly netctl: string;
  readonly netctld: string;
  /** The CNI plugin. */
  readonly cni: string;
}

const layouts: readonly Programs[] = [
  // From a source file, and from a bundle in dist/lib.
  ...['../dist/bin', '../../dist/bin', '../bin'].map((bin) => ({
    netctl: `${bin}/netctl`,
    netctld: `${bin}/netctld`,
    cni: `${bin}/netctl-cni`,
  })),
  // From a bundle in /usr/lib/netctl.
  { netctl: '../../bin/netctl', netctld: '../../sbin/netctld', cni: '../../../opt/cni/bin/netctl' },
];

/** @throws when nothing is built or installed */
export function findPrograms(): Programs {
  const here = dirname(fileURLToPath(import.meta.url));
  const found = layouts
    .map(({ netctl, netctld, cni }) => ({
      netctl: join(here, netctl),
      netctld: join(here, netctld),
      cni: join(here, cni),
    }))
    .find((programs) => Object.values(programs).every((path) => existsSync(path)));
  if (found === undefined) throw new Error(`no programs of netctl near ${here}: run make build first`);
  return found;
}
