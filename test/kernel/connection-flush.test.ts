/** Connections that a change of policy denies are cut where it asks for that, and no others; with each back end, on the built programs. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { type Conflist, Container } from '../../lab/container.ts';
import { Host } from '../../lab/host.ts';

const conflist: Conflist = { cniVersion: '1.0.0', name: 'edge', plugins: [{ type: 'netctl' }] };

for (const backend of ['nftables', 'iptables']) {
  describe(`cut connections with ${backend}`, () => {
    let host: Host;
    const containers: Container[] = [];
    let addresses: string[] = [];

    before(async () => {
      host = await Host.create({ name: `cf${backend[0]}${process.pid}`, address: '192.0.2.1' });
      await host.start(['--dataplane', backend]);
      await netctl(['pool', 'add', '10.65.0.0/16']);
      for (const name of ['web', 'db']) {
        await netctl(['profile', 'add', name]);
        const container = await Container.create(host, name);
        containers.push(container);
        const { ips } = await container.cniAdd(conflist, { args: `NETCTL_PROFILE=${name}` });
        addresses = [...addresses, ips[0]!.address.split('/')[0]!];
      }
      await containers[1]!.serve([80, 3306]);
    });
    after(async () => {
      await Promise.all(containers.map((container) => container.close()));
      await host.close();
    });

    async function netctl(words: readonly string[], stdin = ''): Promise<string> {
      const { code, stdout, stderr } = await host.netctl(words, { stdin });
      assert.equal(code, 0, stderr + stdout);
      return stdout;
    }

    const rules = (...ports: number[]): string =>
      JSON.stringify({
        id: 'db',
        inbound_rules: ports.map((port) => ({ src_tag: 'web', protocol: 'tcp', dst_ports: [port] })),
        outbound_rules: [{ action: 'allow' }],
      });

    /** How many messages came back on flows to both ports while the change was made and for a while after it. */
    async function during(
      change: () => Promise<unknown>,
    ): Promise<{ echoes: number; longestGapMs: number }[]> {
      await netctl(['profile', 'db', 'rule', 'update'], rules(80, 3306));
      const flows = await Promise.all(
        [80, 3306].map((port) => containers[0]!.hold({ address: addresses[1]!, port })),
      );
      await change();
      await new Promise((wake) => setTimeout(wake, 1500));
      return Promise.all(flows.map((end) => end()));
    }

    const flushed = async (): Promise<number> =>
      JSON.parse((await host.netctl(['node', 'status', '-o', 'json'])).stdout).policy.counters
        .flushedConnections;

    test('without being asked a change leaves what is established', async () => {
      const [kept, denied] = await during(() => netctl(['profile', 'db', 'rule', 'update'], rules(80)));
      assert(kept!.longestGapMs < 1000 && denied!.longestGapMs < 1000, JSON.stringify([kept, denied]));
      assert.equal(await flushed(), 0);
    });

    const changes: Record<string, () => Promise<unknown>> = {
      'rule update': () => netctl(['profile', 'db', 'rule', 'update', '--flush-connections'], rules(80)),
      'rule remove': () =>
        netctl(['profile', 'db', 'rule', 'remove', 'inbound', '--at', '2', '--flush-connections']),
      'rule add': () =>
        netctl('profile db rule add inbound --at 1 --flush-connections deny tcp to ports 3306'.split(' ')),
      apply: () =>
        netctl(
          ['apply', '-f', '-', '--flush-connections'],
          JSON.stringify({
            kind: 'policy',
            name: 'no-sql',
            selector: 'all()',
            inbound_rules: [{ action: 'deny', protocol: 'tcp', dst_ports: [3306] }, { action: 'pass' }],
          }),
        ),
    };
    if (backend === 'nftables')
      test('what came about while there was neither an agent nor our table ends with the start, and nothing else', async () => {
        await netctl(['profile', 'db', 'rule', 'update'], rules(80));
        // So that the kernel goes on to track connections.
        const others =
          'table ip other { chain f { type filter hook forward priority 5; ct state established accept; }; }';
        await host.mustExec(['nft', others]);
        const hold = (port: number) => containers[0]!.hold({ address: addresses[1]!, port });
        const allowed = await hold(80);
        await host.kill('SIGKILL');
        await host.mustExec(['nft', 'delete', 'table', 'ip', 'netctl']);
        const forbidden = await hold(3306);
        await host.start(['--dataplane', backend]);
        await new Promise((wake) => setTimeout(wake, 1500));
        const [kept, cut] = await Promise.all([allowed(), forbidden()]);
        await host.mustExec(['nft', 'delete', 'table', 'ip', 'other']);
        assert(kept.longestGapMs < 1000, `the flow that is allowed waited ${kept.longestGapMs} ms`);
        assert(cut.longestGapMs >= 1000, `the flow that is denied waited ${cut.longestGapMs} ms at most`);
      });

    test('what came about while others had taken our rules away ends with the repair, and nothing else', async () => {
      await netctl(['profile', 'db', 'rule', 'update'], rules(80));
      const hold = (port: number) => containers[0]!.hold({ address: addresses[1]!, port });
      const allowed = await hold(80);
      const away =
        backend === 'iptables'
          ? ['iptables', '-F', 'FORWARD']
          : 'nft flush chain ip netctl forward'.split(' ');
      const pid = String(host.agentPid);
      await host.mustExec(['kill', '-s', 'STOP', pid]);
      let forbidden: typeof allowed;
      try {
        // Only what leads to our rules: without any rule that asks for them, the kernel would not track connections at all.
        await host.mustExec(away);
        forbidden = await hold(3306);
      } finally {
        await host.mustExec(['kill', '-s', 'CONT', pid]);
      }
      await host.logged(/cut connections that a change of policy denies/);
      await new Promise((wake) => setTimeout(wake, 1500));
      const [kept, cut] = await Promise.all([allowed(), forbidden()]);
      assert(kept.longestGapMs < 1000, `the flow that is allowed waited ${kept.longestGapMs} ms`);
      assert(cut.longestGapMs >= 1000, `the flow that is denied waited ${cut.longestGapMs} ms at most`);
    });

    for (const [what, change] of Object.entries(changes)) {
      test(`${what} cuts the flow that is denied now, and only that`, async () => {
        const flushedBefore = await flushed();
        const [kept, denied] = await during(change);
        assert(kept!.longestGapMs < 1000, `the flow that is allowed waited ${kept!.longestGapMs} ms`);
        assert(
          denied!.longestGapMs >= 1000,
          `the flow that is denied waited ${denied!.longestGapMs} ms at most`,
        );
        // Those of the test before that have not run out are denied too.
        assert((await flushed()) > flushedBefore);
      });
    }
  });
}
