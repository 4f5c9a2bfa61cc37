/**
 * What a lab leaves on the disk, so that another process finds it again: /run/netctl-lab/NAME.
 *
 * In: names, processes. Out: the directory, the record. Never: a lab's name that means another path, a record half written.
 */
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { type ProcessId, parseProcess } from './daemon.ts';
import type { RouterKind } from './router.ts';

export const recordRoot = '/run/netctl-lab';

export interface LabRecord {
  readonly nodes: number;
  readonly reflectors: number;
  readonly router: RouterKind | null;
  /** First process of each machine that is up. */
  readonly machines: Readonly<Record<string, ProcessId>>;
}

export class LabDirectory {
  readonly path: string;

  /** @throws when it is no name */
  constructor(name: string) {
    if (!/^[a-z0-9][a-z0-9-]{0,29}$/.test(name))
      throw new Error(`"${name}" is no name of a lab: up to 30 small letters, digits and dashes`);
    this.path = join(recordRoot, name);
  }

  /** @throws when there is one already */
  create(): void {
    mkdirSync(recordRoot, { recursive: true, mode: 0o700 });
    mkdirSync(this.path, { mode: 0o700 });
  }

  get exists(): boolean {
    return existsSync(this.path);
  }

  /** Where the first process of the lab names itself before it does anything. */
  get switchRecord(): string {
    return join(this.path, 'switch.stat');
  }

  /** Null where it has not come to life. */
  readSwitch(): ProcessId | null {
    try {
      return parseProcess(readFileSync(this.switchRecord, 'utf8'));
    } catch {
      return null;
    }
  }

  write(record: LabRecord): void {
    const path = join(this.path, 'lab.json');
    writeFileSync(`${path}.new`, JSON.stringify(record));
    renameSync(`${path}.new`, path);
  }

  /** @throws when there is none */
  read(): LabRecord {
    return JSON.parse(readFileSync(join(this.path, 'lab.json'), 'utf8')) as LabRecord;
  }

  remove(): void {
    rmSync(this.path, { recursive: true, force: true });
    try {
      rmdirSync(recordRoot);
    } catch {
      // Other labs are in it.
    }
  }
}

export function labNames(): string[] {
  return existsSync(recordRoot) ? readdirSync(recordRoot).sort() : [];
}
