/**
 * `--flush-connections` asked for on another host, while the agent of this one is down: done at its next start, by the built programs, on
 * flows between two containers; without the flag the flows live on.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Host } from '../../lab/host.ts';
import { eventually } from '../../lab/run.ts';
import { EtcdHosts, type Joined } from './etcd-hosts.ts';
import { enterSandbox } from './linux-contract-sandbox.ts';

// The addresses of the hosts are the same in every file that has some.
enterSandbox(import.meta.url);

const KEPT = 80;
const DENIED = 3306;

for (const backend of ['nftables', 'iptables']) {
  describe(`connections that are denied while no agent runs, with ${backend}`, () => {
    let lab: EtcdHosts;
    let here: Host;
    let there: Host;
    let web: Joined;
    let db: Joined;

    before(async () => {
      lab = await EtcdHosts.create(`fd${backend[0]}`, 2, ['--dataplane', backend]);
      [here, there] = lab.hosts as [Host, Host];
      await lab.ok(here, 'pool', 'add', '10.71.0.0/16');
      for (const name of ['web', 'db']) await lab.ok(here, 'profile', 'add', name);
      web = await lab.join(here, 'web', { args: 'NETCTL_PROFILE=web' });
      db = await lab.join(here, 'db', { args: 'NETCTL_PROFILE=db' });
      await db.container.serve([KEPT, DENIED]);
    });
    after(() => lab?.close());

    async function allow(host: Host, ports: readonly number[], ...flags: string[]): Promise<void> {
      const rules = JSON.stringify({
        id: 'db',
        inbound_rules: ports.map((port) => ({ src_tag: 'web', protocol: 'tcp', dst_ports: [port] })),
        outbound_rules: [{ action: 'allow' }],
      });
      const words = ['profile', 'db', 'rule', 'update', ...flags];
      const { code, stderr } = await host.netctl(words, { stdin: rules });
      assert.equal(code, 0, stderr);
    }

    /** Whether a new connection to the port that comes and goes succeeds. */
    const isOpen = async (): Promise<boolean> =>
      (await web.container.connect([{ address: db.address, port: DENIED }], 300))[0]!;

    /** How long each flow was silent at most, while a port was denied, the agent being down, and for a while after it had come back. */
    async function gaps(...flags: string[]): Promise<number[]> {
      await allow(here, [KEPT, DENIED]);
      await eventually('the port is open', 10_000, isOpen);
      const flows = await Promise.all(
        [KEPT, DENIED].map((port) => web.container.hold({ address: db.address, port })),
      );
      await here.kill('SIGKILL');
      await eventually('the other host knows the profile', 10_000, async () =>
        (await there.netctl(['profile', 'db', 'rule', 'show'])).stdout.includes(String(DENIED)),
      );
      await allow(there, [KEPT], ...flags);
      assert(await isOpen(), 'nobody was here to close it');
      await lab.start(here);
      await eventually('the port is closed', 20_000, async () => !(await isOpen()));
      await sleep(1500);
      const reports = await Promise.all(flows.map((end) => end()));
      return reports.map(({ longestGapMs }) => longestGapMs);
    }

    const flushed = async (): Promise<number> =>
      (await lab.json<{ policy: { counters: { flushedConnections: number } } }>(here, 'node', 'status'))
        .policy.counters.flushedConnections;

    test('without being asked for, they live on', async () => {
      const [kept, denied] = await gaps();
      assert(kept! < 1000 && denied! < 1000, `silent for ${kept} and ${denied} ms`);
      assert.equal(await flushed(), 0);
    });

    test('asked for, they are cut when the agent starts, and no others; the next start cuts nothing', async () => {
      const [kept, denied] = await gaps('--flush-connections');
      assert(kept! < 1000, `the flow that is allowed was silent for ${kept} ms`);
      assert(denied! >= 1000, `the flow that is denied was silent for ${denied} ms at most`);
      assert((await flushed()) > 0);
      await here.restart();
      await lab.healthy(here);
      assert.equal(await flushed(), 0);
    });
  });
}
