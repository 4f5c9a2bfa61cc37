/**
 * The members of etcd as one: connects to one of them, moves on to the next when it does not serve, keeps the login.
 *
 * In: endpoints, credentials, calls. Out: answers, or an error that says whether anything can have been done; the state of the
 * connection. Never: a write sent twice, unless etcd refused it unread for its login; attempts to connect without a pause
 * between rounds; a login kept after etcd has called it invalid.
 */
import { type ChannelCredentials, credentials, Metadata } from '@grpc/grpc-js';
import type { Clock } from '../lib/clock.ts';
import { invalid, NetctlError } from '../lib/errors.ts';
import type { Logger } from '../lib/logger.ts';
import { EtcdConnection } from './etcd-connection.ts';
import { etcdError, isMemberProblem, isServiceError, isTokenProblem, unavailable } from './etcd-errors.ts';
import { authenticateMethod, type Method } from './etcd-messages.ts';
import type { Given, Message } from './etcd-protobuf.ts';

export interface EtcdClusterOptions {
  /** `http://host:port` or `https://host:port`, all of one kind. */
  readonly endpoints: readonly string[];
  /** PEM. Without `ca`, the system's authorities are trusted; `cert` and `key` go together. */
  readonly tls?: { readonly ca?: Buffer; readonly cert?: Buffer; readonly key?: Buffer };
  readonly username?: string;
  readonly password?: string;
  readonly clock: Clock;
  readonly logger: Logger;
  /** 0 to 1, spreads the agents over the members and their attempts over time. */
  readonly random?: () => number;
}

export interface EtcdStatus {
  readonly connected: boolean;
  /** The member in use, host:port; null without a connection. */
  readonly endpoint: string | null;
  /** Milliseconds since 1970: connected, or without connection, since then. */
  readonly since: number;
  /** Why there is no connection; null before the first attempt and while there is one. */
  readonly error: string | null;
}

/** How one call is made. */
interface Manner {
  /** In words, for errors: "transaction of 3 writes". */
  readonly what: string;
  /** A read may be asked again, of another member, when the first one went away. */
  readonly again: boolean;
}

const connectMilliseconds = 2000;
/** For connecting, the call, and for reads once more. */
const callMilliseconds = 5000;
const firstRestMilliseconds = 100;
/** Callers and watches that ask meanwhile get the last error at once. */
const longestRestMilliseconds = 1000;

export class EtcdCluster {
  readonly #options: Required<Pick<EtcdClusterOptions, 'clock' | 'logger' | 'random'>> & EtcdClusterOptions;
  readonly #endpoints: readonly string[];
  readonly #onConnected = new Set<() => void>();
  readonly #credentials: ChannelCredentials;
  #next: number;
  #connection: EtcdConnection | null = null;
  #connecting: Promise<EtcdConnection> | null = null;
  #resting = false;
  /** Rounds over all members without an answer to any call. */
  #failures = 0;
  #token: Promise<string> | null = null;
  #status: EtcdStatus;
  #closed: NetctlError | null = null;

  /** Connects at the first call. @throws INVALID for options that cannot work */
  constructor(options: EtcdClusterOptions) {
    const random = options.random ?? Math.random;
    this.#options = { ...options, random };
    const { hosts, secure } = checkEndpoints(options.endpoints);
    this.#endpoints = hosts;
    this.#credentials = makeCredentials(options, secure);
    this.#next = Math.floor(random() * hosts.length) % hosts.length;
    this.#status = { connected: false, endpoint: null, since: options.clock.now(), error: null };
  }

  status(): EtcdStatus {
    return this.#status;
  }

  /** @throws STORE_UNAVAILABLE, INVALID (too large for etcd), STORE_COMPACTED; `details.outcome` says what can have been done */
  async call<M extends Method>(
    method: M,
    request: Given<M['request']>,
    { what, again }: Manner,
  ): Promise<Message<M['response']>> {
    const end = performance.now() + callMilliseconds;
    for (let last = !again; ; last = true) {
      const connection = await this.connection(end - performance.now());
      try {
        return await this.#callAt(connection, method, request, end);
      } catch (error) {
        const mayAsk = !last && performance.now() < end && connection.isLost() && !this.#closed;
        if (!mayAsk) throw etcdError(connection.endpoint, what, error);
      }
    }
  }

  /** What every call and stream carries. @throws as `call` does, when logging in fails */
  async metadata(connection: EtcdConnection, withinMilliseconds = callMilliseconds): Promise<Metadata> {
    const metadata = new Metadata();
    // A member without a leader refuses at once instead of waiting, and ends its watches.
    metadata.set('hasleader', 'true');
    if (this.#options.username !== undefined) {
      this.#token ??= this.#logIn(connection, withinMilliseconds);
      const token = await this.#token;
      if (token !== '') metadata.set('token', token);
    }
    return metadata;
  }

  /** The next call logs in anew. */
  forgetToken(): void {
    this.#token = null;
  }

  /** The one in use, or the next that can be had within the time. @throws STORE_UNAVAILABLE, outcome not-sent */
  async connection(withinMilliseconds: number): Promise<EtcdConnection> {
    if (this.#closed) throw this.#closed;
    if (this.#connection) return this.#connection;
    if (!this.#connecting) {
      if (this.#resting) throw unavailable(this.#all(), this.#status.error ?? 'not connected', 'not-sent');
      this.#connecting = this.#connect().finally(() => {
        this.#connecting = null;
      });
      // Whoever waits for it may give up before it fails.
      this.#connecting.catch(() => {});
    }
    return this.#within(this.#connecting, withinMilliseconds);
  }

  /** Calls at each new connection; returns what takes the callback back. */
  onConnected(callback: () => void): () => void {
    this.#onConnected.add(callback);
    return () => void this.#onConnected.delete(callback);
  }

  close(error: NetctlError): void {
    this.#closed = error;
    this.#connection?.lose(error);
  }

  async #callAt<M extends Method>(
    connection: EtcdConnection,
    method: M,
    request: Given<M['request']>,
    end: number,
  ): Promise<Message<M['response']>> {
    const send = async () => {
      const metadata = await this.metadata(connection, end - performance.now());
      return connection.call(method, request, metadata, end - performance.now());
    };
    const token = this.#token;
    try {
      const answer = await send().catch((error: unknown) => {
        if (this.#options.username === undefined || !isTokenProblem(error)) throw error;
        // Many calls fail by the same token: the first of them forgets it.
        if (this.#token === token) this.forgetToken();
        return send();
      });
      this.#failures = 0;
      return answer;
    } catch (error) {
      if (isServiceError(error) && isMemberProblem(error))
        connection.lose(etcdError(connection.endpoint, 'the last call', error));
      throw error;
    }
  }

  async #logIn(connection: EtcdConnection, withinMilliseconds: number): Promise<string> {
    const { username = '', password = '' } = this.#options;
    try {
      const request = { name: username, password };
      const answer = await connection.call(authenticateMethod, request, new Metadata(), withinMilliseconds);
      return answer.token;
    } catch (error) {
      this.#token = null;
      // Users may be configured here before they are switched on there.
      if (isServiceError(error) && error.details === 'etcdserver: authentication is not enabled') return '';
      if (isServiceError(error) && isMemberProblem(error))
        connection.lose(etcdError(connection.endpoint, 'logging in', error));
      const failed = etcdError(connection.endpoint, `login of user ${username}`, error);
      // What the login was for has not been sent, whatever became of the login.
      const outcome = failed.details['outcome'] === 'refused' ? 'refused' : 'not-sent';
      throw new NetctlError(failed.code, failed.message, { outcome }, error);
    }
  }

  /** One round over the members. */
  async #connect(): Promise<EtcdConnection> {
    let failure: unknown;
    for (const _ of this.#endpoints) {
      const endpoint = this.#endpoints[this.#next]!;
      this.#next = (this.#next + 1) % this.#endpoints.length;
      const connection = new EtcdConnection(endpoint, this.#credentials);
      try {
        await connection.open(connectMilliseconds);
        if (this.#closed) {
          connection.lose(this.#closed);
          throw this.#closed;
        }
        this.#use(connection);
        return connection;
      } catch (error) {
        failure = error;
        if (this.#closed) break;
      }
    }
    this.#rest();
    this.#report((failure as Error).message);
    throw failure;
  }

  #use(connection: EtcdConnection): void {
    this.#connection = connection;
    this.#report(null);
    connection.onLost((error) => {
      this.#connection = null;
      this.#report(error.message);
      this.#failures += 1;
      // A member that accepts connections and serves nothing must not be tried in a tight loop.
      if (this.#failures > this.#endpoints.length) this.#rest();
    });
    for (const callback of [...this.#onConnected]) callback();
  }

  #rest(): void {
    const { clock, random } = this.#options;
    this.#failures += 1;
    const delay = Math.min(firstRestMilliseconds * 2 ** this.#failures, longestRestMilliseconds);
    this.#resting = true;
    clock.setTimer(delay * (0.5 + random() / 2), () => {
      this.#resting = false;
    });
  }

  #report(error: string | null): void {
    const { clock, logger } = this.#options;
    const endpoint = this.#connection?.endpoint ?? null;
    const connected = endpoint !== null;
    const changed = connected !== this.#status.connected || this.#status.error === null;
    const since = changed ? clock.now() : this.#status.since;
    this.#status = { connected, endpoint, since, error };
    if (!changed || this.#closed) return;
    if (connected) logger.info({ endpoint }, 'connected to etcd');
    else logger.warn({ endpoints: this.#endpoints, error }, 'etcd is not connected');
  }

  #within<T>(promise: Promise<T>, milliseconds: number): Promise<T> {
    const { promise: expired, reject } = Promise.withResolvers<never>();
    const timer = setTimeout(
      () => reject(unavailable(this.#all(), 'no connection in time', 'not-sent')),
      milliseconds,
    );
    return Promise.race([promise, expired]).finally(() => clearTimeout(timer));
  }

  #all(): string {
    return this.#endpoints.join(', ');
  }
}

function checkEndpoints(endpoints: readonly string[]): { hosts: string[]; secure: boolean } {
  const accepted = 'http://HOST:PORT or https://HOST:PORT, the same for all members';
  if (endpoints.length === 0) throw invalid('etcd.endpoints', endpoints, `at least one ${accepted}`);
  const parts = endpoints.map((endpoint) => {
    const [, scheme, host] = /^(https?):\/\/((?:\[[\da-f:.]+\]|[\w.-]+):\d{1,5})\/?$/i.exec(endpoint) ?? [];
    if (scheme === undefined || host === undefined) throw invalid('etcd.endpoints', endpoint, accepted);
    return { scheme: scheme.toLowerCase(), host };
  });
  const secure = parts[0]!.scheme === 'https';
  if (parts.some(({ scheme }) => (scheme === 'https') !== secure))
    throw invalid('etcd.endpoints', endpoints, accepted);
  return { hosts: parts.map(({ host }) => host), secure };
}

function makeCredentials(
  { tls, username, password }: EtcdClusterOptions,
  secure: boolean,
): ChannelCredentials {
  if ((username === undefined) !== (password === undefined))
    throw invalid('etcd.username', username ?? '', 'username and password together, or neither');
  if (!secure) {
    if (tls) throw invalid('etcd.tls', '(given)', 'endpoints with https://');
    return credentials.createInsecure();
  }
  if ((tls?.cert === undefined) !== (tls?.key === undefined))
    throw invalid('etcd.tls', '(given)', 'cert and key together, or neither');
  try {
    return credentials.createSsl(tls?.ca ?? null, tls?.key ?? null, tls?.cert ?? null);
  } catch (error) {
    throw invalid('etcd.tls', (error as Error).message, 'PEM of an authority, a certificate and its key');
  }
}
