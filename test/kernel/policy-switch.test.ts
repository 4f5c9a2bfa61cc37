/** The agent restarted with the other back end, while containers talk, are to be kept apart, and make connections that are allowed. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Conflist, Container } from '../../lab/container.ts';
import { Host } from '../../lab/host.ts';
import { difference, readState } from '../../lab/kernel-state.ts';
import { eventually } from '../../lab/run.ts';
import { PeerProcess, type Seen } from './peer-process.ts';

const conflist: Conflist = { cniVersion: '1.0.0', name: 'edge', plugins: [{ type: 'netctl' }] };

const sendOne = `const s = require('node:dgram').createSocket('udp4'); s.send('x', 9999, process.argv[1], () => s.close())`;

describe('the back end changes on a live host', () => {
  let host: Host;
  const containers: Container[] = [];
  const addresses: string[] = [];
  const peers: PeerProcess[] = [];

  before(async () => {
    host = await Host.create({ name: `sw${process.pid}`, address: '192.0.2.1' });
    await host.start(['--dataplane', 'iptables']);
    await ok(['pool', 'add', '10.65.0.0/16', '--cooldown', '0']);
    for (const name of ['web', 'app', 'db']) await ok(['profile', 'add', name]);
    const rules = {
      id: 'db',
      inbound_rules: [{ src_tag: 'app', protocol: 'tcp', dst_ports: [3306] }],
      outbound_rules: [],
    };
    await ok(['profile', 'db', 'rule', 'update'], JSON.stringify(rules));
    for (const name of ['web', 'app', 'db']) {
      const container = await Container.create(host, name);
      containers.push(container);
      const { ips } = await container.cniAdd(conflist, { args: `NETCTL_PROFILE=${name}` });
      addresses.push(ips[0]!.address.split('/')[0]!);
    }
    await containers[2]!.serve([3306]);
  });

  after(async () => {
    for (const peer of peers) peer.kill();
    await Promise.all(containers.map((container) => container.close()));
    await host.close();
  });

  async function ok(words: readonly string[], stdin = ''): Promise<string> {
    const { code, stdout, stderr } = await host.netctl(words, { stdin });
    assert.equal(code, 0, stderr);
    return stdout;
  }

  /** Returns what ends it and tells what it has seen. */
  async function peer(container: Container, ...args: string[]): Promise<() => Promise<Seen>> {
    const started = await PeerProcess.start(container, ...args);
    peers.push(started);
    return () => started.end();
  }

  const isOurs = {
    iptables: /^(iptables-save|ip6tables-save|ipset save): .*nctl/m,
    nftables: /^sh -c .*nctl/m,
  };

  for (const [dataplane, backend, gone] of [
    ['nftables', 'nftables', 'iptables'],
    ['iptables', 'iptables-nft', 'nftables'],
    ['nftables', 'nftables', 'iptables'],
  ] as const) {
    test(`to ${dataplane}: no moment open, none closed, no flow lost`, async () => {
      const [web, app, db] = containers as [Container, Container, Container];
      const listen = await peer(db, 'listen', '9999');
      // The host may: one that is heard shows that others would be.
      await host.mustExec([process.execPath, '-e', sendOne, addresses[2]!]);
      const allowed = await peer(app, 'connect', addresses[2]!, '3306');
      const refused = await peer(web, 'connect', addresses[2]!, '3306');
      const knocks = await peer(web, 'knock', addresses[2]!, '9999');
      const held = await app.hold({ address: addresses[2]!, port: 3306 });

      await host.kill('SIGTERM');
      await host.start(['--dataplane', dataplane]);
      // Long enough for a refused connection to be given up.
      await sleep(600);

      const [{ longestGapMs }, made, kept, knocked, heard] = await Promise.all([
        held(),
        allowed(),
        refused(),
        knocks(),
        listen(),
      ]);
      assert(
        knocked.sent > 200 && made.made > 20 && kept.failed > 0,
        JSON.stringify({ knocked, made, kept }),
      );
      assert.deepEqual([heard.received, kept.made, made.failed], [1, 0, 0]);
      assert(longestGapMs < 1000, `longest gap ${longestGapMs} ms`);
      const { policy } = JSON.parse(await ok(['node', 'status', '-o', 'json']));
      assert.deepEqual([policy.backend, policy.inSync], [backend, true]);
      const state = (await readState(host)).join('\n');
      assert.doesNotMatch(state, isOurs[gone]);
      assert.match(state, isOurs[backend === 'nftables' ? 'nftables' : 'iptables']);
    });
  }

  test('all rules flushed by others are back within seconds', async () => {
    const ours = async () => (await readState(host)).filter((line) => line.startsWith('sh -c'));
    const before = await ours();
    assert(before.length > 20);
    await host.mustExec(['nft', 'flush', 'ruleset']);
    await eventually('the tables are back', 5000, async () => difference(before, await ours()) === '');
    await host.logged(/changed by others and is repaired/);
  });
});
