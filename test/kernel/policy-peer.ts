/**
 * A party to talk to and from, run inside a network namespace: `node policy-peer.ts PORT…` listens on those TCP ports and answers
 * one JSON line per JSON line: connect, bind a UDP port, send from it, tell what was received.
 */
import { createSocket, type Socket } from 'node:dgram';
import { connect, createServer } from 'node:net';
import { createInterface } from 'node:readline';

const TIMEOUT_MS = 400;
const udp = new Map<string, Socket>();
const received: string[] = [];

for (const port of process.argv.slice(2)) createServer((socket) => socket.end()).listen(Number(port), '::');

type Request =
  | { do: 'connect' | 'bind'; address: string; port: number }
  | { do: 'send'; from: string; to: string; port: number; text: string }
  | { do: 'received' };

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line) as Request & { id: number };
  void answer(request).then((value) => console.log(JSON.stringify({ id: request.id, value })));
}

async function answer(request: Request): Promise<unknown> {
  if (request.do === 'connect') return await canConnect(request.address, request.port);
  if (request.do === 'bind') return await bind(request.address, request.port);
  if (request.do === 'send') return await send(request);
  return received;
}

function canConnect(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host, port });
    const finish = (value: boolean): void => {
      socket.destroy();
      resolve(value);
    };
    socket.setTimeout(TIMEOUT_MS, () => finish(false));
    socket.on('connect', () => finish(true));
    socket.on('error', () => finish(false));
  });
}

function bind(address: string, port: number): Promise<boolean> {
  const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4');
  socket.on('message', (message, from) => {
    received.push(`${message} from ${from.address}`);
  });
  udp.set(address, socket);
  return new Promise((resolve) => {
    socket.on('error', () => resolve(false));
    socket.bind(port, address, () => resolve(true));
  });
}

function send({ from, to, port, text }: Request & { do: 'send' }): Promise<boolean> {
  return new Promise((resolve) => udp.get(from)!.send(text, port, to, (error) => resolve(error === null)));
}
