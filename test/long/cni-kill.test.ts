/**
 * SIGKILL at every step of an ADD and of a DEL, one after the other: strace lets the agent or the plugin die as it enters the n-th of
 * the system calls by which it changes or tells anything, until one run gets through. What the runtime does then (ADD again, or DEL)
 * must end as if nothing had happened.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { after, before, describe, test } from 'node:test';
import { type Conflist, Container } from '../../lab/container.ts';
import { Host } from '../../lab/host.ts';
import { eventually } from '../../lab/run.ts';

const conflist: Conflist = { cniVersion: '1.0.0', name: 'edge', plugins: [{ type: 'netctl' }] };
/** To the kernel, to the store, to the plugin. */
const agentCalls = 'sendto,sendmsg,write,writev,pwrite64,fdatasync,fsync';
const pluginCalls = 'read,openat,connect,sendmsg,recvfrom,ppoll,write,close';
/** More steps than there are: a test that gets here counts nothing. */
const most = 60;

describe('SIGKILL at every step', () => {
  let host: Host;
  const flags = ['--dataplane', 'nftables', '--no-bgp'];

  before(async () => {
    host = await Host.create({ name: `ki${process.pid}`, address: '192.0.2.1' });
    await host.start(flags);
    await host.mustNetctl(['pool', 'add', '10.67.0.0/24', '--cooldown', '0']);
    // The profile and its chains, so that each run does the same.
    const first = await Container.create(host, 'first');
    await first.cniAdd(conflist);
  });
  after(() => host.close());

  const shown = async (): Promise<{ containerId: string; addresses: string[] }[]> =>
    JSON.parse(await host.mustNetctl(['endpoint', 'show', '-o', 'json']));

  /** Nothing but the first container has anything. */
  async function isClean(what: string): Promise<void> {
    await eventually(what, 30_000, async () => {
      const endpoints = await shown();
      const links = (await host.mustExec(['ip', '-o', 'link'])).match(/nctl[0-9a-f]{11}/g) ?? [];
      const [pool] = JSON.parse(await host.mustNetctl(['ipam', 'show', '-o', 'json']));
      return endpoints.length === 1 && links.length === 1 && pool.used === 1;
    });
    const check = await host.netctl(['ipam', 'check']);
    assert.equal(check.code, 0, `${what}: ${check.stdout}${check.stderr}`);
  }

  /** The agent dies as it enters its n-th call while `act` runs. Returns whether it did. */
  async function killAgentAt(step: number, act: () => Promise<unknown>): Promise<boolean> {
    const inject = `inject=${agentCalls}:signal=KILL:when=${step}`;
    const pid = host.agentPid;
    const trace = [
      '-f',
      '-qq',
      '-o',
      '/dev/null',
      '-e',
      `trace=${agentCalls}`,
      '-e',
      inject,
      '-p',
      String(pid),
    ];
    const strace = spawn('strace', trace, { stdio: 'ignore' });
    const closed = once(strace, 'close');
    await eventually('strace is attached', 10_000, async () => {
      const { stdout } = await host.exec(['cat', `/proc/${pid}/status`]);
      return stdout === '' || /TracerPid:\t[1-9]/.test(stdout);
    });
    await act();
    // Not SIGTERM: strace may then wait for threads that have died already.
    strace.kill('SIGKILL');
    await closed;
    const isDead = host.agentPid === null || (await host.exec(['kill', '-0', String(pid)])).code !== 0;
    if (isDead) {
      await host.kill('SIGKILL');
      await host.start(flags);
    }
    return isDead;
  }

  async function assertWorks(container: Container): Promise<void> {
    const { ips } = await container.cniAdd(conflist);
    const [endpoint] = (await shown()).filter(({ containerId }) => containerId === container.id);
    assert.deepEqual(endpoint?.addresses, [ips[0]!.address.split('/')[0]]);
    const { code, stdout } = await container.cni('CHECK', conflist);
    assert.equal(code, 0, stdout);
  }

  test('the agent in ADD: the runtime tries again, or gives up', { timeout: 300_000 }, async () => {
    const container = await Container.create(host, 'a');
    let steps = 0;
    for (let step = 1; ; step++) {
      assert.ok(step < most);
      if (!(await killAgentAt(step, () => container.cni('ADD', conflist)))) break;
      steps++;
      if (step % 2 === 0) await assertWorks(container);
      await container.cniDel(conflist);
      await isClean(`after death ${step} of the agent in ADD`);
    }
    await container.cniDel(conflist);
    await container.close();
    console.log(`# ADD: the agent died at ${steps} steps`);
    assert.ok(steps >= 3, `${steps} steps`);
  });

  test('the agent in DEL: the plugin queues it, or the runtime tries again', {
    timeout: 300_000,
  }, async () => {
    const container = await Container.create(host, 'd');
    let steps = 0;
    for (let step = 1; ; step++) {
      assert.ok(step < most);
      await assertWorks(container);
      const isDead = await killAgentAt(step, async () => {
        const { code, stdout } = await container.cni('DEL', conflist);
        assert.equal(code, 0, stdout);
      });
      await isClean(`after death ${step} of the agent in DEL`);
      if (!isDead) break;
      steps++;
    }
    await container.close();
    console.log(`# DEL: the agent died at ${steps} steps`);
    assert.ok(steps >= 3, `${steps} steps`);
  });

  for (const command of ['ADD', 'DEL'])
    test(`the plugin in ${command}`, { timeout: 300_000 }, async () => {
      const container = await Container.create(host, 'p');
      const config = { ...conflist.plugins[0], cniVersion: '1.0.0', name: 'edge', socket: host.cniSocket };
      const env = {
        CNI_COMMAND: command,
        CNI_CONTAINERID: container.id,
        CNI_NETNS: `/run/netns/${container.netns}`,
        CNI_IFNAME: 'eth0',
        CNI_PATH: host.pluginDirectory,
      };
      let steps = 0;
      for (let step = 1; ; step++) {
        assert.ok(step < most);
        if (command === 'DEL') await assertWorks(container);
        const inject = `inject=${pluginCalls}:signal=KILL:when=${step}`;
        const strace = ['strace', '-qq', '-o', '/dev/null', '-e', `trace=${pluginCalls}`, '-e', inject];
        const { code } = await host.exec([...strace, host.plugin('netctl')], {
          env,
          stdin: JSON.stringify(config),
        });
        if (code === 0) break;
        steps++;
        if (command === 'ADD' && step % 2 === 0) await assertWorks(container);
        await container.cniDel(conflist);
        await isClean(`after death ${step} of the plugin in ${command}`);
      }
      await container.cniDel(conflist);
      await isClean('at the end');
      await container.close();
      console.log(`# ${command}: the plugin died at ${steps} steps`);
      assert.ok(steps >= 5, `${steps} steps`);
    });
});
