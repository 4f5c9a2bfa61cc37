/**
 * The program that runs inside containers of the lab: serves, tries and holds TCP connections.
 *
 *   tcp.ts serve 80,443                 echoes on these ports; prints `ready`; ends when its standard input does
 *   tcp.ts connect TARGETS TIMEOUT-MS   prints a JSON list of true and false, one per target
 *   tcp.ts sink 80,443                  takes what is sent, answers how fast it came; prints `ready`; ends when its standard input does
 *   tcp.ts send TARGET MILLISECONDS     sends as fast as it can, and prints what the sink answered
 *   tcp.ts hold TARGET                  talks every 20 ms; prints `ready`, and a report when its standard input ends
 */
import { once } from 'node:events';
import { createConnection, createServer, type Socket } from 'node:net';
import type { HoldReport, Target } from './container.ts';

const [mode, what = '', timeout = '0'] = process.argv.slice(2);
if (mode === 'serve') await serve(what.split(',').map(Number));
else if (mode === 'connect') await connectAll(JSON.parse(what) as Target[], Number(timeout));
else if (mode === 'sink') await sink(what.split(',').map(Number));
else if (mode === 'send') await send(JSON.parse(what) as Target, Number(timeout));
else if (mode === 'hold') await hold(JSON.parse(what) as Target);
else throw new Error(`unknown mode ${mode}`);

async function serve(ports: readonly number[]): Promise<void> {
  await listen(ports, (socket) => socket.on('error', () => undefined).pipe(socket));
}

/** What comes in the first moments is not counted: a bucket is full then, and a connection is slow at first. */
const warmUpMs = 700;

async function sink(ports: readonly number[]): Promise<void> {
  await listen(ports, (socket) => {
    let [begin, from, last, bytes] = [0, 0, 0, 0];
    socket.on('data', (chunk) => {
      last = performance.now();
      if (begin === 0) begin = last;
      if (last - begin < warmUpMs) return;
      if (from === 0) from = last;
      else bytes += chunk.length;
    });
    socket.on('error', () => undefined);
    socket.on('end', () => socket.end(JSON.stringify((bytes * 8000) / (last - from))));
  });
}

async function send(target: Target, milliseconds: number): Promise<void> {
  const socket = open(target);
  await once(socket, 'connect');
  const chunk = Buffer.alloc(65536);
  let over = false;
  const pump = (): void => {
    while (!over) if (!socket.write(chunk)) return;
  };
  socket.on('drain', pump);
  setTimeout(() => {
    over = true;
    socket.end();
  }, milliseconds);
  socket.pipe(process.stdout);
  pump();
  await once(socket, 'close');
}

async function listen(ports: readonly number[], onConnection: (socket: Socket) => void): Promise<void> {
  for (const port of ports) {
    const server = createServer({ allowHalfOpen: mode === 'sink' }, onConnection);
    server.listen(port, '::');
    await once(server, 'listening');
  }
  console.log('ready');
  process.stdin.resume().on('end', () => process.exit(0));
}

async function connectAll(targets: readonly Target[], timeoutMs: number): Promise<void> {
  console.log(JSON.stringify(await Promise.all(targets.map((target) => connects(target, timeoutMs)))));
}

function connects(target: Target, timeoutMs: number): Promise<boolean> {
  return new Promise((answer) => {
    const socket = open(target);
    const end = (made: boolean) => {
      clearTimeout(alarm);
      socket.destroy();
      answer(made);
    };
    // A program that had to wait for a processor hears first what came meanwhile, and only then that the time is over.
    const alarm = setTimeout(() => setImmediate(end, false), timeoutMs);
    socket.on('connect', () => end(true)).on('error', () => end(false));
  });
}

async function hold(target: Target): Promise<void> {
  const socket = open(target).setNoDelay(true);
  await once(socket, 'connect');
  let echoes = 0;
  let longestGapMs = 0;
  let last = performance.now();
  const notice = () => {
    longestGapMs = Math.max(longestGapMs, Math.round(performance.now() - last));
  };
  socket.on('data', () => {
    notice();
    last = performance.now();
    echoes++;
    if (echoes === 1) console.log('ready');
  });
  socket.on('close', () => process.exit(1));
  setInterval(() => socket.write('.'), 20);
  process.stdin.resume().on('end', () => {
    notice();
    console.log(JSON.stringify({ echoes, longestGapMs } satisfies HoldReport));
    process.exit(0);
  });
}

function open(target: Target): Socket {
  return createConnection({
    host: target.address,
    port: target.port,
    ...(target.from === undefined ? {} : { localAddress: target.from }),
  });
}
