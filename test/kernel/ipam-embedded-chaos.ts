/**
 * Chaos on the embedded store: a real agent under the load of its API, killed at any moment, again and again; then the truth from outside,
 * by what its callers were told.
 *
 * In: how many operations and kills. Out: what was done. Never: a pass in which the agent did not die under way.
 */
import assert from 'node:assert/strict';
import { request } from 'node:http';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Host } from '../../lab/host.ts';

interface Reply {
  readonly status: number;
  // Of the API: whoever reads it knows which answer it is.
  // biome-ignore lint/suspicious/noExplicitAny: shapes differ with each route
  readonly body: any;
}

/** What one caller was told that it has. */
interface Held {
  readonly caller: number;
  generation: number;
  reservation: string | null;
  container: string | null;
}

const callers = 8;
const conflicts = [404, 409, 422, 507];

export async function embeddedChaos({ name = '', operations = 0, kills = 0 }) {
  const host = await Host.create({ name: `${name}${process.pid}`, address: '192.0.2.1' });
  const held = new Map<string, Held>();
  const problems: string[] = [];
  let done = 0;
  let killed = 0;
  let unknown = 0;
  let up = Promise.resolve();

  /** @throws for a connection that broke: what became of the request is not known */
  function call(method: string, path: string, body?: unknown): Promise<Reply> {
    const { promise, resolve, reject } = Promise.withResolvers<Reply>();
    const text = body === undefined ? '' : JSON.stringify(body);
    const headers = text === '' ? {} : { 'content-type': 'application/json' };
    const socketPath = join(host.runDirectory, 'api.sock');
    const sent = request({ socketPath, method, path, headers }, (answer) => {
      const parts: Buffer[] = [];
      answer.on('data', (part: Buffer) => parts.push(part));
      answer.on('error', reject);
      answer.on('end', () => {
        const whole = Buffer.concat(parts).toString();
        if (answer.complete)
          resolve({ status: answer.statusCode!, body: whole === '' ? null : JSON.parse(whole) });
        else reject(new Error('the answer broke off'));
      });
    });
    sent.on('error', reject);
    sent.end(text);
    return promise;
  }

  function hold(address: string, mine: Held): void {
    const other = held.get(address);
    if (other !== undefined)
      problems.push(`${address} is given to ${mine.caller}, and ${other.caller} has it`);
    held.set(address, mine);
  }

  /** The answer is there at last, however often the agent dies meanwhile. */
  async function ask(path: string): Promise<Reply> {
    for (;;) {
      await up;
      try {
        return await call('GET', path);
      } catch {
        await sleep(20);
      }
    }
  }

  /** After an answer was lost: what is there of this caller's is its own, and nothing else. */
  async function look(caller: number, addresses: readonly string[]): Promise<void> {
    for (const address of addresses) {
      const { body } = await ask(`/v1/allocations?ip=${address}`);
      const [record] = body.items;
      // It may be another caller's by now, who was told so.
      if (record === undefined || record.state === 'cooldown') continue;
      if (record.owner.instance.split('.')[0] !== `c${caller}`) continue;
      hold(address, { caller, ...record });
    }
  }

  /** A change of addresses that the caller has: nobody's while it is under way if it gives them up. */
  async function change(caller: number, address: string, path: string, body: unknown): Promise<Reply | null> {
    const before = held.get(address)!;
    held.delete(address);
    try {
      const reply = await call('POST', `/v1/allocations/${address}/${path}`, body);
      if (reply.status === 200) return reply;
      if (!conflicts.includes(reply.status)) problems.push(`${path}: ${JSON.stringify(reply)}`);
      hold(address, before);
      return null;
    } catch {
      unknown++;
      await look(caller, [address]);
      return null;
    }
  }

  async function reserve(caller: number): Promise<void> {
    const id = `c${caller}-${done}-${Math.floor(Math.random() * 1e9)}`;
    const kind = Math.random() < 0.5 ? 'routed' : 'macvlan';
    const instances = Array.from({ length: 1 + Math.floor(Math.random() * 4) }, (_, i) => `c${caller}.${i}`);
    try {
      const body = { id, tenant: 't', app: 'a', instances, ipv4: 1, kind, ttlSeconds: 3600 };
      const { status, body: reserved } = await call('POST', '/v1/reservations', body);
      if (status === 201)
        for (const { address, generation } of reserved.addresses)
          hold(address, { caller, generation, reservation: id, container: null });
      else if (!conflicts.includes(status)) problems.push(`reserve: ${status} ${JSON.stringify(reserved)}`);
    } catch {
      unknown++;
      const { status, body } = await ask(`/v1/reservations/${id}`);
      if (status === 200) await look(caller, body.addresses);
    }
  }

  async function step(caller: number): Promise<void> {
    const mine = [...held].filter(([, one]) => one.caller === caller);
    const [address, one] = mine[Math.floor(Math.random() * mine.length)] ?? [];
    if (address === undefined || one === undefined || (mine.length < 24 && Math.random() < 0.3))
      return reserve(caller);
    const { generation, container } = one;
    if (container === null) {
      const name = `c${caller}.${Math.floor(Math.random() * 1e9)}`;
      const bound = await change(caller, address, 'bind', { generation, container: name });
      if (bound !== null)
        hold(address, { ...one, generation: bound.body.generation, reservation: null, container: name });
    } else if (Math.random() < 0.2) {
      const toOwner = { tenant: 't', app: 'a', instance: `c${caller}.moved` };
      const moved = await change(caller, address, 'transfer', { generation, toOwner });
      if (moved !== null)
        hold(address, { ...one, generation: moved.body.generation, reservation: null, container: null });
    } else await change(caller, address, 'unbind', { container });
  }

  async function work(_: unknown, caller: number): Promise<void> {
    while ((done < operations || killed < kills) && problems.length === 0) {
      await up;
      await step(caller);
      done++;
    }
  }

  async function kill(): Promise<void> {
    while (killed < kills && problems.length === 0) {
      await sleep(100 + Math.random() * 900);
      // Callers hear of it by answers that do not come.
      await host.kill('SIGKILL');
      const restarted = Promise.withResolvers<void>();
      up = restarted.promise;
      await host.start();
      killed++;
      restarted.resolve();
    }
  }

  try {
    await host.start();
    const words = ['--cooldown', '0'];
    for (const pool of [['10.65.0.0/22'], ['10.66.0.0/23', '--kind', 'macvlan']]) {
      const { code, stderr } = await host.netctl(['pool', 'add', ...pool, ...words]);
      assert.equal(code, 0, stderr);
    }
    await Promise.all([kill(), ...Array.from({ length: callers }, work)]);
    assert.deepEqual(problems, []);

    const checked = await host.netctl(['ipam', 'check']);
    assert.equal(checked.code, 0, `${checked.stdout}${checked.stderr}`);
    const there = new Map<string, number>();
    for (let next: string | null = ''; next !== null; ) {
      const { body }: Reply = await call(
        'GET',
        `/v1/allocations?limit=1000${next === '' ? '' : `&cursor=${next}`}`,
      );
      for (const { address, state, generation } of body.items)
        if (state !== 'cooldown') there.set(address, generation);
      next = body.next;
    }
    const told = new Map([...held].map(([address, { generation }]) => [address, generation]));
    assert.deepEqual([...there].sort(), [...told].sort(), 'what the callers were told is what there is');
    return { operations: done, kills: killed, unknown, held: held.size };
  } finally {
    await host.close();
  }
}
