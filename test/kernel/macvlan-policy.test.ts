/** Policy of macvlan endpoints by a real agent: what changes it, what becomes of the rules when others touch them, how the host is reached. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Host } from '../../lab/host.ts';
import { eventually } from '../../lab/run.ts';
import { enterSandbox } from './linux-contract-sandbox.ts';
import { MacvlanHost, reaches, rulesOf } from './wired-host.ts';

// The addresses of the hosts are the same in every file that has some.
enterSandbox(import.meta.url);

describe('policy in containers on a wire', () => {
  let one: MacvlanHost;
  let host: Host;

  before(async () => {
    one = await MacvlanHost.create('mq', ['--resync-seconds', '2']);
    ({ host } = one);
  });
  after(() => one.close());

  test('a changed profile holds at once, and cuts nothing', async () => {
    const web = await one.join('web', 'web');
    const db = await one.join('db', 'db');
    await db.container.serve([3306, 22]);
    assert.equal(await reaches(web.container, db.address, 3306), false);
    await host.mustNetctl(
      'profile db rule add inbound --at 1 allow tcp from tag web to ports 3306'.split(' '),
    );
    assert.equal(await reaches(web.container, db.address, 3306, 3000), true);
    const report = await web.container.hold({ address: db.address, port: 3306 });
    await host.mustNetctl('profile db rule remove inbound --at 1'.split(' '));
    assert.equal(await reaches(web.container, db.address, 3306), false);
    await host.restart();
    await sleep(500);
    const { echoes, longestGapMs } = await report();
    assert.ok(echoes > 10, `${echoes} echoes`);
    assert.ok(longestGapMs < 1000, `${longestGapMs} ms without an echo`);
  });

  test('an agent that starts again writes nothing anew', async () => {
    const { container, address } = await one.join('steady', 'web');
    const handles = async (): Promise<string> =>
      (await container.mustExec(['nft', '-a', 'list', 'ruleset'])).replace(/packets \d+ bytes \d+/g, '') +
      (await host.mustExec(['nft', '-a', 'list', 'ruleset'])).replace(/packets \d+ bytes \d+/g, '');
    const seen = await handles();
    assert.match(seen, new RegExp(address));
    await host.restart();
    await sleep(3000);
    assert.equal(await handles(), seen);
  });

  test('the host reaches it by the pair; what it sends to the host, endpointToHost decides', async () => {
    const near = await one.join('near', 'db', { hostAccess: 'veth' });
    await near.container.serve([9000]);
    const [reached] = JSON.parse(
      await host.mustExec([
        process.execPath,
        'lab/tcp.ts',
        'connect',
        JSON.stringify([{ address: near.address, port: 9000 }]),
        '2000',
      ]),
    ) as boolean[];
    assert.equal(reached, true);
    const refused = await near.container.exec(['ping', '-c', '1', '-W', '1', host.address]);
    assert.notEqual(refused.code, 0);
  });

  test('DEL leaves no table of ours in a namespace that lives, and none on the host without endpoints', async () => {
    const { container, network } = await one.join('leaving', 'web');
    assert.match(await rulesOf(container), /table ip netctl-eth0/);
    await container.cniDel(network);
    assert.equal(await rulesOf(container), '');
  });

  test('rules that the container takes away are put back, and it is said', async () => {
    const victim = await one.join('flushed', 'web');
    const before = await rulesOf(victim.container);
    await victim.container.mustExec(['nft', 'flush', 'ruleset']);
    await eventually('the rules are back', 15_000, async () => (await rulesOf(victim.container)) === before);
    await host.logged(/was changed by others and is repaired/);
  });

  test('a process that could change the rules is named, and the enforcement is shown', async () => {
    const { container } = await one.join('root', 'web');
    await container.serve([80]);
    await eventually('it is said', 15_000, async () =>
      /container and guard, advisory/.test((await host.netctl(['endpoint', 'show', '--detailed'])).stdout),
    );
  });
});
