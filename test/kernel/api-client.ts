/**
 * A client of an agent's API over TCP with a certificate: requests, and streams of events.
 *
 * In: address, PEM files. Out: answers; events as they come. Never: a connection left open after close().
 */
import { readFileSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { Agent, request } from 'node:https';
import { eventually } from '../../lab/run.ts';
import type { Files } from './pki.ts';

export interface Answer {
  readonly status: number;
  // biome-ignore lint/suspicious/noExplicitAny: each test says what it expects
  readonly body: any;
  readonly headers: IncomingMessage['headers'];
}

export interface SeenEvent {
  readonly type: string;
  readonly id: string | null;
  // biome-ignore lint/suspicious/noExplicitAny: each test says what it expects
  readonly data: any;
}

export class ApiClient {
  readonly #agent: Agent;
  readonly #base: { readonly host: string; readonly port: number };

  /** @param files without cert and key: a client that has none */
  constructor(host: string, port: number, files: Partial<Files> & Pick<Files, 'ca'>) {
    this.#base = { host, port };
    this.#agent = new Agent({
      ca: readFileSync(files.ca),
      ...(files.cert === undefined ? {} : { cert: readFileSync(files.cert) }),
      ...(files.key === undefined ? {} : { key: readFileSync(files.key) }),
      keepAlive: true,
    });
  }

  /** @throws when there is no answer */
  send(method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const text = body === undefined ? undefined : typeof body === 'string' ? body : JSON.stringify(body);
      const type = text === undefined ? {} : { 'content-type': 'application/json' };
      const call = request(
        { ...this.#base, agent: this.#agent, method, path, headers: { ...type, ...headers } },
        (response) => {
          let answer = '';
          response.setEncoding('utf8').on('data', (part: string) => {
            answer += part;
          });
          response.on('end', () => {
            const json = (response.headers['content-type'] ?? '').includes('json');
            const { statusCode: status = 0, headers } = response;
            resolve({ status, body: json ? JSON.parse(answer) : answer, headers });
          });
        },
      );
      call.on('error', reject);
      call.end(text);
    });
  }

  /** Opens a stream; rejects with the status when it is refused. */
  watch(query: string): Promise<EventStream> {
    return new Promise((resolve, reject) => {
      const call = request({ ...this.#base, agent: this.#agent, path: `/v1/watch${query}` }, (response) => {
        if (response.statusCode === 200) resolve(new EventStream(response));
        else reject(new Error(`watch: ${response.statusCode}`));
      });
      call.on('error', reject);
      call.end();
    });
  }

  close(): void {
    this.#agent.destroy();
  }
}

export class EventStream {
  readonly events: SeenEvent[] = [];
  readonly response: IncomingMessage;
  ended = false;
  #text = '';

  constructor(response: IncomingMessage) {
    this.response = response;
    response.setEncoding('utf8').on('data', (part: string) => {
      this.#text += part;
      for (let end = this.#text.indexOf('\n\n'); end >= 0; end = this.#text.indexOf('\n\n')) {
        this.events.push(eventOf(this.#text.slice(0, end)));
        this.#text = this.#text.slice(end + 2);
      }
    });
    response.on('close', () => {
      this.ended = true;
    });
    response.on('error', () => undefined);
  }

  /** Waits for an event that is like this. */
  until(what: string, is: (event: SeenEvent) => boolean): Promise<SeenEvent> {
    return eventually(what, 20_000, async () => this.events.find(is) ?? null);
  }

  /** The id to resume with. */
  get last(): string {
    return this.events.findLast(({ id }) => id !== null)!.id!;
  }

  close(): void {
    this.response.destroy();
  }
}

function eventOf(text: string): SeenEvent {
  const fields = Object.fromEntries(
    text.split('\n').map((line) => [line.split(': ', 1)[0], line.slice(line.indexOf(': ') + 2)]),
  );
  return {
    type: fields['event'] ?? '',
    id: fields['id'] ?? null,
    data: JSON.parse(fields['data'] ?? 'null'),
  };
}
