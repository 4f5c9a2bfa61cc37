/** From boot until the agent is in sync nothing of containers passes, with each back end, on the built programs. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { type Conflist, Container } from '../../lab/container.ts';
import { Host } from '../../lab/host.ts';
import { difference, readState } from '../../lab/kernel-state.ts';
import { mustRun } from '../../lab/run.ts';
import { PeerProcess } from './peer-process.ts';

const conflist: Conflist = { cniVersion: '1.0.0', name: 'edge', plugins: [{ type: 'netctl' }] };

for (const dataplane of ['auto', 'nftables', 'iptables']) {
  describe(`boot with ${dataplane}`, () => {
    let host: Host;
    let web: Container;
    let db: Container;
    let webAddress: string;
    let dbAddress: string;
    let peers: PeerProcess[] = [];

    before(async () => {
      host = await Host.create({ name: `bo${dataplane[0]}${process.pid}`, address: '192.0.2.1' });
      await host.start(['--dataplane', dataplane]);
      for (const words of [
        ['pool', 'add', '10.65.0.0/16'],
        ['profile', 'add', 'web'],
        ['profile', 'add', 'db'],
        [
          'profile',
          'db',
          'rule',
          'add',
          'inbound',
          'allow',
          'tcp',
          'from',
          'tag',
          'web',
          'to',
          'ports',
          '80',
        ],
      ])
        assert.equal((await host.netctl(words)).code, 0);
      web = await Container.create(host, 'web');
      db = await Container.create(host, 'db');
      const addressOf = async (container: Container, profile: string): Promise<string> =>
        (await container.cniAdd(conflist, { args: `NETCTL_PROFILE=${profile}` })).ips[0]!.address.split(
          '/',
        )[0]!;
      webAddress = await addressOf(web, 'web');
      dbAddress = await addressOf(db, 'db');
      await db.serve([80, 3306]);
    });
    after(async () => {
      for (const peer of peers) peer.kill();
      await Promise.all([web?.close(), db?.close()]);
      await host.close();
    });

    const reaches = (): Promise<boolean[]> =>
      web.connect(
        [80, 3306].map((port) => ({ address: dbAddress, port })),
        400,
      );
    const boot = (): Promise<string> =>
      host.mustExec([host.programs.netctld, '--boot', '--dataplane', dataplane, '--node', host.name]);

    /** As the kernel is after a reboot, but for the containers, which stand for whatever has come up too early. */
    async function forgetRules(): Promise<void> {
      await host.mustExec(['nft', 'flush', 'ruleset']);
      await host.mustExec(['ipset', 'destroy']);
    }

    test('closed before the agent, and the agent opens what is allowed, with no moment open', async () => {
      assert.deepEqual(await reaches(), [true, false]);
      await host.kill('SIGKILL');
      const right = await readState(host);
      await forgetRules();
      assert.deepEqual(await reaches(), [true, true]);
      await boot();
      assert.deepEqual(await reaches(), [false, false]);
      const heard = await PeerProcess.start(db, 'listen', '9999');
      const knocks = await PeerProcess.start(web, 'knock', dbAddress, '9999');
      peers = [heard, knocks];
      await host.start(['--dataplane', dataplane]);
      assert.deepEqual(await reaches(), [true, false]);
      const { sent } = await knocks.end();
      const { received } = await heard.end();
      assert(sent > 50, `sent ${sent}`);
      assert.equal(received, 0);
      assert.equal(difference(right, await readState(host)), '');
    });

    test('does nothing where rules of an agent are', async () => {
      await host.kill('SIGKILL');
      const before = await readState(host);
      await boot();
      assert.equal(difference(before, await readState(host)), '');
      assert.deepEqual(await reaches(), [true, false]);
      assert.match(webAddress, /^10\.65\./);
      await host.start(['--dataplane', dataplane]);
    });
  });
}

test('make install places the unit, before networks and runtimes', async () => {
  const root = mkdtempSync(join(tmpdir(), 'netctl-install-'));
  try {
    await mustRun(['scripts/install', root]);
    const unit = readFileSync(`${root}/usr/lib/systemd/system/netctl-boot.service`, 'utf8');
    assert.match(unit, /^ExecStart=\/usr\/sbin\/netctld --boot /m);
    assert.match(unit, /^Before=network-pre.target .*docker.service/m);
  } finally {
    rmSync(root, { recursive: true });
  }
});
