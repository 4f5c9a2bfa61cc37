/**
 * The agent is killed again and again, at any moment, while containers come and go. Whatever an ADD had answered stands
 * afterwards; whatever it had not leaves nothing once the runtime has sent its DEL; no address is given twice or lost.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Conflist, Container } from '../../lab/container.ts';
import { Host } from '../../lab/host.ts';
import { eventually } from '../../lab/run.ts';

const capabilities = { bandwidth: true };
const wire = { type: 'netctl', mode: 'macvlan', parent: 'eth0', hostAccess: 'veth', capabilities };
const kinds: Readonly<Record<'routed' | 'macvlan', Conflist>> = {
  routed: { cniVersion: '1.0.0', name: 'edge', plugins: [{ type: 'netctl', capabilities }] },
  macvlan: { cniVersion: '1.0.0', name: 'wire', plugins: [wire] },
};
const runtime = { bandwidth: { ingressRate: 1e8, egressRate: 1e8 } };
const kills = 8;
const workers = 6;

for (const [kind, conflist] of Object.entries(kinds))
  test(`SIGKILL at any moment loses and doubles nothing: ${kind}`, () => killAndLook(kind, conflist));

async function killAndLook(kind: string, conflist: Conflist): Promise<void> {
  const host = await Host.create({ name: `cr${process.pid}`, address: '192.0.2.1' });
  const containers: Container[] = [];
  try {
    await host.start();
    assert.equal(
      (await host.netctl(['pool', 'add', '10.66.0.0/24', '--kind', kind, '--cooldown', '0'])).code,
      0,
    );
    for (let i = 0; i < workers; i++) containers.push(await Container.create(host, `w${i}`));
    const answered = new Map<Container, string>();
    let over = false;

    /** A runtime: ADD, and DEL when that failed or the container ends. */
    const work = async (container: Container): Promise<void> => {
      while (!over) {
        const { code, stdout } = await container.cni('ADD', conflist, { runtime });
        if (code === 0)
          answered.set(container, (JSON.parse(stdout) as { ips: [{ address: string }] }).ips[0].address);
        if (code === 0 && over) return;
        await container.cniDel(conflist);
        answered.delete(container);
      }
    };
    const killing = (async () => {
      for (let i = 0; i < kills; i++) {
        await new Promise((wake) => setTimeout(wake, 50 + Math.random() * 300));
        await host.kill('SIGKILL');
        await host.start();
      }
      over = true;
    })();
    await Promise.all([killing, ...containers.map(work)]);

    const show = async (...words: string[]) =>
      JSON.parse((await host.netctl([...words, '-o', 'json'])).stdout) as Record<string, unknown>[];
    const standing = await show('endpoint', 'show');
    assert.deepEqual(
      standing.flatMap((endpoint) => endpoint['addresses']).sort(),
      [...answered.values()].map((cidr) => cidr.split('/')[0]).sort(),
    );
    const links = (await host.mustExec(['ip', '-o', 'link'])).match(/nctl[0-9a-f]{11}/g) ?? [];
    assert.equal(links.length, answered.size);
    for (const [container, address] of answered) {
      assert.match(
        await container.mustExec(['ip', '-o', 'address', 'show', 'eth0']),
        new RegExp(address.replaceAll('.', '\\.')),
      );
      assert.equal((await container.cni('CHECK', conflist)).code, 0);
    }
    for (const container of containers) {
      await container.cniDel(conflist);
      assert.equal(
        (await container.mustExec(['ip', '-o', 'link'])).trim().split('\n').length,
        1,
        'only lo is left',
      );
    }
    await eventually('nothing is left', 10_000, async () => {
      const [pool] = await show('ipam', 'show');
      return (
        pool?.['used'] === 0 &&
        pool['blocks'] === 0 &&
        !/nctl|proto 110/.test(
          (await host.mustExec(['ip', '-o', 'link'])) + (await host.mustExec(['ip', 'route'])),
        )
      );
    });
  } finally {
    await Promise.all(containers.map((container) => container.close()));
    await host.close();
  }
}
