/**
 * Addresses from a DHCP server on the wire, by Debian's plugin `dhcp` below netctl: a macvlan's lease is asked for, kept and given back
 * through the guard on its parent, and whatever fails leaves neither lease nor link. The server is dnsmasq.
 */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { type CniResult, type Conflist, Container } from '../../lab/container.ts';
import { Daemon } from '../../lab/daemon.ts';
import { Host } from '../../lab/host.ts';
import { namespacePlace } from '../../lab/place.ts';
import { eventually, mustRun, type Result } from '../../lab/run.ts';

const here = namespacePlace(null);
const lostMac = '02:00:00:00:00:66';
/** What the server tells these of routes. */
const toldMac = {
  classless: '02:00:00:00:00:67',
  noDefault: '02:00:00:00:00:68',
  static: '02:00:00:00:00:69',
};
/** Stands for a plugin that is newer than Debian's, and asks that for all but CHECK. */
const newer = (directory: string): string => `#!/bin/sh
config=$(cat)
echo $CNI_COMMAND >>${directory}/asked
case $CNI_COMMAND in
VERSION) echo '{"cniVersion": "1.1.0", "supportedVersions": ["1.0.0", "1.1.0"]}' ;;
CHECK) [ ! -e ${directory}/lost ] || { echo '{"code": 100, "msg": "the lease is lost"}'; exit 1; } ;;
*) printf %s "$config" | /usr/lib/cni/dhcp ;;
esac
`;

describe('addresses by DHCP', { timeout: 300_000 }, () => {
  const directory = mkdtempSync(join(tmpdir(), 'netctl-dhcp-'));
  const socket = join(directory, 'dhcp.sock');
  const leases = join(directory, 'leases');
  const server = new Daemon(here, 'dnsmasq', directory);
  const plugin = new Daemon(here, 'dhcp', directory);
  const containers: Container[] = [];
  let host: Host;
  let uplink: string;

  const network = (words: object = {}): Conflist => ({
    cniVersion: '1.0.0',
    name: 'wire',
    plugins: [
      {
        type: 'netctl',
        mode: 'macvlan',
        parent: 'eth0',
        ipam: { type: 'dhcp', daemonSocketPath: socket },
        ...words,
      },
    ],
  });
  const startServer = (): Promise<void> =>
    server.start([
      ...[
        'dnsmasq',
        '--keep-in-foreground',
        '--conf-file=/dev/null',
        '--port=0',
        '--user=root',
        '--pid-file',
      ],
      ...['--no-ping', '--log-dhcp', '--log-facility=-', `--interface=${uplink}`, '--bind-interfaces'],
      ...['--dhcp-range=10.66.0.100,10.66.0.150,255.255.255.0,2m', `--dhcp-leasefile=${leases}`],
      ...['--dhcp-option=option:router,10.66.0.1', '--dhcp-option=option:T1,6'],
      ...[`--dhcp-mac=set:lost,${lostMac}`, '--dhcp-option=tag:lost,option:router,10.66.0.9'],
      ...Object.entries(toldMac).map(([tag, mac]) => `--dhcp-mac=set:${tag},${mac}`),
      '--dhcp-option=tag:classless,121,10.99.0.0/24,10.66.0.7,10.97.0.0/16,0.0.0.0,0.0.0.0/0,10.66.0.8',
      '--dhcp-option=tag:noDefault,121,10.99.0.0/24,10.66.0.7',
      '--dhcp-option=tag:static,33,10.98.0.5,10.66.0.7',
    ]);
  const startPlugin = (): Promise<void> => {
    // One that has ended leaves its socket where another cannot listen.
    rmSync(socket, { force: true });
    const patience = ['-timeout', '1s', '-resendmax', '1s'];
    return plugin.start(['/usr/lib/cni/dhcp', 'daemon', '-socketpath', socket, ...patience]);
  };
  const told = (what: RegExp): number => server.log().match(new RegExp(what, 'g'))?.length ?? 0;
  const create = async (name: string): Promise<Container> => {
    const container = await Container.create(host, name);
    containers.push(container);
    return container;
  };
  /** One call, exactly as given. */
  const call = (
    command: string,
    { id }: Container,
    netns: string,
    { path = '/usr/lib/cni', words = {} } = {},
  ): Promise<Result> => {
    const { plugins, ...rest } = network();
    const env = { CNI_COMMAND: command, CNI_CONTAINERID: id, CNI_NETNS: netns, CNI_IFNAME: 'eth0' };
    return host.exec([host.plugin('netctl')], {
      env: { ...env, CNI_PATH: path },
      stdin: JSON.stringify({ ...plugins[0], ...rest, ...words, socket: host.cniSocket }),
      deadlineMs: 90_000,
    });
  };
  const leased = (): string => readFileSync(leases, 'utf8');
  const inside = async (container: Container): Promise<string> =>
    (await container.exec(['ip', '-o', 'link', 'show', 'eth0'])).stdout;
  /** Neither record nor rules of the guard. */
  const nothingLeft = async (): Promise<void> => {
    assert.deepEqual(JSON.parse(await host.mustNetctl(['endpoint', 'show', '-o', 'json'])), []);
    assert.doesNotMatch(await host.mustExec(['nft', 'list', 'tables']), /netctl-guard/);
  };

  before(async () => {
    host = await Host.create({ name: `dh${process.pid}`, address: '192.0.2.1' });
    uplink = `up-${host.name}`;
    await mustRun(['ip', 'address', 'add', '10.66.0.1/24', 'dev', uplink]);
    await startServer();
    await startPlugin();
    await host.start(['--resync-seconds', '2']);
  });
  afterEach(async () => {
    for (const container of containers.splice(0)) {
      await container.cni('DEL', network());
      await container.close();
    }
  });
  after(async () => {
    await host.close();
    await plugin.kill('SIGTERM');
    await server.kill('SIGTERM');
    rmSync(directory, { recursive: true, force: true });
  });

  async function attach(name: string, words: object = {}): Promise<[Container, CniResult, string]> {
    const container = await create(name);
    const result = await container.cniAdd(network(words));
    return [container, result, result.ips[0]!.address.split('/')[0]!];
  }

  test('ADD asks for a lease, CHECK is content, the lease is renewed, DEL gives it back', async () => {
    const [container, { ips, interfaces }, address] = await attach('one');
    assert.match(ips[0]!.address, /^10\.66\.0\.1[0-5]\d\/24$/);
    assert.equal(ips[0]!.gateway, '10.66.0.1');
    const { mac } = interfaces[ips[0]!.interface ?? 0]!;
    assert.match(await inside(container), new RegExp(`link/ether ${mac}`));
    assert.match(leased(), new RegExp(`${mac} ${address} `));
    await container.mustExec(['ping', '-c', '1', '-W', '2', '10.66.0.1']);
    assert.match(await container.mustExec(['ip', 'route']), /default via 10\.66\.0\.1 dev eth0/);
    const { code, stdout } = await container.cni('CHECK', network());
    assert.equal(code, 0, stdout);
    const acknowledged = told(/DHCPACK/);
    await eventually('the lease is renewed', 30_000, async () => told(/DHCPACK/) > acknowledged);
    await container.cniDel(network());
    await eventually('the server has it back', 5000, async () => !leased().includes(address));
    assert.equal(await inside(container), '');
    await nothingLeft();
  });

  for (const [tag, mac, routes] of [
    [
      'classless static routes',
      toldMac.classless,
      { '10.99.0.0/24': '10.66.0.7', '10.97.0.0/16': undefined, '0.0.0.0/0': '10.66.0.8' },
    ],
    ['classless static routes without a default', toldMac.noDefault, { '10.99.0.0/24': '10.66.0.7' }],
    ['static routes', toldMac.static, { '10.98.0.5/32': '10.66.0.7', '0.0.0.0/0': '10.66.0.1' }],
  ] as [string, string, Record<string, string | undefined>][])
    test(`${tag} of the server are the container's`, async () => {
      const container = await create('told');
      // A server says only what it is asked for.
      const request = [{ option: '121' }, { option: '33' }];
      const asking = network({ ipam: { type: 'dhcp', daemonSocketPath: socket, request } });
      const result = await container.cniAdd(asking, { args: `MAC=${mac}` });
      assert.deepEqual(Object.fromEntries(result.routes!.map(({ dst, gw }) => [dst, gw])), routes);
      const there = JSON.parse(await container.mustExec(['ip', '-j', '-4', 'route', 'show', 'proto', '110']));
      const short = (dst: string): string => (dst === '0.0.0.0/0' ? 'default' : dst.replace('/32', ''));
      assert.deepEqual(
        Object.fromEntries(there.map(({ dst, gateway }: Record<string, string>) => [dst, gateway])),
        Object.fromEntries(Object.entries(routes).map(([dst, gw]) => [short(dst), gw])),
      );
      assert.equal((await container.cni('CHECK', asking)).code, 0);
      const [first] = Object.keys(routes);
      await container.mustExec(['ip', 'route', 'delete', first!]);
      const { code, stdout } = await container.cni('CHECK', asking);
      assert.notEqual(code, 0);
      assert.ok(stdout.includes(`the route to ${first} by way of 10.66.0.7 is missing`), stdout);
      await container.cniDel(asking);
      await nothingLeft();
    });

  test("CHECK asks a plugin that can take it, and Debian's has no second lease", async () => {
    const own = join(directory, 'newer');
    mkdirSync(own);
    writeFileSync(join(own, 'dhcp'), newer(own), { mode: 0o755 });
    for (const path of [own, '/usr/lib/cni']) {
      const container = await create('checked');
      const netns = `/run/netns/${container.netns}`;
      const added = await call('ADD', container, netns, { path });
      assert.equal(added.code, 0, added.stdout);
      const discovered = told(/DHCPDISCOVER/);
      const check = (): Promise<Result> =>
        call('CHECK', container, netns, { path, words: { prevResult: JSON.parse(added.stdout) } });
      const { code, stdout } = await check();
      assert.equal(code, 0, stdout);
      if (path === own) {
        assert.match(readFileSync(join(own, 'asked'), 'utf8'), /^ADD\nVERSION\nCHECK\n$/);
        writeFileSync(join(own, 'lost'), '');
        assert.match((await check()).stdout, /IPAM plugin dhcp \(CHECK\): the lease is lost/);
      } else assert.equal(told(/DHCPDISCOVER/), discovered);
      assert.equal((await call('DEL', container, netns, { path })).code, 0);
    }
    await nothingLeft();
  });

  test('it may ask for its address, and still be nobody else', async () => {
    const [container] = await attach('forger');
    await container.mustExec(['ip', 'address', 'add', '10.66.0.77/24', 'dev', 'eth0']);
    const ping = (from: string) => container.exec(['ping', '-c', '1', '-W', '1', '-I', from, '10.66.0.1']);
    assert.notEqual((await ping('10.66.0.77')).code, 0);
  });

  test('what fails after the lease gives it back', async () => {
    const container = await create('lost');
    const released = told(/DHCPRELEASE/);
    const { code, stdout } = await container.cni('ADD', network({ gatewayCheck: 'require' }), {
      args: `MAC=${lostMac}`,
    });
    assert.notEqual(code, 0);
    assert.match(stdout, /gateway 10\.66\.0\.9 does not answer/);
    await eventually('the lease is back', 5000, async () => told(/DHCPRELEASE/) > released);
    assert.doesNotMatch(leased(), new RegExp(lostMac));
    assert.equal(await inside(container), '');
    await nothingLeft();
  });

  test('DEL of a container whose namespace is gone, and without one, gives the lease back', async () => {
    for (const netns of ['gone', '']) {
      const [container, , address] = await attach(`forced${netns}`);
      const path = netns === '' ? '' : `/run/netns/${container.netns}`;
      if (netns === 'gone') await host.mustExec(['ip', 'netns', 'delete', container.netns]);
      const { code, stdout } = await call('DEL', container, path);
      assert.equal(code, 0, stdout);
      await eventually('the server has it back', 5000, async () => !leased().includes(address));
      await nothingLeft();
    }
  });

  test('a link that somebody deleted is made again, and the lease goes on', async () => {
    const [container] = await attach('again');
    await container.mustExec(['ip', 'link', 'delete', 'eth0']);
    await eventually('the link is there', 15_000, async () => (await inside(container)) !== '');
    const acknowledged = told(/DHCPACK/);
    await eventually('the lease is renewed', 30_000, async () => told(/DHCPACK/) > acknowledged);
    await container.mustExec(['ping', '-c', '1', '-W', '2', '10.66.0.1']);
  });

  test('an agent that dies while it waits for a lease leaves nothing', async () => {
    await server.kill('SIGTERM');
    const container = await create('dying');
    const adding = container.cni('ADD', network());
    await eventually('the link asks', 10_000, async () => /state UP/.test(await inside(container)));
    await host.kill('SIGKILL');
    assert.notEqual((await adding).code, 0);
    await host.start(['--resync-seconds', '2']);
    await eventually('the link is gone', 15_000, async () => (await inside(container)) === '');
    await eventually('the record is gone', 15_000, async () => {
      await nothingLeft();
      return true;
    });
    await startServer();
  });

  test('no server: ADD says so, and leaves nothing', async () => {
    await server.kill('SIGTERM');
    const container = await create('alone');
    const { code, stdout } = await call('ADD', container, `/run/netns/${container.netns}`);
    assert.notEqual(code, 0);
    assert.match(stdout, /IPAM plugin dhcp \(ADD\): /);
    assert.equal(await inside(container), '');
    await nothingLeft();
    await startServer();
  });

  test('no daemon of the plugin: ADD and DEL say so, and DEL succeeds once it is back', async () => {
    const [container] = await attach('early');
    await plugin.kill('SIGTERM');
    const late = await create('late');
    const { code, stdout } = await late.cni('ADD', network());
    assert.notEqual(code, 0);
    assert.match(stdout, /IPAM plugin dhcp \(ADD\): error dialing DHCP daemon/);
    assert.equal(await inside(late), '');
    const refused = await container.cni('DEL', network());
    assert.match(refused.stdout, /IPAM plugin dhcp \(DEL\): error dialing DHCP daemon/);
    await startPlugin();
    await eventually(
      'the plugin listens',
      5000,
      async () => (await container.cni('DEL', network())).code === 0,
    );
    assert.equal(await inside(container), '');
    assert.equal((await late.cni('DEL', network())).code, 0);
    await nothingLeft();
  });
});
