/**
 * What is asked of policy and done to connections holds for macvlan endpoints, too, whose rules are in their containers: why, with a real
 * packet; how often rules applied; connections cut that a change denies.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Container } from '../../lab/container.ts';
import { eventually } from '../../lab/run.ts';
import { enterSandbox } from './linux-contract-sandbox.ts';
import { MacvlanHost, type MacvlanMember } from './wired-host.ts';

enterSandbox(import.meta.url);

interface Why {
  readonly allowed: boolean;
  readonly hosts: readonly { readonly container: string | null; readonly verdict: string }[];
  readonly probe: {
    readonly reason: string | null;
    readonly verdict: string | null;
    readonly agrees: boolean | null;
    readonly steps: readonly { readonly table: string; readonly chain: string }[];
  } | null;
}

describe('questions about endpoints on a wire', () => {
  let one: MacvlanHost;
  let web: MacvlanMember;
  let app: MacvlanMember;
  let db: MacvlanMember;

  before(async () => {
    one = await MacvlanHost.create('mw', ['--resync-seconds', '300']);
    web = await one.join('web', 'web');
    app = await one.join('app', 'app');
    db = await one.join('db', 'db', { hostAccess: 'veth' });
    await Promise.all([web, app, db].map(({ container }) => container.serve([22, 80, 3306])));
  });
  after(() => one.close());

  const netctl = (words: string, stdin = ''): Promise<string> =>
    one.host.mustNetctl(words.split(' '), { stdin });
  const why = async (...words: string[]): Promise<Why> =>
    JSON.parse(await one.host.mustNetctl(['why', ...words, '-o', 'json'])) as Why;

  test('why says what connections show, in both families, and a real packet confirms it', async () => {
    const members = [web, app, db];
    for (const family of ['address', 'address6'] as const)
      for (const from of members)
        for (const to of members) {
          if (from === to) continue;
          const targets = [22, 80, 3306].map((port) => ({ address: to[family], port }));
          const seen = await from.container.connect(targets, 500);
          for (const [at, { port, address }] of targets.entries()) {
            const what = `${from.container.name} → ${to.container.name} ${port}`;
            const { allowed, hosts, probe } = await why(from[family], address, `tcp:${port}`, '--probe');
            assert.equal(allowed, seen[at], what);
            assert.ok(
              hosts.every(({ container }) => container !== null),
              what,
            );
            assert.deepEqual([probe?.reason, probe?.agrees], [null, true], what);
            assert.ok(
              probe?.steps.some(({ table }) => table === 'netctl-eth0'),
              what,
            );
          }
        }
  });

  test('why: the host reaches what has a pair to it, and nothing else on the wire', async () => {
    assert.equal((await why('host', db.address, 'tcp:22')).allowed, true);
    assert.equal((await why('host', web.address, 'tcp:22')).allowed, false);
    assert.match(
      await netctl(`why ${web.address} host tcp:22`),
      /dropped: a macvlan and its own host do not hear each other \(hostAccess: none\) in eth0 on/,
    );
    assert.match(await netctl(`why ${web.address} ${db.address} tcp:22`), /in the container of endpoint/);
  });

  test('rules are counted where they apply', async () => {
    const counted = async (): Promise<number> => {
      const line = (await netctl('profile db rule show')).split('\n').find((text) => /3306/.test(text)) ?? '';
      return Number(/(\d+) packets?/.exec(line)?.[1] ?? Number.NaN);
    };
    const before = await counted();
    const target = { address: db.address, port: 3306 };
    assert.deepEqual(await app.container.connect([target, target, target], 5000), [true, true, true]);
    assert.equal(await counted(), before + 3);
    assert.deepEqual(await web.container.connect([target], 300), [false]);
    assert.equal(await counted(), before + 3);
  });

  /** How many messages came back while the change was made and for a while after it. */
  async function during(
    from: Container,
    to: MacvlanMember,
    change: () => Promise<unknown>,
  ): Promise<{ longestGapMs: number }[]> {
    await netctl('profile db rule update', rules(22, 3306));
    const flows = await Promise.all(
      [22, 3306].flatMap((port) => [to.address, to.address6].map((address) => from.hold({ address, port }))),
    );
    await change();
    await new Promise((wake) => setTimeout(wake, 1500));
    return Promise.all(flows.map((end) => end()));
  }

  const rules = (...ports: number[]): string =>
    JSON.stringify({
      id: 'db',
      inbound_rules: ports.map((port) => ({ src_tag: 'app', protocol: 'tcp', dst_ports: [port] })),
      outbound_rules: [{ action: 'allow' }],
    });
  const flushed = async (): Promise<number> =>
    JSON.parse((await one.host.netctl(['node', 'status', '-o', 'json'])).stdout).policy.counters
      .flushedConnections;

  test('a change that asks for it cuts the connections that it denies, and no others', async () => {
    const before = await flushed();
    const unasked = await during(app.container, db, () => netctl('profile db rule update', rules(22)));
    assert.ok(
      unasked.every(({ longestGapMs }) => longestGapMs < 1000),
      JSON.stringify(unasked),
    );
    assert.equal(await flushed(), before);
    const [kept4, kept6, cut4, cut6] = await during(app.container, db, () =>
      netctl('profile db rule update --flush-connections', rules(22)),
    );
    for (const { longestGapMs } of [kept4!, kept6!])
      assert.ok(longestGapMs < 1000, `a flow that is allowed waited ${longestGapMs} ms`);
    for (const { longestGapMs } of [cut4!, cut6!])
      assert.ok(longestGapMs >= 1000, `a flow that is denied waited ${longestGapMs} ms at most`);
    await eventually('they are counted', 5000, async () => (await flushed()) >= before + 2);
  });
});
