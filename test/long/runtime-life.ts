/**
 * The life of containers under a runtime, the same for each: start, talk, be kept apart, stop, be removed, also by force, with the
 * runtime killed in between and with the agent away.
 *
 * In: a host, what to type for a runtime. Out: tests. Never: a life that ends with something left.
 */
import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import { eventually, type Result } from '../../lab/run.ts';
import type { RuntimeHost } from './runtime-host.ts';

export interface Runtime {
  /** Starts a container of the network `edge` that serves HTTP on port 80; resolves when the runtime says that it runs. */
  start(name: string): Promise<void>;
  /** Runs a program in it. */
  exec(name: string, command: readonly string[]): Promise<Result>;
  /** In good order: stopped, then removed. */
  remove(name: string): Promise<void>;
  /** While it runs. */
  forceRemove(name: string): Promise<void>;
  /** kill -9 of the runtime's daemon, and its start; null for a runtime without one. */
  readonly crash: (() => Promise<void>) | null;
}

/** @param here asked when the tests run: hosts are made before them, not while they are declared */
export function livesUnder(here: () => { host: RuntimeHost; runtime: Runtime }): void {
  afterEach(() => here().host.clean());

  /** Starts one and tells its address. */
  async function start(name: string): Promise<string> {
    const before = new Set((await here().host.endpoints()).map(({ addresses }) => addresses[0]));
    await here().runtime.start(name);
    const found = (await here().host.endpoints()).find(({ addresses }) => !before.has(addresses[0]));
    assert.ok(found, `${name} has no endpoint`);
    return found.addresses[0]!;
  }

  const reaches = (from: string, address: string) => reach(here().runtime, from, address);
  const pings = async (from: string, address: string) =>
    (await here().runtime.exec(from, ['/bin/ping', '-c', '1', '-W', '1', address])).code === 0;

  test('containers start, reach each other as far as the policy goes, and are removed', async () => {
    const { host, runtime } = here();
    const web = await start('web');
    await start('client');
    const routed = await runtime.exec('client', sh('ip route | grep -q "^default via 169.254.1.1"'));
    assert.equal(routed.code, 0);
    await eventually('the server answers', 5000, () => reaches('client', web));
    assert.ok(await pings('client', web));
    await update(host, [{ action: 'allow', protocol: 'icmp' }]);
    assert.equal(await reaches('client', web), false);
    assert.ok(await pings('client', web));
    await update(host, [{ action: 'allow', src_tag: 'edge' }]);
    assert.ok(await reaches('client', web));
    await runtime.remove('client');
    assert.equal((await host.endpoints()).length, 1);
    await runtime.remove('web');
  });

  test('removal by force', async () => {
    await start('web');
    await here().runtime.forceRemove('web');
  });

  test('the runtime is killed and comes back', async (t) => {
    const { crash } = here().runtime;
    if (crash === null) return t.skip('it has no daemon');
    const web = await start('web');
    await start('client');
    await crash();
    await eventually('the server answers', 5000, () => reaches('client', web));
    await here().runtime.remove('client');
    await here().runtime.forceRemove('web');
  });

  test('removal while the agent is away', async () => {
    const { host, runtime } = here();
    await start('web');
    await start('other');
    await host.kill('SIGKILL');
    // Docker tries again for a minute.
    await Promise.all([runtime.remove('web'), runtime.forceRemove('other')]);
    await host.start();
  });

  test('the agent is killed and comes back while containers run', async () => {
    const { host, runtime } = here();
    const web = await start('web');
    await start('client');
    await eventually('the server answers', 5000, () => reaches('client', web));
    await host.kill('SIGKILL');
    assert.ok(await reaches('client', web));
    await host.start();
    assert.ok(await reaches('client', web));
    assert.equal((await host.endpoints()).length, 2);
    await runtime.remove('web');
    await runtime.remove('client');
  });
}

/** Whether an HTTP request from the container is answered. (The wget of a static busybox crashes; `ctr` may lose output, never exit codes.) */
export async function reach(runtime: Pick<Runtime, 'exec'>, from: string, address: string): Promise<boolean> {
  const request = `printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 1 ${address} 80 | grep -q '^served$'`;
  return (await runtime.exec(from, sh(request))).code === 0;
}

const sh = (script: string): string[] => ['/bin/sh', '-c', script];

async function update(host: RuntimeHost, inbound: readonly object[]): Promise<void> {
  const rules = { id: 'edge', inbound_rules: inbound, outbound_rules: [{ action: 'allow' }] };
  await host.mustNetctl(['profile', 'edge', 'rule', 'update'], { stdin: JSON.stringify(rules) });
}
