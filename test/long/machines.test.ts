/**
 * The Debian package and vagrant/provision.sh on machines with systemd: what virtual machines of vagrant/ go through, in containers
 * that boot in a second. And what Vagrant itself says of the Vagrantfile.
 */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { eventually, run } from '../../lab/run.ts';
import { Ground, type Guest } from './nspawn.ts';

const top = resolve(import.meta.dirname, '../..');
const root = join(top, 'build/machine-root');

describe('machines', { timeout: 600_000 }, () => {
  let ground: Ground;
  let one: Guest;
  let two: Guest;

  before(
    async () => {
      assert.ok(existsSync(root), 'scripts/machine-root has not been run');
      const found = readdirSync(join(top, 'build')).find((name) => /^netctl_.*\.deb$/.test(name));
      assert.ok(found !== undefined, 'make deb has not been run');
      const files = {
        'root/netctl.deb': join(top, 'build', found),
        'root/provision.sh': join(top, 'vagrant/provision.sh'),
      };
      ground = await Ground.create();
      one = await ground.guest(root, 'node1', '192.168.78.21', files);
      two = await ground.guest(root, 'node2', '192.168.78.22', files);
      await Promise.all([one.boot(), two.boot()]);
      for (const [i, guest] of [one, two].entries()) {
        const provision = ['sh', '/root/provision.sh', String(i + 1), '/root/netctl.deb'];
        await guest.mustExec(provision, { deadlineMs: 120_000 });
      }
    },
    { timeout: 600_000 },
  );
  after(() => ground?.close());

  /** A container as a runtime would make it, by hand. @returns its addresses */
  async function container(guest: Guest, name: string): Promise<string[]> {
    await guest.mustExec(['ip', 'netns', 'add', name]);
    const env = {
      CNI_COMMAND: 'ADD',
      CNI_CONTAINERID: name,
      CNI_NETNS: `/run/netns/${name}`,
      CNI_IFNAME: 'eth0',
      CNI_PATH: '/usr/lib/cni',
    };
    const stdin = JSON.stringify({ cniVersion: '1.0.0', name: 'edge', type: 'netctl' });
    const { code, stdout } = await guest.exec(['/usr/lib/cni/netctl'], { env, stdin });
    assert.equal(code, 0, stdout);
    const { ips } = JSON.parse(stdout) as { ips: { address: string }[] };
    return ips.map(({ address }) => address.replace(/\/.*/, ''));
  }

  const ping = (guest: Guest, name: string, address: string) =>
    guest.exec(['ip', 'netns', 'exec', name, 'ping', '-c1', '-W1', address]);

  async function healthy(): Promise<void> {
    for (const guest of [one, two]) {
      let told = '';
      await eventually(`${guest.name} is healthy`, 60_000, async () => {
        const { code, stdout, stderr } = await guest.exec(['netctl', 'node', 'status']);
        told = `${stdout}${stderr}`;
        return code === 0;
      }).catch((error: Error) => assert.fail(`${error.message}\n${told}`));
    }
  }

  test('units are right, and so enabled', async () => {
    const units = ['/usr/lib/systemd/system/netctld.service', '/etc/systemd/system/lab-address.service'];
    // Its exit code is 0 for an unknown key: only what it says counts.
    const { code, stdout, stderr } = await one.exec(['systemd-analyze', 'verify', '--man=no', ...units]);
    assert.deepEqual([code, stdout, stderr], [0, '', '']);
    for (const guest of [one, two]) {
      assert.equal((await guest.mustExec(['systemctl', 'is-enabled', 'netctld'])).trim(), 'enabled');
      assert.equal((await guest.mustExec(['systemctl', 'is-active', 'netctld'])).trim(), 'active');
    }
  });

  test('the installed command line makes a lab, too', async () => {
    await one.mustExec(['netctl', 'lab', 'up', '--nodes', '2'], { deadlineMs: 60_000 });
    try {
      await one.mustExec(['netctl', 'lab', 'attach', 'node2', 'web']);
      const version = ['netctl', 'lab', 'exec', 'node2', '--', 'netctl', 'version', '-o', 'json'];
      const { netctl, agent } = JSON.parse(await one.mustExec(version)) as Record<string, string>;
      assert.equal(netctl, agent);
    } finally {
      await one.mustExec(['netctl', 'lab', 'down']);
    }
  });

  test('a container reaches one on the other machine; a machine that reboots is part of it again', async () => {
    await healthy();
    const [[first = ''], targets] = await Promise.all([container(one, 'web'), container(two, 'db')]);
    assert.notEqual(first, '');
    for (const address of targets) {
      await eventually(`ping ${address}`, 20_000, async () => (await ping(one, 'web', address)).code === 0);
    }

    await two.reboot();
    await healthy();
    const again = await container(two, 'db2');
    for (const address of again) {
      await eventually(`ping ${address}`, 20_000, async () => (await ping(one, 'web', address)).code === 0);
    }
  });

  test('the agent that is killed is started again, and no packet is lost meanwhile', async () => {
    const [target = ''] = await container(two, 'echo');
    await eventually('the first ping', 20_000, async () => (await ping(one, 'web', target)).code === 0);
    const before = (await two.mustExec(['systemctl', 'show', '-P', 'MainPID', 'netctld'])).trim();
    const flow = one.exec(['ip', 'netns', 'exec', 'web', 'ping', '-c40', '-i0.1', '-W1', target]);
    await two.mustExec(['kill', '-KILL', before]);
    await eventually('systemd starts it', 20_000, async () => {
      const now = (await two.mustExec(['systemctl', 'show', '-P', 'MainPID', 'netctld'])).trim();
      return now !== '0' && now !== before;
    });
    const bird = await two.mustExec(['pgrep', '-x', 'bird']);
    await two.mustExec(['systemctl', 'restart', 'netctld']);
    assert.equal(await two.mustExec(['pgrep', '-x', 'bird']), bird, 'BIRD runs on');
    assert.match((await flow).stdout, / 0% packet loss/);
    await healthy();
  });

  test('provisioning again changes nothing; removing the package leaves the state, purging takes it', async () => {
    await one.mustExec(['sh', '/root/provision.sh', '1', '/root/netctl.deb'], { deadlineMs: 120_000 });
    await healthy();
    await two.mustExec(['dpkg', '--remove', 'netctl']);
    await two.mustExec(['test', '-e', '/var/lib/netctl/netctl.db']);
    assert.notEqual((await two.exec(['systemctl', 'is-active', 'netctld'])).code, 0);
    await eventually('BIRD ends', 5000, async () => (await two.exec(['pgrep', '-x', 'bird'])).code !== 0);
    await two.mustExec(['dpkg', '--purge', 'netctl']);
    assert.notEqual((await two.exec(['test', '-e', '/var/lib/netctl'])).code, 0);
  });
});

test('vagrant validate', async () => {
  const home = mkdtempSync(join(tmpdir(), 'netctl-vagrant-'));
  try {
    const env = {
      VAGRANT_HOME: home,
      VAGRANT_CHECKPOINT_DISABLE: '1',
      VAGRANT_CWD: join(top, 'vagrant'),
      NODES: '4',
    };
    // With the provider of Debian's package vagrant-libvirt, whose settings are looked at too.
    const { code, stdout, stderr } = await run(['vagrant', 'validate'], {
      env,
      deadlineMs: 60_000,
    });
    assert.equal(code, 0, stdout + stderr);
    assert.match(stdout, /validated successfully/);
  } finally {
    rmSync(home, { recursive: true, force: true });
  }
});
