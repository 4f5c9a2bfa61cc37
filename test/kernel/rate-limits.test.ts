/** Rate limits of routed and macvlan endpoints, from the runtime and changed live, measured by TCP between siblings. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { get, type IncomingMessage } from 'node:http';
import { text } from 'node:stream/consumers';
import { after, afterEach, before, describe, test } from 'node:test';
import { type Conflist, Container } from '../../lab/container.ts';
import { Host } from '../../lab/host.ts';
import { eventually } from '../../lab/run.ts';

const capabilities = { bandwidth: true };
const networks: Readonly<Record<'routed' | 'macvlan', Conflist>> = {
  routed: { cniVersion: '1.0.0', name: 'edge', plugins: [{ type: 'netctl', capabilities }] },
  macvlan: {
    cniVersion: '1.0.0',
    name: 'wire',
    plugins: [{ type: 'netctl', mode: 'macvlan', parent: 'eth0', capabilities }],
  },
};
const megabit = 1e6;
/** Limits count whole frames: 1448 bytes of payload are 1514 on the wire. */
const wire = 1514 / 1448;

describe('rate limits', () => {
  const containers: [Container, Conflist][] = [];
  let host: Host;

  before(async () => {
    host = await Host.create({ name: `rl${process.pid}`, address: '192.0.2.1' });
    await host.start(['--resync-seconds', '2']);
    await host.mustNetctl(['pool', 'add', '10.65.0.0/16', '--cooldown', '0']);
    await host.mustNetctl([
      'pool',
      'add',
      '10.66.0.0/24',
      '--kind',
      'macvlan',
      '--name',
      'wire',
      '--cooldown',
      '0',
    ]);
  });
  afterEach(async () => {
    for (const [container, network] of containers.splice(0)) {
      await container.cniDel(network);
      await container.close();
    }
  });
  after(() => host.close());

  async function join(kind: 'routed' | 'macvlan', name: string, bandwidth?: object) {
    const container = await Container.create(host, name);
    containers.push([container, networks[kind]]);
    const runtime = bandwidth === undefined ? {} : { runtime: { bandwidth } };
    const { ips } = await container.cniAdd(networks[kind], runtime);
    return { container, address: ips[0]!.address.split('/')[0]! };
  }

  function near(measured: number, asked: number): void {
    const rate = measured * wire;
    assert.ok(
      Math.abs(rate - asked) <= 0.05 * asked,
      `${(rate / megabit).toFixed(1)} Mbit/s, not ${asked / megabit}`,
    );
  }

  for (const kind of ['routed', 'macvlan'] as const) {
    test(`${kind}: from the runtime, in and out, within 5 %; changed and ended live`, async () => {
      const limited = await join(kind, 'limited', {
        ingressRate: 50 * megabit,
        IngressBurst: 4294967295,
        EgressRate: 100 * megabit,
        egressBurst: 4294967295,
      });
      const free = await join(kind, 'free');
      for (const each of [limited, free]) await each.container.sink([80]);
      const into = (): Promise<number> => free.container.rate({ address: limited.address, port: 80 }, 2500);
      const out = (): Promise<number> => limited.container.rate({ address: free.address, port: 80 }, 2500);
      near(await into(), 50 * megabit);
      near(await out(), 100 * megabit);
      const stdout = await host.mustNetctl([
        'endpoint',
        'limit',
        limited.address,
        '--in',
        '200mbit',
        '--out',
        'none',
      ]);
      assert.match(stdout, /in 200mbit, out unlimited/);
      near(await into(), 200 * megabit);
      assert.ok((await out()) > 300 * megabit);
      await host.mustNetctl(['endpoint', 'limit', limited.address, '--in', 'none']);
      assert.ok((await into()) > 300 * megabit);
    });

    test(`${kind}: what somebody took away is seen by CHECK and made again; DEL leaves nothing`, async () => {
      const { container } = await join(kind, 'limited', {
        ingressRate: 50 * megabit,
        egressRate: 50 * megabit,
      });
      const here = (command: string[]): Promise<string> =>
        kind === 'macvlan' ? container.mustExec(command) : host.mustExec(command);
      const links = (): Promise<string> => here(['ip', '-o', 'link', 'show', 'type', 'ifb']);
      const queue = /(nctl-[0-9a-f]{10})/.exec(await links())?.[1];
      assert.ok(queue);
      const disciplines = async (): Promise<number> =>
        (await here(['tc', 'qdisc']))?.match(/qdisc tbf/g)?.length ?? 0;
      assert.equal(await disciplines(), 2);
      assert.equal((await container.cni('CHECK', networks[kind])).code, 0);
      await here(['ip', 'link', 'delete', queue]);
      const { code, stdout } = await container.cni('CHECK', networks[kind]);
      if (code !== 0) assert.match(stdout, /queue interface/);
      await eventually('the limits are back', 20_000, async () => (await disciplines()) === 2);
      const root =
        kind === 'macvlan' ? 'eth0' : /(nctl[0-9a-f]{11})/.exec(await here(['ip', '-o', 'link']))![1]!;
      await here(['tc', 'qdisc', 'del', 'dev', root, 'root']);
      await eventually('the limit is back', 20_000, async () => (await disciplines()) === 2);
      await container.cniDel(networks[kind]);
      assert.doesNotMatch(await here(['ip', '-o', 'link']), /nctl/);
    });
  }

  test('macvlan with a pair to the host: what comes by the host is limited as well', async () => {
    const [plugin] = networks.macvlan.plugins;
    const conflist = { ...networks.macvlan, plugins: [{ ...plugin!, hostAccess: 'veth' }] };
    const container = await Container.create(host, 'paired');
    containers.push([container, conflist]);
    const bandwidth = { ingressRate: 50 * megabit, egressRate: 100 * megabit };
    const { ips } = await container.cniAdd(conflist, { runtime: { bandwidth } });
    const address = ips[0]!.address.split('/')[0]!;
    const onHost = new Container(host, { name: 'host', id: 'host', netns: `nct-${host.name}` });
    await container.sink([80]);
    near(await onHost.rate({ address, port: 80 }, 2500), 50 * megabit);
    assert.equal((await container.cni('CHECK', conflist)).code, 0);
    assert.match(
      await container.mustExec(['tc', 'qdisc', 'show', 'dev', 'eth0-host']),
      /tbf .* rate 100Mbit/,
    );
    await container.mustExec(['tc', 'qdisc', 'del', 'dev', 'eth0-host', 'root']);
    assert.match((await container.cni('CHECK', conflist)).stdout, /the limit of eth0-host is none/);
    await host.mustNetctl(['endpoint', 'limit', address, '--in', 'none', '--out', 'none']);
    assert.doesNotMatch(await container.mustExec(['tc', 'qdisc']), /tbf|ingress/);
    assert.ok((await onHost.rate({ address, port: 80 }, 1000)) > 300 * megabit);
  });

  test('counters: of the container, whatever kind; shown, summed up by top, and told to Prometheus', async () => {
    for (const kind of ['routed', 'macvlan'] as const) {
      const [one, two] = [await join(kind, 'one'), await join(kind, 'two')];
      await two.container.sink([80]);
      await one.container.rate({ address: two.address, port: 80 }, 1000);
      const detailed = await host.mustNetctl(['endpoint', 'show', '--detailed']);
      assert.match(detailed, /Received: +\d+ packets, \d+ bytes, \d+ dropped/);
      const sending = one.container.rate({ address: two.address, port: 80 }, 3000);
      const flows = JSON.parse(await host.mustNetctl(['top', '--once', '-o', 'json'])) as Record<
        string,
        number
      >[];
      await sending;
      const of = ({ address }: typeof one) =>
        flows.find(({ addresses }) => (addresses as unknown as string[]).includes(address))!;
      assert.ok(of(one)['outBytes']! > 1e7 && of(one)['outBytes']! > 5 * of(one)['inBytes']!);
      assert.ok(of(two)['inBytes']! > 1e7);
      assert.ok(of(two)['inBitsPerSecond']! > 10 * megabit, JSON.stringify(of(two)));
      assert.ok(
        flows[0]!['inBitsPerSecond']! + flows[0]!['outBitsPerSecond']! > 10 * megabit,
        'the busiest is first',
      );
      const table = await host.mustNetctl(['top', '--once', '--interval', '0.2']);
      assert.match(table, /^ENDPOINT +CONTAINER +INTERFACE +ADDRESSES +IN\/S +OUT\/S/);
      const metrics = await metricsOf(host.apiSocket);
      const id = String(of(two)['endpoint']);
      assert.match(
        metrics,
        new RegExp(`netctl_endpoint_receive_bytes_total\\{endpoint="${id}",interface="eth0"\\} \\d{8}`),
      );
    }
  });

  test('the queue interface that a dead agent left goes at the next start, the limits that are right stay', async () => {
    const { container } = await join('routed', 'kept', { egressRate: 50 * megabit });
    await host.mustExec(['ip', 'link', 'add', 'nctl-0123456789', 'type', 'ifb']);
    const before = await host.mustExec(['ip', '-o', 'link', 'show', 'type', 'ifb']);
    await host.kill('SIGKILL');
    await host.start(['--resync-seconds', '2']);
    const after = await host.mustExec(['ip', '-o', 'link', 'show', 'type', 'ifb']);
    assert.deepEqual(
      after.trim().split('\n'),
      before
        .trim()
        .split('\n')
        .filter((line) => !line.includes('nctl-0123456789')),
    );
    assert.equal((await container.cni('CHECK', networks.routed)).code, 0);
  });

  test('a rate that cannot be is refused, naming it', async () => {
    const container = await Container.create(host, 'wrong');
    containers.push([container, networks.routed]);
    const { code, stdout } = await container.cni('ADD', networks.routed, {
      runtime: { bandwidth: { ingressRate: 12, ingressBurst: 1 } },
    });
    assert.notEqual(code, 0);
    assert.match(stdout, /runtimeConfig\.bandwidth\.inBitsPerSecond/);
    const refused = await host.netctl(['endpoint', 'limit', 'x', '--in', '12furlongs']);
    assert.equal(refused.code, 2);
    assert.match(refused.stderr, /12furlongs/);
  });
});

async function metricsOf(socketPath: string): Promise<string> {
  const [response] = (await once(get({ socketPath, path: '/metrics' }), 'response')) as [IncomingMessage];
  return text(response);
}
