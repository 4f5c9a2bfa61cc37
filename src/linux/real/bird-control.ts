/**
 * BIRD's control socket: one connection, commands answered in order, log lines in between (BIRD's `doc/reply_codes`).
 *
 * In: commands. Out: replies whole, log lines one by one. Never: a command that holds a line break, two replies mixed, a reply without
 * end in memory.
 */
import { createConnection, type Socket } from 'node:net';
import type { BirdListener, BirdSession } from '../bird.ts';

const deadlineMilliseconds = 5000;
const mostReplyCharacters = 64 * 1024 * 1024;

interface Question {
  readonly resolve: (reply: string) => void;
  readonly reject: (error: Error) => void;
  readonly timer: NodeJS.Timeout;
}

/** null where nothing answers. The greeting (`0001 BIRD 2.0.12 ready.`) is waited for and left out. */
export async function connectBird(path: string, listener: BirdListener): Promise<BirdSession | null> {
  const socket = await open(path);
  if (socket === null) return null;
  const control = new Control(socket, listener);
  try {
    await control.greeting;
    return control;
  } catch {
    control.close();
    return null;
  }
}

class Control implements BirdSession {
  readonly greeting: Promise<string>;
  readonly #socket: Socket;
  readonly #listener: BirdListener;
  readonly #questions: Question[] = [];
  #partial = '';
  #reply: string[] = [];
  #replyCharacters = 0;
  #isClosed = false;

  constructor(socket: Socket, listener: BirdListener) {
    this.#socket = socket;
    this.#listener = listener;
    socket.setEncoding('utf8');
    socket.on('data', (text: string) => this.#read(text));
    socket.on('error', () => undefined);
    socket.on('close', () => this.#end('BIRD has ended'));
    this.greeting = this.#expect();
  }

  ask(command: string): Promise<string> {
    if (/[\r\n\0]/.test(command))
      throw new Error(`a command of one line was expected, not ${JSON.stringify(command)}`);
    if (this.#isClosed) return Promise.reject(new Error('BIRD has ended'));
    const answer = this.#expect();
    this.#socket.write(`${command}\n`);
    return answer;
  }

  close(): void {
    this.#isClosed = true;
    this.#socket.destroy();
    this.#fail('the connection to BIRD was closed');
  }

  #expect(): Promise<string> {
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    // A late reply would be taken for that of the next command: the connection ends with the first one that is missing.
    const timer = setTimeout(
      () => this.#end(`BIRD did not answer within ${deadlineMilliseconds} ms`),
      deadlineMilliseconds,
    );
    timer.unref();
    this.#questions.push({ resolve, reject, timer });
    return promise;
  }

  #read(text: string): void {
    const lines = (this.#partial + text).split('\n');
    this.#partial = lines.pop() ?? '';
    for (const line of lines) this.#line(line);
  }

  /** `+…` is a line of the log, `NNNN ` (a blank after the code) ends a reply. */
  #line(line: string): void {
    if (line.startsWith('+')) {
      this.#listener.onLog(line.slice(1));
      return;
    }
    this.#reply.push(line);
    this.#replyCharacters += line.length;
    if (this.#replyCharacters > mostReplyCharacters) this.#end('BIRD sent a reply without end');
    else if (/^\d{4} /.test(line)) this.#answer();
  }

  #answer(): void {
    const question = this.#questions.shift();
    const reply = this.#reply.join('\n');
    this.#reply = [];
    this.#replyCharacters = 0;
    if (question === undefined) return;
    clearTimeout(question.timer);
    question.resolve(reply);
  }

  #end(reason: string): void {
    const wasOpen = !this.#isClosed;
    this.#isClosed = true;
    this.#socket.destroy();
    this.#fail(reason);
    if (wasOpen) this.#listener.onEnd();
  }

  #fail(reason: string): void {
    for (const { reject, timer } of this.#questions.splice(0)) {
      clearTimeout(timer);
      reject(new Error(reason));
    }
  }
}

function open(path: string): Promise<Socket | null> {
  return new Promise((resolve) => {
    const socket = createConnection(path);
    socket.once('connect', () => {
      socket.removeAllListeners('error');
      resolve(socket);
    });
    socket.once('error', () => resolve(null));
  });
}
