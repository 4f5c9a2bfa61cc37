/** Ports of nodes with real agents on a real etcd: two clients that want the same one at the same moment, whoever they ask. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { type Conflist, Container } from '../../lab/container.ts';
import { eventually, type Result } from '../../lab/run.ts';
import { EtcdHosts } from './etcd-hosts.ts';

const network: Conflist = {
  cniVersion: '1.0.0',
  name: 'edge',
  plugins: [{ type: 'netctl', capabilities: { portMappings: true } }],
};
const rounds = 12;

describe('ports of a node, asked for at the same moment', () => {
  let all: EtcdHosts;

  before(async () => {
    all = await EtcdHosts.create('po', 2);
    await all.hosts[0]!.mustNetctl('pool add 10.65.0.0/16 --cooldown 0'.split(' '));
    await eventually('both know the pool', 10_000, async () =>
      (await Promise.all(all.hosts.map((host) => host.netctl(['pool', 'show'])))).every(({ stdout }) =>
        stdout.includes('10.65.0.0/16'),
      ),
    );
  });
  after(() => all?.close());

  const won = (results: readonly Result[]): number => results.filter(({ code }) => code === 0).length;

  test('two reservations by two agents: one has it, the other is told who', async () => {
    const node = all.hosts[0]!.name;
    for (let round = 0; round < rounds; round++) {
      const results = await Promise.all(
        all.hosts.map((host, i) =>
          host.netctl(['ipam', 'port', 'reserve', node, `${5000 + round}/tcp`, '--id', `r${round}-${i}`]),
        ),
      );
      assert.equal(won(results), 1, results.map(({ stderr }) => stderr).join());
      const lost = results.find(({ code }) => code !== 0)!;
      assert.match(
        lost.stderr,
        new RegExp(`port ${5000 + round}/tcp of node ${node} is taken by reservation r${round}-`),
      );
    }
    for (const host of all.hosts)
      await eventually('both show the same', 10_000, async () => {
        const items = JSON.parse(
          await host.mustNetctl(['ipam', 'port', 'show', '--node', node, '-o', 'json']),
        ) as unknown[];
        return items.length === rounds;
      });
  });

  test('two that want any port of a range never get the same', async () => {
    const node = all.hosts[1]!.name;
    const answers = await Promise.all(
      Array.from({ length: 8 }, (_, i) =>
        all.hosts[i % 2]!.mustNetctl(['ipam', 'port', 'reserve', node, '2of7000-7015/udp', '-o', 'json']),
      ),
    );
    const ports = answers.flatMap((answer) => {
      const { ports: ranges } = JSON.parse(answer) as { ports: { from: number; to: number }[] };
      return ranges.flatMap(({ from, to }) => Array.from({ length: to - from + 1 }, (_, i) => from + i));
    });
    assert.equal(ports.length, 16);
    assert.equal(new Set(ports).size, 16);
  });

  test('a container that publishes, and a reservation by the other agent', async () => {
    const [here, there] = all.hosts as [(typeof all.hosts)[0], (typeof all.hosts)[0]];
    for (let round = 0; round < rounds / 2; round++) {
      const port = 6000 + round;
      const container = await Container.create(here, `p${round}`);
      const runtime = { portMappings: [{ hostPort: port, containerPort: 80, protocol: 'tcp' }] };
      const results = await Promise.all([
        container.cni('ADD', network, { runtime }),
        there.netctl(['ipam', 'port', 'reserve', here.name, `${port}/tcp`, '--id', `p${round}`]),
      ]);
      assert.equal(won(results), 1, JSON.stringify(results));
      if (results[0]!.code !== 0)
        assert.match(
          results[0]!.stdout,
          new RegExp(`port ${port}/tcp of node ${here.name} is taken by reservation p${round}`),
        );
      else assert.match(results[1]!.stderr, new RegExp(`is taken by container ${container.id}`));
      await container.cniDel(network);
      await container.close();
    }
  });

  test('cut off from etcd, a host takes no port, and gives one back', async () => {
    const host = all.hosts[0]!;
    const [one, two] = [await Container.create(host, 'one'), await Container.create(host, 'two')];
    const call = { runtime: { portMappings: [{ hostPort: 8080, containerPort: 80, protocol: 'tcp' }] } };
    await one.cniAdd(network, call);
    await all.wire(host, 'down');
    try {
      await one.cniDel(network);
      const { code, stdout } = await two.cni('ADD', network, call);
      assert.equal(code, 1);
      assert.match(stdout, /cluster/);
    } finally {
      await all.wire(host, 'up');
    }
    await eventually(
      'it can be published again',
      20_000,
      async () => (await two.cni('ADD', network, call)).code === 0,
    );
    await two.cniDel(network);
    for (const container of [one, two]) await container.close();
  });
});
