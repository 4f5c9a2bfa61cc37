/**
 * Run inside a container by policy-switch.test.ts, until its standard input ends; then it prints what it has seen as JSON.
 * `listen PORT` counts datagrams; `knock ADDRESS PORT` sends them, each from a port of its own; `connect ADDRESS PORT` makes TCP
 * connections, one after the other.
 */
import { createSocket } from 'node:dgram';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

const [what, ...args] = process.argv.slice(2);
const seen = { received: 0, sent: 0, made: 0, failed: 0 };
let isOver = false;
process.stdin.on('end', () => {
  isOver = true;
  console.log(JSON.stringify(seen));
  setTimeout(() => process.exit(0), 20);
});
process.stdin.resume();

if (what === 'listen') {
  const socket = createSocket('udp4', () => seen.received++);
  socket.bind(Number(args[0]), () => console.log('ready'));
} else {
  console.log('ready');
  const [address, port] = [args[0]!, Number(args[1])];
  while (!isOver) await (what === 'knock' ? knock(address, port) : connectOnce(address, port));
}

async function knock(address: string, port: number): Promise<void> {
  for (let i = 0; i < 5; i++) {
    const socket = createSocket('udp4');
    await new Promise<void>((resolve) => socket.send('x', port, address, () => resolve()));
    socket.close();
    seen.sent++;
  }
  await sleep(1);
}

async function connectOnce(host: string, port: number): Promise<void> {
  const socket = connect({ host, port });
  // Less than the second after which a lost SYN is sent again.
  socket.setTimeout(500, () => socket.destroy(new Error('too late')));
  const made = await new Promise<boolean>((resolve) => {
    socket.on('connect', () => resolve(true));
    socket.on('error', () => resolve(false));
  });
  socket.destroy();
  if (isOver) return;
  if (made) seen.made++;
  else seen.failed++;
  await sleep(2);
}
