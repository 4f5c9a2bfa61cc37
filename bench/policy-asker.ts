/**
 * A thread that asks another one, every few milliseconds, and notes how long each answer took: what a request to the agent waits for the agent's one
 * thread. In: the answers; `take`. Out: what is to be answered; at `take` all milliseconds since the last one. Never: two questions at once.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { parentPort } from 'node:worker_threads';

const PAUSE_MS = 3;
const port = parentPort!;
let times: number[] = [];
let answered: () => void = () => undefined;

port.on('message', (message: 'answer' | 'take') => {
  if (message === 'answer') {
    answered();
    return;
  }
  port.postMessage(times);
  times = [];
});

for (;;) {
  const answer = new Promise<void>((resolve) => {
    answered = resolve;
  });
  const start = performance.now();
  port.postMessage('ask');
  await answer;
  times.push(performance.now() - start);
  await sleep(PAUSE_MS);
}
