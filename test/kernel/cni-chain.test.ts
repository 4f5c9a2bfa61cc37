/**
 * netctl beside other CNI plugins, Debian's own: before and after them in a list, with their IPAM, and as their IPAM. Each list is
 * called as libcni calls it.
 */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { after, afterEach, before, describe, test } from 'node:test';
import { type CniResult, type Conflist, Container } from '../../lab/container.ts';
import { Host } from '../../lab/host.ts';

const list = (name: string, ...plugins: Record<string, unknown>[]): Conflist => ({
  cniVersion: '1.0.0',
  name,
  plugins: plugins as Conflist['plugins'],
});

describe('CNI with other plugins', () => {
  const made: [Container, Conflist][] = [];
  let host: Host;

  before(async () => {
    host = await Host.create({ name: `ch${process.pid}`, address: '192.0.2.1' });
    await host.start(['--resync-seconds', '2']);
    for (const words of [
      ['pool', 'add', '10.65.0.0/16', '--cooldown', '0'],
      [
        'pool',
        'add',
        '10.66.0.0/24',
        '--name',
        'lan',
        '--kind',
        'macvlan',
        '--gateway',
        '10.66.0.1',
        '--cooldown',
        '0',
      ],
    ]) {
      const { code, stderr } = await host.netctl(words);
      assert.equal(code, 0, stderr);
    }
  });
  afterEach(async () => {
    for (const [container, conflist] of made.splice(0)) {
      await container.cniDel(conflist);
      await container.close();
    }
    const { stdout } = await host.netctl(['endpoint', 'show', '-o', 'json']);
    assert.deepEqual(JSON.parse(stdout), []);
    const check = await host.netctl(['ipam', 'check']);
    assert.equal(check.code, 0, check.stdout + check.stderr);
  });
  after(() => host.close());

  async function add(
    name: string,
    conflist: Conflist,
    call = {},
  ): Promise<{ container: Container; result: CniResult }> {
    const container = await Container.create(host, name);
    made.push([container, conflist]);
    return { container, result: await container.cniAdd(conflist, call) };
  }

  const hostLocal = (dataDir: string): Record<string, unknown> => ({
    type: 'host-local',
    ranges: [[{ subnet: '10.77.0.0/24' }]],
    dataDir,
  });

  test('addresses of host-local: wired, policed, and given back', async () => {
    const dataDir = `${host.stateDirectory}/host-local`;
    const conflist = list('hl', { type: 'netctl', ipam: hostLocal(dataDir) });
    const { container: one } = await add('one', conflist);
    const { container: two, result } = await add('two', conflist);
    const address = result.ips[0]!.address.split('/')[0]!;
    assert.match(address, /^10\.77\.0\./);
    await two.serve([80]);
    assert.deepEqual(await one.connect([{ address, port: 80 }], 5000), [true]);
    assert.equal((await one.cni('CHECK', conflist)).code, 0);
    await one.cniDel(conflist);
    await two.cniDel(conflist);
    assert.equal((await host.mustExec(['find', dataDir, '-name', '10.77.*'])).trim(), '');
  });

  test('host-local: ranges that the runtime names, and what it says of DNS, unless the configuration says it', async () => {
    const resolvConf = `${host.stateDirectory}/resolv.conf`;
    writeFileSync(resolvConf, 'nameserver 10.0.0.53\nsearch lab.example\n');
    const ipam = { type: 'host-local', dataDir: `${host.stateDirectory}/ranges`, resolvConf };
    const capabilities = { ipRanges: true };
    const call = { runtime: { ipRanges: [[{ subnet: '10.79.0.0/24' }]] } };
    const conflist = list('ranges', { type: 'netctl', ipam, capabilities });
    const { result } = await add('one', conflist, call);
    assert.match(result.ips[0]!.address, /^10\.79\.0\./);
    assert.deepEqual(result.dns, { nameservers: ['10.0.0.53'], search: ['lab.example'] });
    const own = list('ranges', { type: 'netctl', ipam, capabilities, dns: { nameservers: ['10.0.0.54'] } });
    assert.deepEqual((await add('two', own, call)).result.dns, { nameservers: ['10.0.0.54'] });
    const without = await Container.create(host, 'three');
    const refused = await without.cni('ADD', list('ranges', { type: 'netctl', capabilities }), call);
    assert.match(refused.stdout, /"code":2,"msg":"unsupported field runtimeConfig.ipRanges/);
    await without.close();
  });

  test('static addresses', async () => {
    const conflist = list('st', {
      type: 'netctl',
      ipam: { type: 'static', addresses: [{ address: '10.78.0.9/24' }] },
    });
    const { container } = await add('one', conflist);
    assert.match(await container.mustExec(['ip', '-o', 'address', 'show', 'eth0']), /10\.78\.0\.9\/32/);
  });

  test('an IPAM plugin that refuses, or is not there, leaves nothing', async () => {
    const container = await Container.create(host, 'none');
    try {
      const bad = await container.cni('ADD', list('bad', { type: 'netctl', ipam: { type: 'host-local' } }));
      assert.equal(bad.code, 1);
      assert.match(bad.stdout, /IPAM plugin host-local \(ADD\): /);
      const absent = await container.cni('ADD', list('bad', { type: 'netctl', ipam: { type: 'nothere' } }));
      assert.match(absent.stdout, /ipam.type: there is no plugin \\"nothere\\" in CNI_PATH/);
    } finally {
      await container.close();
    }
  });

  for (const [type, config] of [
    ['ptp', {}],
    ['bridge', { bridge: 'br-lan', isGateway: true, ipMasq: false }],
    ['macvlan', { master: 'eth0', mode: 'bridge' }],
  ] as const)
    test(`netctl-ipam below ${type}`, async () => {
      const ipam = {
        type: 'netctl-ipam',
        pools: ['lan'],
        routes: [{ dst: '0.0.0.0/0' }],
      };
      const conflist = list(`below-${type}`, { type, ...config, ipam });
      const { container, result } = await add('one', conflist);
      const [ip] = result.ips;
      assert.match(ip!.address, /^10\.66\.0\.\d+\/24$/);
      assert.equal(ip!.gateway, '10.66.0.1');
      assert.match(
        await container.mustExec(['ip', '-o', 'address', 'show', 'eth0']),
        new RegExp(ip!.address),
      );
      const shown = await host.netctl(['endpoint', 'show', '-o', 'json']);
      assert.equal(JSON.parse(shown.stdout)[0].kind, 'foreign');
    });

  test('portmap, bandwidth, tuning and firewall after us', async () => {
    const conflist = list(
      'chain',
      { type: 'netctl' },
      { type: 'tuning', sysctl: { 'net.core.somaxconn': '500' } },
      { type: 'portmap', capabilities: { portMappings: true } },
      { type: 'firewall' },
      {
        type: 'bandwidth',
        ingressRate: 80_000_000,
        ingressBurst: 8_000_000,
        egressRate: 80_000_000,
        egressBurst: 8_000_000,
      },
    );
    const runtime = { portMappings: [{ hostPort: 8080, containerPort: 80, protocol: 'tcp' }] };
    const { container } = await add('one', conflist, { runtime });
    assert.equal((await container.mustExec(['cat', '/proc/sys/net/core/somaxconn'])).trim(), '500');
    // Debian's portmap looks for IPv6 chains where there is no IPv6 address, and fails its CHECK.
    const others = { ...conflist, plugins: conflist.plugins.filter(({ type }) => type !== 'portmap') };
    const check = await container.cni('CHECK', others, { runtime });
    assert.equal(check.code, 0, check.stdout);
  });

  test('rate limits on an interface of another plugin stand over a restart, untouched', async () => {
    const ipam = { type: 'host-local', subnet: '10.80.0.0/24', dataDir: `${host.stateDirectory}/limited` };
    const conflist = list(
      'limited',
      { type: 'ptp', ipam },
      { type: 'netctl', capabilities: { bandwidth: true } },
    );
    const bandwidth = { ingressRate: 8e6, egressRate: 8e6 };
    const { container } = await add('one', conflist, { runtime: { bandwidth } });
    const queues = (): Promise<string> => host.mustExec(['ip', '-o', 'link', 'show', 'type', 'ifb']);
    const before = await queues();
    assert.match(before, /nctl-/);
    await host.restart();
    assert.equal(await queues(), before);
    assert.equal((await container.cni('CHECK', conflist)).code, 0);
    await container.cniDel(conflist);
    assert.equal(await queues(), '');
  });

  test('after a bridge, where nothing could be enforced: refused', async () => {
    const dataDir = `${host.stateDirectory}/host-local-bridge`;
    const conflist = list(
      'unsafe',
      { type: 'bridge', bridge: 'br-unsafe', ipam: hostLocal(dataDir) },
      { type: 'netctl' },
    );
    const container = await Container.create(host, 'one');
    made.push([container, conflist]);
    const { code, stdout } = await container.cni('ADD', conflist);
    assert.equal(code, 1);
    assert.match(stdout, /policy cannot be enforced/);
  });
});
