/**
 * One HTTP/2 connection to one member of etcd.
 *
 * In: an endpoint, credentials, calls. Out: answers, streams, and the moment at which the connection is lost. Never: a call
 * that gRPC sends a second time, a call without a deadline, a reconnection on its own (the cluster decides where to).
 */
import {
  type ChannelCredentials,
  Client,
  type ClientDuplexStream,
  connectivityState,
  type Metadata,
} from '@grpc/grpc-js';
import { unavailable } from './etcd-errors.ts';
import type { Method } from './etcd-messages.ts';
import { decodeMessage, encodeMessage, type Given, type Message } from './etcd-protobuf.ts';

export type Stream<M extends Method> = ClientDuplexStream<Given<M['request']>, Message<M['response']>>;

/**
 * A silent peer is noticed after 5.5 + 2 seconds, while a call or a stream is open. etcd counts pings that come more often than every
 * 5 seconds (its --grpc-keepalive-min-time) and closes the connection at the third.
 */
const channelOptions = {
  'grpc.keepalive_time_ms': 5500,
  'grpc.keepalive_timeout_ms': 2000,
  'grpc.enable_retries': 0,
  'grpc.enable_http_proxy': 0,
  'grpc.service_config_disable_resolution': 1,
  'grpc.use_local_subchannel_pool': 1,
  'grpc.client_idle_timeout_ms': 2 ** 31 - 1,
};

export class EtcdConnection {
  readonly endpoint: string;
  readonly #client: Client;
  readonly #onLost = new Set<(error: Error) => void>();
  #lost: Error | null = null;

  /** @param endpoint host:port */
  constructor(endpoint: string, credentials: ChannelCredentials) {
    this.endpoint = endpoint;
    this.#client = new Client(`dns:${endpoint}`, credentials, channelOptions);
  }

  /** @throws STORE_UNAVAILABLE if there is no connection within the time; it is closed then */
  async open(timeoutMilliseconds: number): Promise<void> {
    const channel = this.#client.getChannel();
    const end = performance.now() + timeoutMilliseconds;
    for (;;) {
      if (this.#lost) throw this.#lost;
      const state = channel.getConnectivityState(true);
      if (state === connectivityState.READY) break;
      const failed = state === connectivityState.TRANSIENT_FAILURE;
      if (!failed && (await this.#stateLeft(state, end - performance.now()))) continue;
      const reason = failed ? await this.#whyNot() : `no connection within ${timeoutMilliseconds} ms`;
      this.lose(unavailable(this.endpoint, reason, 'not-sent'));
    }
    channel.watchConnectivityState(connectivityState.READY, Number.POSITIVE_INFINITY, () =>
      this.lose(unavailable(this.endpoint, 'the connection was lost', 'not-sent')),
    );
  }

  /** @throws a gRPC ServiceError */
  call<M extends Method>(
    method: M,
    request: Given<M['request']>,
    metadata: Metadata,
    timeoutMilliseconds: number,
  ): Promise<Message<M['response']>> {
    return new Promise((resolve, reject) => {
      this.#client.makeUnaryRequest(
        method.path,
        (message: Given<M['request']>) => encodeMessage(method.request, message),
        (bytes): Message<M['response']> => decodeMessage(method.response, bytes),
        request,
        metadata,
        { deadline: Date.now() + timeoutMilliseconds },
        (error, answer) => (error ? reject(error) : resolve(answer!)),
      );
    });
  }

  /** A stream has no deadline: who opens it watches it, and `onLost`. */
  stream<M extends Method>(method: M, metadata: Metadata): Stream<M> {
    return this.#client.makeBidiStreamRequest(
      method.path,
      (message: Given<M['request']>) => encodeMessage(method.request, message),
      (bytes): Message<M['response']> => decodeMessage(method.response, bytes),
      metadata,
    );
  }

  isLost(): boolean {
    return this.#lost !== null;
  }

  /** Calls once; returns what takes the callback back. */
  onLost(callback: (error: Error) => void): () => void {
    this.#onLost.add(callback);
    return () => void this.#onLost.delete(callback);
  }

  /** To be called by whoever finds that the member does not serve. Calls under way may still be answered. */
  lose(error: Error): void {
    if (this.#lost) return;
    this.#lost = error;
    const callbacks = [...this.#onLost];
    this.#onLost.clear();
    for (const callback of callbacks) callback(error);
    this.#client.close();
  }

  /** False when the time was up. */
  #stateLeft(state: connectivityState, withinMilliseconds: number): Promise<boolean> {
    return new Promise((resolve) => {
      const deadline = Date.now() + withinMilliseconds;
      this.#client.getChannel().watchConnectivityState(state, deadline, (error) => resolve(!error));
    });
  }

  /** The channel tells its reason (refused, certificate not trusted) only to a call, which it fails without sending. */
  #whyNot(): Promise<string> {
    const nothing = () => Buffer.alloc(0);
    return new Promise((resolve) => {
      this.#client.makeUnaryRequest(
        '/netctl.None/None',
        nothing,
        nothing,
        null,
        { deadline: Date.now() + 1000 },
        (error) => resolve(lastError(error?.details ?? '')),
      );
    });
  }
}

function lastError(details: string): string {
  const reason = /Last error: (?:Error: )?(.*?)(?: \(\d{4}-[^)]*\))?\. Resolution note/s.exec(details)?.[1];
  return `cannot be connected to: ${reason || details}`;
}
