/**
 * An authority and the certificates that it signs, made by openssl as docs/scheduler.md tells.
 *
 * In: names, alternative names. Out: PEM files in a directory of its own. Never: a file outside it.
 */
import { writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { mustRun } from '../../lab/run.ts';

export interface Files {
  readonly cert: string;
  readonly key: string;
  readonly ca: string;
}

export class Pki {
  readonly directory: string;

  private constructor(directory: string) {
    this.directory = directory;
  }

  static async create(): Promise<Pki> {
    const pki = new Pki(await mkdtemp(join(tmpdir(), 'netctl-pki-')));
    const { cert, key } = pki.#files('ca');
    await mustRun([
      ...[
        'openssl',
        'req',
        '-x509',
        '-newkey',
        'ec',
        '-pkeyopt',
        'ec_paramgen_curve:P-256',
        '-nodes',
        '-days',
        '2',
      ],
      ...['-subj', '/CN=netctl', '-keyout', key, '-out', cert],
    ]);
    return pki;
  }

  /** @param names `IP:192.0.2.1`, `URI:netctl:scope:operator` */
  async issue(name: string, names: readonly string[]): Promise<Files> {
    const files = this.#files(name);
    const request = join(this.directory, `${name}.csr`);
    const extensions = join(this.directory, `${name}.ext`);
    if (names.length > 0) writeFileSync(extensions, `subjectAltName = ${names.join(', ')}\n`);
    else writeFileSync(extensions, 'basicConstraints = CA:FALSE\n');
    await mustRun([
      ...['openssl', 'req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'],
      ...['-subj', `/CN=${name}`, '-keyout', files.key, '-out', request],
    ]);
    await mustRun([
      ...[
        'openssl',
        'x509',
        '-req',
        '-in',
        request,
        '-CA',
        files.ca,
        '-CAkey',
        join(this.directory, 'ca.key'),
      ],
      ...['-CAcreateserial', '-days', '2', '-extfile', extensions, '-out', files.cert],
    ]);
    return files;
  }

  async dispose(): Promise<void> {
    await rm(this.directory, { recursive: true, force: true });
  }

  #files(name: string): Files {
    const file = (ending: string): string => join(this.directory, `${name}.${ending}`);
    return { cert: file('pem'), key: file('key'), ca: join(this.directory, 'ca.pem') };
  }
}
