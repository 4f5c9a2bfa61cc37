/**
 * A small scheduler: asks where there is room, reserves addresses before it starts anything, starts containers through the real CNI
 * plugin, and moves one to another node with its address. docs/scheduler.md explains every request.
 *
 *   node examples/scheduler.ts node1=/run/netctl node2=/run/netctl-2        as root; a pool must exist
 *
 * In: agents as NAME=RUN_DIRECTORY. Out: a line for each step; exit 0 when all went as it should. Never: an address chosen here (netctl
 * does that); a container, namespace or address left behind.
 */
import { execFile, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { type ClientRequest, type IncomingMessage, request } from 'node:http';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';

const plugin = resolve(import.meta.dirname, '../dist/bin/netctl-cni');
const exec = promisify(execFile);
const tenant = 'shop';
const app = `cart-${randomBytes(3).toString('hex')}`;

interface Agent {
  readonly node: string;
  readonly runDirectory: string;
}

interface Allocation {
  readonly address: string;
  readonly state: string;
  readonly node: string | null;
  readonly generation: number;
}

// The API over the agent's socket. Over TCP it is the same with node:https, a client certificate and its key.

function open(agent: Agent, method: string, path: string, key?: string): ClientRequest {
  const headers = {
    'content-type': 'application/json',
    ...(key === undefined ? {} : { 'idempotency-key': key }),
  };
  return request({ socketPath: join(agent.runDirectory, 'api.sock'), method, path, headers });
}

async function send<T>(agent: Agent, method: string, path: string, body?: object, key?: string): Promise<T> {
  const response = await new Promise<IncomingMessage>((done, failed) => {
    open(agent, method, path, key)
      .on('response', done)
      .on('error', failed)
      .end(body === undefined ? undefined : JSON.stringify(body));
  });
  const answer = JSON.parse((await response.setEncoding('utf8').toArray()).join(''));
  if ((response.statusCode ?? 0) >= 400) throw Object.assign(new Error(answer.error.message), answer.error);
  return answer as T;
}

/** Resolves with the first event about the address that is as wanted. */
async function watchFor(
  agent: Agent,
  since: number,
  wanted: (item: Allocation) => boolean,
): Promise<Allocation> {
  const call = open(agent, 'GET', `/v1/watch?since=${since}&kinds=address&tenant=${tenant}`).end();
  const response = await new Promise<IncomingMessage>((done, failed) =>
    call.on('response', done).on('error', failed),
  );
  let text = '';
  for await (const part of response.setEncoding('utf8')) {
    text += part;
    const lines = text.split('\n');
    text = lines.pop() ?? '';
    for (const line of lines) {
      if (!line.startsWith('data: ')) continue;
      const { type, name, object } = JSON.parse(line.slice('data: '.length));
      const item = { address: name, ...object } as Allocation;
      if (type !== 'put' || !wanted(item)) continue;
      call.destroy();
      return item;
    }
  }
  throw new Error('the watch ended');
}

// Containers: a network namespace each, wired by the plugin as a runtime would call it.

class Container {
  readonly id = `${app}-${randomBytes(4).toString('hex')}`;
  readonly #agent: Agent;
  readonly #instance: string;

  constructor(agent: Agent, instance: string) {
    this.#agent = agent;
    this.#instance = instance;
  }

  /** Starts it; resolves with the address that CNI ADD answered. */
  async start(): Promise<string> {
    await exec('ip', ['netns', 'add', this.id]);
    const { ips } = JSON.parse(await this.#cni('ADD'));
    return ips[0].address.split('/')[0];
  }

  async stop(): Promise<void> {
    await this.#cni('DEL');
    await exec('ip', ['netns', 'delete', this.id]);
  }

  #cni(command: string): Promise<string> {
    const network = {
      cniVersion: '1.0.0',
      name: 'shop',
      type: 'netctl',
      socket: join(this.#agent.runDirectory, 'cni.sock'),
    };
    const env = {
      ...{ CNI_COMMAND: command, CNI_CONTAINERID: this.id, CNI_NETNS: `/run/netns/${this.id}` },
      ...{
        CNI_IFNAME: 'eth0',
        CNI_PATH: '/opt/cni/bin',
        CNI_ARGS: `NETCTL_OWNER=${tenant}/${app}/${this.#instance}`,
      },
    };
    const child = spawn(plugin, [], { env, stdio: 'pipe' });
    child.stdin.end(JSON.stringify(network));
    let answer = '';
    child.stdout.setEncoding('utf8').on('data', (part: string) => {
      answer += part;
    });
    return new Promise((done, failed) => {
      child.on('error', failed);
      child.on('close', (code) =>
        code === 0 ? done(answer) : failed(new Error(`CNI ${command}: ${answer}`)),
      );
    });
  }
}

async function schedule(agents: readonly Agent[]): Promise<void> {
  const [first] = agents as [Agent];
  const agentOf = (node: string): Agent => agents.find((agent) => agent.node === node)!;
  const running = new Map<string, Container>();
  try {
    const nodes = agents.map(({ node }) => node);
    const room = await send<{ nodes: { node: string; available4: number }[] }>(
      first,
      'POST',
      '/v1/capacity',
      { tenant, nodes },
    );
    const [best] = room.nodes.toSorted((a, b) => b.available4 - a.available4) as [
      { node: string; available4: number },
    ];
    say(
      `room: ${room.nodes.map(({ node, available4 }) => `${node} ${available4}`).join(', ')}: ${best.node} it is`,
    );

    const instances = ['0', '1'];
    const wish = { id: app, tenant, app, instances, ipv4: 1, onRelease: 'immutable', ttlSeconds: 120 };
    const reserve = () =>
      send<{ id: string; addresses: { address: string; owner: { instance: string } }[] }>(
        first,
        'POST',
        '/v1/reservations',
        wish,
        app,
      );
    const reserved = await reserve();
    const held = new Map(reserved.addresses.map(({ address, owner }) => [owner.instance, address]));
    say(`reserved: ${[...held].map(([instance, address]) => `${instance} has ${address}`).join(', ')}`);
    expect(
      'the same request again, as after a lost answer, is the same reservation',
      (await reserve()).id,
      reserved.id,
    );
    await send(first, 'POST', `/v1/reservations/${app}/commit`, { node: best.node });

    const { revision } = await send<{ revision: number }>(
      first,
      'GET',
      `/v1/allocations?tenant=${tenant}&app=${app}`,
    );
    for (const instance of instances) {
      const container = new Container(agentOf(best.node), instance);
      running.set(instance, container);
      expect(
        `instance ${instance} starts on ${best.node} with its address`,
        await container.start(),
        held.get(instance),
      );
    }
    const seen = await watchFor(
      first,
      revision,
      ({ address, state }) => address === held.get('0') && state === 'active',
    );
    say(`the watch tells that ${seen.address} is in use on ${seen.node}`);

    const target = nodes.find((node) => node !== best.node) ?? best.node;
    const address = held.get('0')!;
    await running.get('0')?.stop();
    running.delete('0');
    const read = async (agent: Agent): Promise<Allocation> =>
      (await send<{ items: Allocation[] }>(agent, 'GET', `/v1/allocations?ip=${address}`)).items[0]!;
    const { generation } = await until(
      () => read(first),
      ({ state }) => state === 'retained',
    );
    say(`stopped: ${address} stays instance 0's, at generation ${generation}`);
    const moved = await send<{ generation: number }>(first, 'POST', `/v1/allocations/${address}/transfer`, {
      generation,
      toNode: target,
      tenant,
    });
    const late = await send(first, 'POST', `/v1/allocations/${address}/release`, {
      generation,
      tenant,
    }).catch((error: { code: string }) => error.code);
    expect(`whoever still has generation ${generation} is refused`, late, 'STALE_GENERATION');
    await until(
      () => read(agentOf(target)),
      (item) => item.generation >= moved.generation,
    );
    const container = new Container(agentOf(target), '0');
    running.set('0', container);
    expect(`instance 0 starts on ${target} with the same address`, await container.start(), address);
  } finally {
    for (const container of running.values()) await container.stop();
    for (const instance of ['0', '1'])
      await send(first, 'POST', '/v1/allocations/release', { owner: { tenant, app, instance } });
    await send(first, 'POST', `/v1/reservations/${app}/cancel`, {}).catch(() => undefined);
  }
  say('gone: the containers are stopped and their addresses released');
}

async function until<T>(read: () => Promise<T>, is: (value: T) => boolean): Promise<T> {
  for (const end = Date.now() + 10_000; ; await new Promise((later) => setTimeout(later, 50))) {
    const value = await read();
    if (value !== undefined && is(value)) return value;
    if (Date.now() > end) throw new Error(`it stayed ${JSON.stringify(value)}`);
  }
}

function expect(what: string, seen: unknown, wanted: unknown): void {
  if (seen !== wanted) throw new Error(`${what}: ${seen}, not ${wanted}`);
  say(`${what}: ${seen}`);
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

const agents = process.argv.slice(2).map((text): Agent => {
  const [node = '', runDirectory = ''] = text.split('=');
  return { node, runDirectory };
});
if (agents.length === 0 || agents.some(({ runDirectory }) => runDirectory === '')) {
  process.stderr.write('usage: scheduler.ts NODE=RUN_DIRECTORY...\n');
  process.exitCode = 2;
} else await schedule(agents);
