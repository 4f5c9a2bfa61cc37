/**
 * The agent's listeners on TCP: the API with mutual TLS, and the metrics.
 *
 * In: the API, the configuration. Out: servers that listen. Never: the API in the clear, or for a client whose certificate the configured
 * authority has not signed; an agent that does not start because its metrics' port is taken.
 */
import type { Server } from 'node:http';
import { createServer } from 'node:https';
import type { Server as NetServer } from 'node:net';
import type { FastifyInstance } from 'fastify';
import type { Config } from '../agent/config.ts';
import { invalid, NetctlError } from '../lib/errors.ts';
import type { Logger } from '../lib/logger.ts';
import { fileOf } from './file-of.ts';

/** A client takes one connection or a few; the rest is kept for others. */
const mostConnections = 1000;

/** Listens where the configuration says so; null where it does not. @throws INVALID naming the file or address that is wrong */
export async function listenTls(
  api: FastifyInstance,
  { listen, tls }: Config['api'],
  logger: Logger,
): Promise<Server | null> {
  // `systemctl reload` must not end an agent that has nothing to read anew.
  process.on('SIGHUP', () => logger.debug({}, 'SIGHUP'));
  if (listen === null) return null;
  const secrets = () => ({
    cert: fileOf('api.tls.cert', tls.cert),
    key: fileOf('api.tls.key', tls.key),
    ca: fileOf('api.tls.clientCa', tls.clientCa),
  });
  let server: ReturnType<typeof createServer>;
  try {
    server = createServer(
      { ...secrets(), requestCert: true, rejectUnauthorized: true, minVersion: 'TLSv1.2' },
      (request, response) => api.routing(request, response),
    );
  } catch (error) {
    if (error instanceof NetctlError) throw error;
    throw invalid('api.tls', tls, `certificate, key and authority as PEM (${(error as Error).message})`);
  }
  server.maxConnections = mostConnections;
  server.on('tlsClientError', (error, socket) =>
    logger.warn({ error: error.message, from: socket.remoteAddress }, 'a client of the API was refused'),
  );
  // Certificates are short-lived where they are well kept: new files count from the next connection on.
  process.on('SIGHUP', () => {
    try {
      server.setSecureContext({ ...secrets(), minVersion: 'TLSv1.2' });
      logger.info({ listen }, 'certificates of the API read anew');
    } catch (error) {
      logger.error(
        { error: (error as Error).message },
        'certificates of the API not read anew: the old ones stay',
      );
    }
  });
  await bind(server, 'api.listen', listen);
  logger.info({ listen }, 'API on TCP with mutual TLS');
  return server;
}

/** Another agent on this machine may have the port: the agent goes on without. */
export async function listenMetrics(
  server: Server,
  { listen }: Config['metrics'],
  logger: Logger,
): Promise<void> {
  if (listen === null) return;
  try {
    await bind(server, 'metrics.listen', listen);
  } catch (error) {
    logger.warn({ error: (error as Error).message }, 'no metrics');
  }
}

async function bind(server: NetServer, key: string, listen: string): Promise<void> {
  const [, host = '', port] = /^(.*):(\d+)$/.exec(listen) ?? [];
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) =>
      reject(invalid(key, listen, `an address and port of this host that are free (${error.code})`)),
    );
    server.listen({ host: host.replace(/^\[|\]$/g, ''), port: Number(port) }, () => resolve());
  });
}
