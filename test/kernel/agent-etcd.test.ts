/**
 * Two hosts, each with its agent, on one real etcd: what one says the other does; and a host that is cut off goes on alone, also
 * through a restart of its agent, and catches up afterwards.
 */

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Host } from '../../lab/host.ts';
import { eventually } from '../../lab/run.ts';
import { conflist, EtcdHosts } from './etcd-hosts.ts';
import { enterSandbox } from './linux-contract-sandbox.ts';

// The addresses of the hosts are the same in every file that has some.
enterSandbox(import.meta.url);

interface EndpointRow {
  readonly id: string;
  readonly addresses: readonly string[];
}

describe('agents on etcd', () => {
  let lab: EtcdHosts;
  let one: Host;
  let two: Host;

  before(async () => {
    lab = await EtcdHosts.create('et', 2, ['--dataplane', 'iptables']);
    [one, two] = lab.hosts as [Host, Host];
    await lab.ok(one, 'pool', 'add', '10.65.0.0/16', '--cooldown', '0');
  });
  after(() => lab?.close());

  async function endpoints(host: Host, node: Host): Promise<EndpointRow[]> {
    const rows = await lab.json<EndpointRow[]>(host, 'endpoint', 'show', '--node', node.name);
    // Revisions are each host's own.
    return rows.map(({ id, addresses }) => ({ id, addresses }));
  }

  async function agree(what: string): Promise<void> {
    await eventually(what, 30_000, async () => {
      for (const node of lab.hosts) {
        const [here, there] = await Promise.all(lab.hosts.map((host) => endpoints(host, node)));
        if (JSON.stringify(here) !== JSON.stringify(there)) return false;
      }
      return true;
    });
  }

  test('what one host is told, the other does; addresses are unique', async () => {
    await eventually('the pool is on the other host', 5000, async () =>
      (await two.netctl(['pool', 'show', '-o', 'json'])).stdout.includes('10.65'),
    );
    const joined = await Promise.all([
      lab.join(one, 'a'),
      lab.join(one, 'b'),
      lab.join(two, 'c'),
      lab.join(two, 'd'),
    ]);
    assert.equal(new Set(joined.map(({ address }) => address)).size, 4);
    await agree('both hosts know all endpoints');
    const members = async () =>
      (await two.mustExec(['ipset', 'save'])).match(/add nctl4-tag-edge\S* (\S+)/g)?.length;
    await eventually('the tag has the addresses of both hosts', 5000, async () => (await members()) === 4);
    await lab.ok(one, ...'profile edge rule add inbound allow tcp to ports 8080'.split(' '));
    await eventually('the rule is on the other host', 5000, async () =>
      /dports? 8080/.test(await two.mustExec(['iptables-save'])),
    );
    for (const host of lab.hosts) assert.equal((await host.netctl(['node', 'status'])).code, 0);
  });

  test('a host that is cut off starts and stops containers, restarts its agent, says so, and catches up', async () => {
    const { container: early } = await lab.join(one, 'early');
    await lab.wire(one, 'down');
    const { container, address } = await lab.join(one, 'alone');
    await early.cniDel(conflist);
    await eventually('the status says so', 20_000, async () => {
      const { code, stdout } = await one.netctl(['node', 'status']);
      return code === 4 && /not reachable since/.test(stdout) && /[1-9]\d* changes wait/.test(stdout);
    });
    const start = Date.now();
    const refused = await one.netctl(['profile', 'add', 'later']);
    assert.notEqual(refused.code, 0);
    assert.ok(Date.now() - start < 6000, 'what needs the cluster fails within seconds');
    assert.match(refused.stderr, /cluster|etcd/i);
    await one.kill('SIGKILL');
    await lab.start(one);
    assert.match(
      await container.mustExec(['ip', '-o', 'address', 'show', 'eth0']),
      new RegExp(address.replaceAll('.', '\\.')),
    );
    const { address: another } = await lab.join(one, 'restarted');
    assert.notEqual(another, address);
    assert.notDeepEqual(await endpoints(two, one), await endpoints(one, one));
    await lab.wire(one, 'up');
    await agree('both agree again');
    await eventually('healthy again', 20_000, async () => (await one.netctl(['node', 'status'])).code === 0);
  });

  test('a node whose claims were removed tears those endpoints down', async () => {
    const { container } = await lab.join(two, 'doomed');
    await agree('both know');
    const claims = (await lab.etcd.ctl('get', '--prefix', '/netctl/v1/blocks/')).split('\n').filter(Boolean);
    for (let i = 0; i < claims.length; i += 2) {
      if (claims[i + 1]!.includes(two.name)) await lab.etcd.ctl('del', claims[i]!);
    }
    await eventually(
      'its links are gone',
      15_000,
      async () => !/nctl[0-9a-f]{11}/.test(await two.mustExec(['ip', '-o', 'link'])),
    );
    await two.logged(/torn down|tearing it down/);
    await container.cniDel(conflist);
    assert.deepEqual(await endpoints(two, two), []);
    await lab.join(two, 'again');
  });
});
