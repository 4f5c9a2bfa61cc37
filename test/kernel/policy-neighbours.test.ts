/** The agent beside others who use the kernel's filters: Docker, firewalld, an administrator's rules, a held lock; on the built programs. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { type Conflist, Container } from '../../lab/container.ts';
import { Host } from '../../lab/host.ts';
import { difference, readState } from '../../lab/kernel-state.ts';
import { eventually } from '../../lab/run.ts';

const conflist: Conflist = { cniVersion: '1.0.0', name: 'edge', plugins: [{ type: 'netctl' }] };

interface Check {
  readonly backend: string;
  readonly reason: string;
  readonly iptables: string;
  readonly inSync: boolean;
  readonly notices: string[];
  readonly problems: string[];
  readonly lastRepair: { what: string[] } | null;
}

describe('beside others', () => {
  let host: Host;
  let containers: Container[] = [];
  let n = 0;

  beforeEach(async () => {
    host = await Host.create({ name: `ne${n++}-${process.pid}`, address: '192.0.2.1' });
  });
  afterEach(async () => {
    await Promise.all(containers.map((container) => container.close()));
    containers = [];
    await host.close();
  });

  async function ok(...words: string[]): Promise<string> {
    const { code, stdout, stderr } = await host.netctl(words);
    assert.equal(code, 0, stderr);
    return stdout;
  }

  const check = async (): Promise<Check> => JSON.parse((await host.netctl(['check', '-o', 'json'])).stdout);

  /** The agent, and two containers of one profile: web, which listens on port 80, and app. Returns the address of web. */
  async function start(...flags: string[]): Promise<{ web: Container; app: Container; address: string }> {
    await host.start(flags);
    await ok('pool', 'add', '10.65.0.0/16');
    const [web, app] = [await Container.create(host, 'web'), await Container.create(host, 'app')];
    containers.push(web, app);
    const { ips } = await web.cniAdd(conflist);
    await app.cniAdd(conflist);
    await web.serve([80]);
    return { web, app, address: ips[0]!.address.split('/')[0]! };
  }

  const reaches = async (from: Container, address: string, port = 80): Promise<boolean> =>
    (await from.connect([{ address, port }], 1000))[0]!;

  /** What Docker does to FORWARD when it starts. */
  async function dockerStarts(iptables: string): Promise<void> {
    for (const rule of [
      '-P FORWARD DROP',
      '-N DOCKER-USER',
      '-A DOCKER-USER -j RETURN',
      '-I FORWARD -o docker0 -j ACCEPT',
      '-I FORWARD -j DOCKER-USER',
    ])
      await host.mustExec([iptables, ...rule.split(' ')]);
  }

  const ofOthers = async (iptables: string): Promise<string[]> =>
    (await host.mustExec([iptables, '-S']))
      .split('\n')
      .filter((line) => line !== '' && !line.includes('nctl'));

  test('nobody else: nftables, and check says so', async () => {
    const { app, address } = await start();
    const { backend, reason, iptables, inSync, notices } = await check();
    assert.deepEqual([backend, iptables, inSync, notices], ['nftables', 'nft', true, []]);
    assert.equal(reason, 'nobody else uses FORWARD of iptables');
    assert(await reaches(app, address));
    assert.match(await ok('check'), /nftables, in sync\n.*\niptables: +iptables-nft/);
  });

  for (const variant of ['nft', 'legacy']) {
    const iptables = `iptables-${variant}`;
    const flags = ['--iptables-backend', variant, '--resync-seconds', variant === 'nft' ? '600' : '1'];

    test(`Docker has been there before (${iptables}): iptables, and what is Docker's stays`, async () => {
      await dockerStarts(iptables);
      const before = await ofOthers(iptables);
      const { app, address } = await start(...flags);
      const { backend, reason, notices } = await check();
      assert.equal(backend, iptables);
      assert.match(reason, /^others use FORWARD of iptables \(IPv4: policy DROP, 2 rules\)$/);
      assert.deepEqual(notices, []);
      assert(await reaches(app, address));
      assert.deepEqual(await ofOthers(iptables), before);
    });

    test(`Docker comes later (${iptables}): iptables takes over, no flow is lost`, async () => {
      const { app, web, address } = await start(...flags);
      assert.equal((await check()).backend, 'nftables');
      const held = await app.hold({ address, port: 80 });
      await dockerStarts(iptables);
      const before = await ofOthers(iptables);
      await eventually('iptables has taken over', 10_000, async () => {
        const { backend, inSync } = await check();
        return backend === iptables && inSync;
      });
      assert(await reaches(app, address));
      assert(!(await reaches(web, address, 81)));
      const { echoes } = await held();
      assert(echoes > 0);
      assert.deepEqual(await ofOthers(iptables), before);
      assert.doesNotMatch((await readState(host)).join('\n'), /^sh -c .*nctl/m);
      // What comes and goes afterwards does so there.
      const late = await Container.create(host, 'late');
      containers.push(late);
      await late.cniAdd(conflist);
      assert(await reaches(late, address));
    });

    test(`a rule above ours (${iptables}) is told, and goes below again`, async () => {
      const { app, address } = await start('--dataplane', 'iptables', ...flags);
      await host.mustExec([iptables, '-I', 'FORWARD', '-p', 'tcp', '-j', 'DROP']);
      await eventually('our jump is first again', 10_000, async () => {
        const { lastRepair } = await check();
        const isTold = (text: string): boolean =>
          /^jump from FORWARD \(IPv4\) .*: behind -A FORWARD -p tcp -j DROP$/.test(text);
        return lastRepair?.what.some(isTold) ?? false;
      });
      assert(await reaches(app, address));
      assert.deepEqual(await ofOthers(iptables), [
        '-P INPUT ACCEPT',
        '-P FORWARD ACCEPT',
        '-P OUTPUT ACCEPT',
        '-A FORWARD -p tcp -j DROP',
      ]);
    });

    test(`a rule above ours (${iptables}) stays where that is configured, and check names it`, async () => {
      const { app, address } = await start('--dataplane', 'iptables', '--foreign-first', ...flags);
      await host.mustExec([iptables, '-I', 'FORWARD', '-p', 'tcp', '-j', 'DROP']);
      await eventually('it is told', 10_000, async () =>
        (await check()).notices.includes(
          'stands before the rules of netctl in FORWARD (IPv4): -A FORWARD -p tcp -j DROP',
        ),
      );
      assert(!(await reaches(app, address)));
    });

    test(`our chains and sets flushed by others (${iptables}) are back`, async () => {
      const { app, address } = await start('--dataplane', 'iptables', ...flags);
      const right = await readState(host);
      await host.mustExec([iptables, '-F']);
      await host.mustExec([iptables, '-X']);
      await host.mustExec(['ipset', 'flush']);
      // Seen by the kernel's word of the rules; the sets are read with them.
      await eventually('all is back', 5000, async () => difference(right, await readState(host)) === '');
      assert(await reaches(app, address));
    });
  }

  test('firewalld: its reject is named, and left', async () => {
    const ruleset = `table inet firewalld {
      chain filter_FORWARD { type filter hook forward priority 10; policy accept; ct state established accept; reject with icmpx admin-prohibited; }
    }`;
    const { app, address } = await start();
    assert(await reaches(app, address));
    await host.mustExec(['nft', '-f', '-'], { stdin: ruleset });
    await eventually('it is told', 10_000, async () =>
      (await check()).notices.some((text) =>
        text.startsWith(
          'chain filter_FORWARD of nftables table inet firewalld drops what it does not accept',
        ),
      ),
    );
    assert(!(await reaches(app, address)));
    assert.match(await ok('node', 'status'), /Others: +chain filter_FORWARD/);
    await host.mustExec([
      'nft',
      'insert',
      'rule',
      'inet',
      'firewalld',
      'filter_FORWARD',
      'oifname',
      '"nctl*"',
      'accept',
    ]);
    assert(await reaches(app, address));
    assert.equal((await check()).backend, 'nftables');
  });

  test('a held xtables lock: waited for, reported, nothing lost; what needs no program goes on', async () => {
    const lock = join(tmpdir(), `netctl-lock-${process.pid}`);
    process.env['XTABLES_LOCKFILE'] = lock;
    let holder: ChildProcess | null = null;
    try {
      const { app, address } = await start('--dataplane', 'iptables', '--iptables-backend', 'legacy');
      holder = spawn('flock', [lock, 'sh', '-c', 'echo held; exec cat'], {
        stdio: ['pipe', 'pipe', 'inherit'],
      });
      await new Promise((held) => holder!.stdout!.once('data', held));
      // A known list of profiles: members of sets only.
      const late = await Container.create(host, 'late');
      containers.push(late);
      await late.cniAdd(conflist);
      assert(await reaches(late, address));
      const added = host.netctl([
        'profile',
        'edge',
        'rule',
        'add',
        'inbound',
        '--at',
        '1',
        'deny',
        'tcp',
        'to',
        'ports',
        '80',
      ]);
      const { stderr } = await added;
      assert.match(stderr, /not yet in force/);
      await eventually('the lock is reported', 20_000, async () => {
        const { problems } = await check();
        return problems.some((text) => /policy: not in sync.*xtables lock/.test(text));
      });
      assert(await reaches(app, address));
      const ended = new Promise((gone) => holder!.once('exit', gone));
      holder.stdin!.end();
      await ended;
      await eventually('the change is in force', 30_000, async () => (await check()).inSync);
      assert(!(await reaches(app, address)));
    } finally {
      delete process.env['XTABLES_LOCKFILE'];
      holder?.stdin?.end();
      rmSync(lock, { force: true });
    }
  });
});
