/**
 * The plugin socket of Docker (moby, pkg/plugins): `POST /Driver.Method` with JSON, answered with JSON.
 *
 * In: HTTP requests of dockerd. Out: answers of the two drivers; errors in the field that each of them has for errors. Never: a method
 * that we do not have answered with anything but 404 (Docker takes that, and only that, as "not supported").
 */
import { createServer, type IncomingMessage, type Server } from 'node:http';
import { z } from 'zod';
import type { Ipam } from '../ipam/ipam.ts';
import { asNetctlError, invalid, type NetctlError } from '../lib/errors.ts';
import type { Logger } from '../lib/logger.ts';
import { IpamDriver } from './ipam-driver.ts';
import { NetworkDriver, type NetworkDriverParts } from './network-driver.ts';
import { DockerNetworks } from './networks.ts';

export interface DockerParts extends Pick<NetworkDriverParts, 'attacher' | 'addressesOf'> {
  readonly ipam: Ipam;
  readonly node: string;
  /** Where the options of networks are kept. */
  readonly directory: string;
  readonly logger: Logger;
}

const mostBytes = 1 << 20;

type Methods = NetworkDriver['methods'];

/** Not listening yet. */
export function createDockerServer(parts: DockerParts): Server {
  const ipam = new IpamDriver(parts.ipam, parts.node);
  const network = new NetworkDriver({ ...parts, ipam, networks: new DockerNetworks(parts.directory) });
  const drivers: Readonly<Record<string, { methods: Methods; error: string }>> = {
    Plugin: { methods: { Activate: () => ({ Implements: ['NetworkDriver', 'IpamDriver'] }) }, error: 'Err' },
    NetworkDriver: { methods: network.methods, error: 'Err' },
    IpamDriver: { methods: ipam.methods, error: 'Error' },
  };
  return createServer(async (request, response) => {
    const [, name = '', method = ''] = /^\/(\w+)\.(\w+)$/.exec(request.url ?? '') ?? [];
    const driver = Object.hasOwn(drivers, name) ? drivers[name] : undefined;
    const answerWith = (status: number, value: object): void => {
      response.writeHead(status, { 'Content-Type': 'application/vnd.docker.plugins.v1.1+json' });
      response.end(JSON.stringify(value));
    };
    if (driver === undefined || !Object.hasOwn(driver.methods, method) || request.method !== 'POST')
      return answerWith(404, { Err: `netctl has no ${name}.${method}` });
    try {
      answerWith(200, await driver.methods[method]!(await bodyOf(request)));
    } catch (thrown) {
      const error = errorOf(thrown);
      parts.logger.warn({ call: `${name}.${method}`, error: error.message }, 'call of Docker failed');
      answerWith(200, { [driver.error]: error.message });
    }
  });
}

/** Methods without arguments come without a body. */
async function bodyOf(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > mostBytes) throw invalid('body', `${size} bytes`, `at most ${mostBytes} bytes`);
    chunks.push(chunk);
  }
  const text = Buffer.concat(chunks).toString();
  if (text === '') return {};
  try {
    return JSON.parse(text);
  } catch {
    throw invalid('body', text, 'JSON');
  }
}

function errorOf(thrown: unknown): NetctlError {
  if (!(thrown instanceof z.ZodError)) return asNetctlError(thrown);
  const [issue] = thrown.issues;
  return invalid(issue?.path.join('.') ?? 'body', undefined, issue?.message ?? 'what Docker sends');
}
