/**
 * An agent that dies between any two steps of the ADD and of the DEL of a macvlan endpoint with all that one can have (a pair to its host, both
 * families, rate limits): whatever comes next, ADD again, DEL, or the end of the namespace, nothing is left in the end. On the real kernel.
 */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { eventually, run } from '../../lab/run.ts';
import { Agent } from '../../src/agent/agent.ts';
import type { Attachments } from '../../src/agent/attach.ts';
import { loadConfig } from '../../src/agent/config.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { FakeBird } from '../../src/linux/fake/bird.ts';
import { createLinux } from '../../src/linux/real/linux.ts';
import type { AttachRequest } from '../../src/model/attachment.ts';
import { poolSchema } from '../../src/model/records.ts';
import { MemoryStore } from '../../src/store/memory.ts';
import type { Json } from '../../src/store/store.ts';
import { MemoryMark, request, silent } from '../unit/agent/rig.ts';
import { enterSandbox, ip } from './linux-contract-sandbox.ts';
import { Life, mortal, mortalStore } from './mortal.ts';

enterSandbox(import.meta.url);

const { config } = loadConfig({
  argv: ['--node', 'n1', '--address', '192.0.2.1', '--dataplane', 'nftables', '--no-bgp'],
  env: {},
  readFile: () => null,
});
const store = new MemoryStore();
/** More steps than there are. */
const most = 150;

before(async () => {
  ip('link', 'add', 'p0', 'type', 'veth', 'peer', 'name', 'p1');
  for (const end of ['p0', 'p1']) ip('link', 'set', end, 'up');
  ip('address', 'add', '192.0.2.1/24', 'dev', 'p0');
  const pools = {
    four: { cidr: '10.66.0.0/24', gateway: '10.66.0.1' },
    six: { cidr: 'fd66::/64', gateway: null },
  };
  for (const [name, pool] of Object.entries(pools)) {
    const blockSize = name === 'four' ? 26 : 122;
    const value = poolSchema.parse({ ...pool, blockSize, kind: 'macvlan', cooldownSeconds: 0 });
    await store.transact([], [{ kind: 'put', key: `pools/${name}`, value: value as unknown as Json }]);
  }
});
after(() => store.close());

interface Running {
  readonly agent: Agent;
  readonly attachments: Attachments;
  stop(): Promise<void>;
}

async function startAgent(life = new Life()): Promise<Running> {
  const linux = await createLinux({ iptablesBackend: 'nft' });
  const agent = new Agent({
    config,
    version: '0',
    bootId: 'boot',
    clock: systemClock,
    logger: silent,
    bird: new FakeBird(),
    releaseDelegate: async () => undefined,
    clusterTrouble: () => null,
    diskRefusal: () => null,
    flushMark: new MemoryMark(),
    store: mortalStore(store, life),
    linux: mortal(linux, life),
  });
  const attachments = await agent.start();
  return {
    agent,
    attachments,
    async stop() {
      await agent.stop();
      linux.close();
    },
  };
}

function wanted(name: string): AttachRequest {
  const path = `/run/netns/${name}`;
  return {
    ...request(name, path),
    network: 'wire',
    pools: ['four', 'six'],
    macvlan: {
      parent: 'p0',
      vlan: null,
      mode: 'bridge',
      hostAccess: 'veth',
      duplicateDetection: 'off',
      gatewayCheck: 'off',
      defaultRoute: true,
    },
    rateLimits: { inBitsPerSecond: 1e8, outBitsPerSecond: 1e8, inBurstBytes: null, outBurstBytes: null },
  } as AttachRequest;
}

/** Everything of an endpoint that is still somewhere; empty when nothing is. */
async function leftovers(name: string): Promise<string[]> {
  const texts = async (...command: string[]): Promise<string> => (await run(command)).stdout;
  const inside = async (...command: string[]): Promise<string> =>
    texts('ip', 'netns', 'exec', name, ...command);
  const entries = (await store.list('')).entries.map(({ key }) => key);
  return [
    ...((await texts('ip', '-o', 'link')).match(/nctl\S+/g) ?? []),
    ...((await texts('ip', 'route', 'show', 'proto', '110')).match(/.+/g) ?? []),
    ...((await texts('ip', '-6', 'route', 'show', 'proto', '110')).match(/.+/g) ?? []),
    ...((await texts('nft', 'list', 'tables')).match(/netctl-\S+/g) ?? []),
    ...((await inside('ip', '-o', 'link')).match(/^[2-9]: \S+/gm) ?? []),
    ...((await inside('nft', 'list', 'tables')).match(/\S+$/gm) ?? []),
    ...entries.filter((key) => /^(endpoints|addresses|owners)\//.test(key)),
  ];
}

async function isClean(name: string, what: string): Promise<void> {
  let left: string[] = [];
  await eventually(what, 10_000, async () => {
    left = await leftovers(name);
    return left.length === 0;
  }).catch(() => assert.deepEqual(left, [], what));
}

/** What follows a death. @param start the agent that comes after it */
const reactions: Readonly<Record<string, (start: () => Promise<Running>, name: string) => Promise<unknown>>> =
  {
    'the runtime sends DEL': async (start, name) => (await start()).attachments.detach(wanted(name)),
    'the runtime sends ADD again, then DEL': async (start, name) => {
      const { attachments } = await start();
      const { addresses } = await attachments.attach(wanted(name));
      await attachments.check(wanted(name), { addresses, netnsOpen: `/run/netns/${name}` });
      await attachments.detach(wanted(name));
    },
    'the container ends before there is an agent again': async (start, name) => {
      ip('netns', 'delete', name);
      await start();
    },
  };

for (const verb of ['ADD', 'DEL'] as const)
  for (const [what, react] of Object.entries(reactions))
    test(`death between any two steps of ${verb}; then ${what}`, { timeout: 240_000 }, async (t) => {
      let steps: readonly string[] = [];
      for (let step = 1; ; step++) {
        assert.ok(step < most);
        const name = `${verb}${step}`.toLowerCase();
        const said = `${verb}, death before step ${step} (after ${steps.at(-1)}), then ${what}`;
        ip('netns', 'add', name);
        const life = new Life();
        const first = await startAgent(life);
        if (verb === 'DEL') await first.attachments.attach(wanted(name));
        life.endAt(step);
        const asked =
          verb === 'ADD' ? first.attachments.attach(wanted(name)) : first.attachments.detach(wanted(name));
        await asked.catch((error: unknown) => assert.ok(life.isOver, `${said}: ${String(error)}`));
        const isOver = life.isOver;
        steps = [...life.steps];
        life.endAt(1);
        assert.throws(() => life.step('after the end'));
        await first.stop().catch(() => undefined);
        let next: Running | null = null;
        const start = async (): Promise<Running> => {
          next = await startAgent();
          return next;
        };
        try {
          await react(start, name);
          await isClean(name, said);
        } finally {
          await (next as Running | null)?.stop();
        }
        await run(['ip', 'netns', 'delete', name]);
        if (!isOver) break;
      }
      t.diagnostic(`${steps.length} steps: ${steps.join(', ')}`);
      assert.ok(steps.length > 8, `${steps.length} steps`);
    });
