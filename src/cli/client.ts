/**
 * Requests to the agent's API, over its unix socket or over TLS.
 *
 * In: `unix:PATH` or `https://HOST:PORT`, method, path, body. Out: the answer's JSON, or a CliError with the exit code that the
 * failure stands for. Never: a request sent twice.
 */
import { readFileSync } from 'node:fs';
import { request as httpRequest, type IncomingMessage, type RequestOptions } from 'node:http';
import { CliError, exitCodes } from './exit.ts';

/** Changes wait up to 5 s for the kernel; an agent that says nothing for longer does not answer. */
const TIMEOUT_MS = 20_000;

export type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
export type Environment = Readonly<Record<string, string | undefined>>;

export interface Client {
  /** @throws CliError: refused (1), or agent or store out of reach (3) */
  send<T>(method: Method, path: string, body?: unknown): Promise<T>;
  /** Lines of text, as they are. @throws CliError as send */
  sendText<T>(method: Method, path: string, lines: string): Promise<T>;
  /** What is answered, as it is. @throws CliError as send */
  text(path: string): Promise<string>;
}

/** PEM files. */
export type TlsFiles = Readonly<Record<'ca' | 'cert' | 'key', string | undefined>>;

/** @param address `unix:PATH` or `https://HOST:PORT`; `files` are for the latter @throws CliError (2) */
export function openClient(address: string, files: TlsFiles): Client {
  const target = targetOf(address, files);
  return {
    async send<T>(method: Method, path: string, body?: unknown): Promise<T> {
      const text = body === undefined ? undefined : JSON.stringify(body);
      return unwrap<T>(await exchange(target, address, method, path, 'application/json', text), address);
    },
    async sendText<T>(method: Method, path: string, lines: string): Promise<T> {
      return unwrap<T>(await exchange(target, address, method, path, 'text/plain', lines), address);
    },
    async text(path: string): Promise<string> {
      const answer = await exchange(target, address, 'GET', path, 'application/json', undefined);
      if (answer.status >= 400) unwrap(answer, address);
      return answer.text;
    },
  };
}

/** Text as one segment of a path. */
export function segment(text: string): string {
  if (text === '.' || text === '..') throw new CliError(`"${text}" is not a name`);
  return encodeURIComponent(text);
}

interface Target {
  readonly secure: boolean;
  readonly options: RequestOptions;
}

function targetOf(address: string, files: TlsFiles): Target {
  if (address.startsWith('unix:') && address.length > 'unix:'.length) {
    return { secure: false, options: { socketPath: address.slice('unix:'.length), host: 'localhost' } };
  }
  const url = address.startsWith('https://') && URL.canParse(address) ? new URL(address) : null;
  if (url === null || url.pathname !== '/') {
    throw new CliError(
      `--api: "${address}" is not valid: expected unix:PATH or https://HOST:PORT`,
      exitCodes.usage,
    );
  }
  const host = url.hostname.replace(/^\[|\]$/g, '');
  const tls = { ca: pem(files, 'ca'), cert: pem(files, 'cert'), key: pem(files, 'key') };
  return { secure: true, options: { host, port: url.port || 443, ...tls } as RequestOptions };
}

function pem(files: TlsFiles, which: keyof TlsFiles): Buffer | undefined {
  const path = files[which];
  if (path === undefined || path === '') return undefined;
  try {
    return readFileSync(path);
  } catch (error) {
    throw new CliError(
      `--${which} (NETCTL_${which.toUpperCase()}): cannot read ${path}: ${(error as Error).message}`,
      exitCodes.usage,
    );
  }
}

async function exchange(
  { secure, options }: Target,
  address: string,
  method: Method,
  path: string,
  type: string,
  text: string | undefined,
): Promise<{ status: number; text: string }> {
  const headers =
    text === undefined ? {} : { 'content-type': type, 'content-length': Buffer.byteLength(text) };
  const open = secure ? (await import('node:https')).request : httpRequest;
  return new Promise((resolve, reject) => {
    const fail = (error: Error): void => reject(unreachable(address, error));
    const request = open(
      { ...options, method, path, headers, agent: false, timeout: TIMEOUT_MS },
      (response: IncomingMessage) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('error', fail);
        response.on('end', () =>
          resolve({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString('utf8') }),
        );
      },
    );
    request.on('error', fail);
    request.on('timeout', () => request.destroy(new Error(`no answer within ${TIMEOUT_MS / 1000} s`)));
    request.end(text);
  });
}

function unwrap<T>({ status, text }: { status: number; text: string }, address: string): T {
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    throw unreachable(address, new Error(`what answers there is not a netctl agent (HTTP ${status})`));
  }
  if (status < 400) return body as T;
  const { code, message } = (body as { error?: { code?: string; message?: string } }).error ?? {};
  const storeGone = code === 'STORE_UNAVAILABLE' || code === 'AGENT_UNAVAILABLE';
  throw new CliError(
    message ?? `the agent answered HTTP ${status}`,
    storeGone ? exitCodes.unreachable : exitCodes.refused,
  );
}

const ADVICE: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such socket: is netctld running, and with this run directory?',
  ECONNREFUSED: 'nobody listens there: is netctld running?',
  EACCES: 'permission denied: run netctl as root',
};

function unreachable(address: string, error: Error): CliError {
  const why = ADVICE[(error as NodeJS.ErrnoException).code ?? ''] ?? error.message;
  return new CliError(`cannot reach the agent at ${address}: ${why}`, exitCodes.unreachable);
}
