/**
 * SIGKILL at every step of an ADD and of a DEL, one after the other: `kill-at` lets the agent or the plugin die as it enters each
 * of the system calls by which it changes or tells anything (the plugin: of all), until there is a run whose every call has been died at.
 * What the runtime does then (ADD again, or DEL) must end as if nothing had happened, and whatever was there before stands.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync, utimesSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { type Conflist, Container } from '../../lab/container.ts';
import { Host } from '../../lab/host.ts';
import { eventually } from '../../lab/run.ts';
import { type Cluster, startEtcd } from '../kernel/etcd-harness.ts';

const conflist: Conflist = { cniVersion: '1.0.0', name: 'edge', plugins: [{ type: 'netctl' }] };
const killAt = resolve(import.meta.dirname, '../../dist/test/kill-at');
/** To the kernel, to the store, to the plugin, to files. */
const changing =
  'write,writev,pwrite64,pwritev,sendto,sendmsg,sendmmsg,fsync,fdatasync,ftruncate,unlink,unlinkat,rename,renameat,mkdir,mkdirat';
/** A number of runs that is not needed: a test that gets here goes in circles. */
const most = 150;
/** The number of a step that no run has. */
const never = 0;
/** What the runtime does after an ADD without an answer. */
const reactions = ['ADD again', 'DEL'] as const;
/** More steps than a run with etcd has. */
const sampled = 30;

describe('SIGKILL at every step', () => killing(null));
describe('SIGKILL of an agent with etcd at its first steps', () => killing(startEtcd));

/** @param start of the cluster that the agent shares, or null: then all steps are met, and those of the plugin, which has nothing to do with it */
function killing(start: typeof startEtcd | null): void {
  const sample = start === null ? null : sampled;
  let cluster: Cluster | null = null;
  let keysBefore: readonly string[] = [];
  let host: Host;
  let first: Container;
  let directory: string;
  const flags = ['--dataplane', 'nftables', '--no-bgp'];

  before(async () => {
    directory = mkdtempSync(join(tmpdir(), 'netctl-kill-'));
    cluster = (await start?.()) ?? null;
    if (cluster !== null) flags.push('--datastore', 'etcd', '--etcd-endpoints', cluster.endpoints.join(','));
    // Where etcd is.
    const netns = cluster === null ? {} : { netns: null };
    host = await Host.create({ name: `ki${process.pid}`, address: '192.0.2.1', ...netns });
    await host.start(flags);
    await host.mustNetctl(['pool', 'add', '10.67.0.0/24', '--cooldown', '0']);
    // The profile and its chains, so that each run does the same; and somebody who must not notice anything.
    first = await Container.create(host, 'first');
    await first.cniAdd(conflist);
    await eventually('the first container is in etcd', 10_000, async () => {
      keysBefore = await keys();
      return cluster === null || keysBefore.length === 2;
    });
  });
  after(async () => {
    await host.close();
    await cluster?.dispose();
    rmSync(directory, { recursive: true, force: true });
  });

  /** Of addresses and endpoints in etcd. */
  const keys = async (): Promise<string[]> => {
    const all = (await cluster?.ctl('get', '--prefix', '/', '--keys-only')) ?? '';
    return all.split('\n').filter((key) => /\/(addresses|endpoints)\//.test(key));
  };
  const shown = async (): Promise<{ containerId: string; addresses: string[] }[]> =>
    JSON.parse(await host.mustNetctl(['endpoint', 'show', '-o', 'json']));
  const queue = (): string => join(host.stateDirectory, 'delqueue');
  const queued = (): string[] => readdirSync(queue()).filter((name) => name !== 'lock');

  /** Nothing but the first container has anything, and that has all of it. */
  async function isClean(what: string): Promise<void> {
    await eventually(what, 30_000, async () => {
      const endpoints = await shown();
      const links = (await host.mustExec(['ip', '-o', 'link'])).match(/nctl[0-9a-f]{11}/g) ?? [];
      const [pool] = JSON.parse(await host.mustNetctl(['ipam', 'show', '-o', 'json']));
      return endpoints.length === 1 && links.length === 1 && pool.used === 1 && queued().length === 0;
    });
    const check = await host.netctl(['ipam', 'check']);
    assert.equal(check.code, 0, `${what}: ${check.stdout}${check.stderr}`);
    await stands(first, what);
    await eventually(`${what}: etcd has what was there before`, 30_000, async () =>
      isDeepStrictEqual(await keys(), keysBefore),
    );
  }

  async function stands(container: Container, what: string): Promise<void> {
    const { code, stdout } = await container.cni('CHECK', conflist);
    assert.equal(code, 0, `${what}: ${stdout}`);
  }

  async function works(container: Container, what: string): Promise<void> {
    const { ips } = await container.cniAdd(conflist);
    const [endpoint] = (await shown()).filter(({ containerId }) => containerId === container.id);
    assert.deepEqual(endpoint?.addresses, [ips[0]!.address.split('/')[0]], what);
    await stands(container, what);
  }

  const callsOf = (log: string): string[] =>
    readFileSync(log, 'utf8')
      .split('\n')
      .slice(0, -1)
      // The plugin's own number is in the name of the file that it writes.
      .map((line) => line.trim().replace(/\.delete\.\d+$/, '.delete.PID'));

  /** The agent dies as it enters its n-th call while `act` runs, or what it did goes to etcd. */
  async function killAgentAt<T>(
    step: number,
    act: () => Promise<T>,
    isInEtcd: (keys: readonly string[]) => boolean,
  ): Promise<Death & { answer: T }> {
    const log = join(directory, 'calls');
    const child = spawn(killAt, [log, String(step), changing, '-p', String(host.agentPid)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const closed = once(child, 'close');
    await Promise.race([once(child.stdout, 'data'), closed]);
    const answer = await act();
    await eventually('etcd has heard of it', 30_000, async () => {
      return child.exitCode !== null || cluster === null || isInEtcd(await keys());
    });
    // It ends by itself when the agent did, and with its status.
    child.kill('SIGTERM');
    const [code] = await closed;
    const died = code !== 0;
    if (died) {
      assert.equal(code, 137);
      await host.kill('SIGKILL');
      await host.start(flags);
    }
    return { died, calls: callsOf(log), answer };
  }

  /** The plugin does. */
  async function killPluginAt(
    step: number,
    container: Container,
    command: string,
    counted = 'all',
  ): Promise<Death> {
    const log = join(directory, 'calls');
    const config = { ...conflist.plugins[0], cniVersion: '1.0.0', name: 'edge', socket: host.cniSocket };
    const env = {
      CNI_COMMAND: command,
      CNI_CONTAINERID: container.id,
      CNI_NETNS: `/run/netns/${container.netns}`,
      CNI_IFNAME: 'eth0',
      CNI_PATH: host.pluginDirectory,
    };
    const program = [killAt, log, String(step), counted, host.plugin('netctl')];
    const { code, stdout, stderr } = await host.exec(program, { env, stdin: JSON.stringify(config) });
    assert.ok(code === 0 || code === 137, `${code}: ${stdout}${stderr}`);
    return { died: code !== 0, calls: callsOf(log) };
  }

  test('the agent in ADD', { timeout: 600_000 }, async (t) => {
    const container = await Container.create(host, 'a');
    for (const reaction of reactions) {
      const deaths = await atSteps(sample, `the agent in ADD, then ${reaction}`, async (step, what) => {
        const death = await killAgentAt(
          step,
          () => container.cni('ADD', conflist),
          (all) => all.length > keysBefore.length,
        );
        // What was promised is kept, whatever died after the promise.
        if (death.answer.code === 0) await stands(container, what);
        if (reaction === 'ADD again') await works(container, what);
        await container.cniDel(conflist);
        await isClean(what);
        return death;
      });
      t.diagnostic(deaths);
    }
    await container.close();
  });

  test('the agent in DEL: the plugin queues it', { timeout: 600_000 }, async (t) => {
    const container = await Container.create(host, 'd');
    const deaths = await atSteps(sample, 'the agent in DEL', async (step, what) => {
      await works(container, what);
      const death = await killAgentAt(
        step,
        () => container.cni('DEL', conflist),
        (all) => all.length === keysBefore.length,
      );
      assert.equal(death.answer.code, 0, `${what}: ${death.answer.stdout}`);
      await isClean(what);
      return death;
    });
    await container.close();
    t.diagnostic(deaths);
  });

  if (sample !== null) return;

  test('the plugin in ADD', { timeout: 600_000 }, async (t) => {
    const container = await Container.create(host, 'p');
    for (const reaction of reactions) {
      const deaths = await atEachStep(`the plugin in ADD, then ${reaction}`, async (step, what) => {
        const death = await killPluginAt(step, container, 'ADD');
        if (reaction === 'ADD again') await works(container, what);
        await container.cniDel(conflist);
        await isClean(what);
        return death;
      });
      t.diagnostic(deaths);
    }
    await container.close();
  });

  test('the plugin in DEL: the runtime tries again', { timeout: 600_000 }, async (t) => {
    const container = await Container.create(host, 'p');
    const deaths = await atEachStep('the plugin in DEL', async (step, what) => {
      await works(container, what);
      const death = await killPluginAt(step, container, 'DEL');
      if (death.died) await container.cniDel(conflist);
      await isClean(what);
      return death;
    });
    await container.close();
    t.diagnostic(deaths);
  });

  test('the plugin in DEL while the agent is away: the runtime tries again', {
    timeout: 900_000,
  }, async (t) => {
    const container = await Container.create(host, 'q');
    const deaths = await atEachStep('the plugin as it queues a DEL', async (step, what) => {
      await works(container, what);
      await host.kill('SIGKILL');
      const death = await killPluginAt(step, container, 'DEL', `openat,flock,${changing}`);
      if (death.died) await container.cniDel(conflist);
      // The agent waits until no plugin can still be at it.
      for (const name of queued()) if (name.startsWith('.')) utimesSync(join(queue(), name), 0, 0);
      await host.start(flags);
      await isClean(what);
      return death;
    });
    await container.close();
    t.diagnostic(deaths);
  });
}

interface Death {
  readonly died: boolean;
  /** The counted calls, the one it died at last: what each does, and to what. */
  readonly calls: readonly string[];
}

/** One run, with death at the step. */
type Live = (step: number, what: string) => Promise<Death>;

/** @param sample how many steps from the first on, null: each kind */
function atSteps(sample: number | null, what: string, live: Live): Promise<string> {
  return sample === null ? atEachStep(what, live) : atSomeSteps(sample, what, live);
}

/**
 * Death at one step after the other, as far as the longest runs go, then at each place that an agent writes to and that was not among them, where
 * a run that gets through has it: how many steps there are varies with what else it tells etcd.
 */
async function atSomeSteps(sample: number, what: string, live: Live): Promise<string> {
  const deaths: string[] = [];
  const places = ['netctl.db-wal', 'route', 'netfilter', 'unix', 'inet'];
  const missing = (): string | undefined =>
    places.find((place) => !deaths.some((call) => call.endsWith(` ${place}`)));
  for (let run = 0; run < sample || missing() !== undefined; run++) {
    const place = missing();
    assert.ok(run < most, `${what}: never died at ${place}`);
    let step = run + 1;
    if (run >= sample) {
      const { calls } = await live(never, `${what}, undisturbed`);
      step = calls.findIndex((call) => call.endsWith(` ${place}`)) + 1;
    }
    const { died, calls } = await live(step, `${what}, as it enters call ${step}`);
    if (died) deaths.push(calls.at(-1)!);
  }
  return `${what}: died at ${deaths.length} steps: ${deaths.join(', ')}`;
}

/**
 * Lives through death at each call of a run that gets through, until there is such a run whose every call has been died at. How many
 * calls a run makes varies (the store's pages, a wait that takes two looks), so one is known by its kind and how many of that kind came
 * before. Returns what was died at, in words.
 */
async function atEachStep(what: string, live: Live): Promise<string> {
  const deaths = new Set<string>();
  let { calls } = await live(never, `${what}, undisturbed`);
  for (let run = 0; run < most; run++) {
    const steps = numbered(calls);
    const next = steps.findIndex((call) => !deaths.has(call));
    const death = await live(next < 0 ? never : next + 1, `${what}, as it enters ${steps[next]}`);
    if (death.died) deaths.add(numbered(death.calls).at(-1)!);
    else {
      calls = death.calls;
      if (numbered(calls).every((call) => deaths.has(call)))
        return `${what}: died at ${deaths.size} steps: ${[...deaths].join(', ')}`;
    }
  }
  throw new Error(`${what}: more than ${most} runs, died at ${[...deaths].join(', ')}`);
}

/**
 * `write unix` becomes `write unix 2` when it is the second of these. Of pages that the store writes in a row the first two are told from
 * the rest, which are one: how many there are is the store's affair, and only the last one makes them count.
 */
function numbered(calls: readonly string[]): string[] {
  const seen = new Map<string, number>();
  let inRow = 0;
  return calls.map((call, at) => {
    inRow = call === calls[at - 1] ? inRow + 1 : 1;
    const isMore = inRow > 2 && call.startsWith('pwrite64');
    if (!isMore) seen.set(call, (seen.get(call) ?? 0) + 1);
    return `${call} ${isMore ? 'and more' : seen.get(call)}`;
  });
}
