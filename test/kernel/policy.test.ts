/** Policy as it is rendered, loaded by the real programs into a real kernel, judged by packets. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import { families } from '../../src/model/ip.ts';
import { profileFromJson } from '../../src/model/profile.ts';
import type { EndpointToHost } from '../../src/policy/compile.ts';
import { PolicyEngine } from '../../src/policy/engine.ts';
import { listChains, listId } from '../../src/policy/names.ts';
import { profileArbitrary } from '../unit/policy/arbitrary.ts';
import { Recorder } from '../unit/policy/recorder.ts';
import { ipsetScript, iptablesScript } from '../unit/policy/scripts.ts';
import { type Peer, PolicyHost } from './policy-hosts.ts';

const PORTS = [22, 80, 3306];

for (const backend of ['nft', 'legacy'] as const) {
  describe(`policy in the kernel, iptables-${backend}`, () => {
    let host: PolicyHost;
    let self: Peer;
    let outside: Peer;
    let far: Peer;
    let web: Peer;
    let app: Peer;
    let db: Peer;
    let lost: Peer;
    /** Wired, but no endpoint that the agent knows of. */
    let stray: Peer;

    before(async () => {
      host = new PolicyHost();
      [outside, far, self, web, app, db, lost, stray] = (await Promise.all([
        host.neighbour('outside', 'uplink', '192.0.2.', '2001:db8::', PORTS),
        host.neighbour('far', 'far', '198.51.100.', '2001:db8:1::', PORTS),
        host.self(PORTS),
        ...['web', 'app', 'db', 'lost', 'stray'].map((name) => host.container(name, PORTS)),
      ])) as [Peer, Peer, Peer, Peer, Peer, Peer, Peer, Peer];
      load('drop');
    });

    after(() => host.close());

    /** The example's profiles, and an endpoint whose profile nobody has written. */
    function load(endpointToHost: EndpointToHost): void {
      const output = new Recorder();
      const engine = new PolicyEngine({ endpointToHost }, output);
      for (const [name, peer] of Object.entries({ web, app, db, lost })) {
        if (name !== 'lost') {
          const json = JSON.parse(readFileSync(`conf/examples/${name}-rule.json`, 'utf8'));
          engine.onProfile(name, profileFromJson(json, name));
        }
        const { addresses } = peer;
        engine.onEndpoint(name, { local: true, hostInterface: `nctl${name}`, addresses, profiles: [name] });
      }
      for (const family of families) {
        const program = family === 4 ? 'iptables' : 'ip6tables';
        host.exec([`${program}-${backend}`, '-F', 'FORWARD']);
        host.exec([`${program}-${backend}`, '-F', 'INPUT']);
      }
      host.exec(['ipset', '-exist', 'restore'], ipsetScript(output));
      host.exec([`iptables-${backend}-restore`, '--noflush'], iptablesScript(output, 4));
      host.exec([`ip6tables-${backend}-restore`, '--noflush'], iptablesScript(output, 6));
    }

    /** All at once, since what is dropped costs a timeout. */
    async function expectConnections(
      rows: readonly [from: Peer, to: Peer, port: number, works: boolean][],
    ): Promise<void> {
      const shown = (from: Peer, to: string, port: number, works: boolean): string =>
        `${from.namespace.replace(/^nct-[0-9a-f]+-/, '')} → [${to}]:${port} ${works ? 'works' : 'is dropped'}`;
      const results = rows.flatMap(([from, to, port, works]) =>
        to.addresses.map(async (address) => ({
          expected: shown(from, address, port, works),
          actual: shown(from, address, port, await from.connect(address, port)),
        })),
      );
      const all = await Promise.all(results);
      assert.deepEqual(
        all.map(({ actual }) => actual),
        all.map(({ expected }) => expected),
      );
    }

    test('web → app → db, and nothing else', async () => {
      await expectConnections([
        [web, app, 22, true],
        [app, db, 3306, true],
        [db, web, 80, true],
        [outside, web, 80, true],
        [web, outside, 22, true],
        [web, db, 3306, false],
        [app, db, 22, false],
        [app, web, 22, false],
        [db, app, 80, false],
        [outside, web, 22, false],
        [outside, app, 80, false],
        [outside, db, 3306, false],
      ]);
    });

    test('an endpoint whose profile is missing neither sends nor receives', async () => {
      await expectConnections([
        [lost, web, 80, false],
        [lost, outside, 80, false],
        [web, lost, 80, false],
        [outside, lost, 80, false],
      ]);
    });

    test('an interface that no endpoint has neither sends nor receives', async () => {
      await expectConnections([
        [stray, web, 80, false],
        [stray, outside, 80, false],
        [stray, self, 80, false],
        [web, stray, 80, false],
        [outside, stray, 80, false],
      ]);
    });

    test('the host reaches its containers', async () => {
      await expectConnections([
        [self, db, 22, true],
        [self, lost, 22, true],
      ]);
    });

    test('what a container may send to its host is endpointToHost, after its outbound rules', async () => {
      await expectConnections([[web, self, 80, false]]);
      load('accept');
      await expectConnections([
        [web, self, 80, true],
        [lost, self, 80, false],
      ]);
      load('return');
      await expectConnections([[web, self, 80, true]]);
      for (const program of ['iptables', 'ip6tables'])
        host.exec([`${program}-${backend}`, '-A', 'INPUT', '-j', 'DROP']);
      await expectConnections([[web, self, 80, false]]);
      load('drop');
    });

    test('traffic between foreign networks is left to the rules of the host', async () => {
      await expectConnections([[outside, far, 22, true]]);
      for (const program of ['iptables', 'ip6tables'])
        host.exec([`${program}-${backend}`, '-A', 'FORWARD', '-j', 'DROP']);
      await expectConnections([
        [outside, far, 22, false],
        [web, app, 22, true],
        [web, outside, 22, true],
      ]);
      load('drop');
    });

    test('a forged source is dropped, also inside an established flow', async () => {
      for (const family of [0, 1] as const) {
        const [appAddress, dbAddress] = [app.addresses[family], db.addresses[family]];
        await app.bind(appAddress, 5000);
        await db.bind(dbAddress, 3306);
        // db may send to app only what app asked for: the answer shows that the flow is established.
        host.exec([
          `${family === 0 ? 'iptables' : 'ip6tables'}-${backend}`,
          '-I',
          listChains.inbound(listId(['db'])),
          '-p',
          'udp',
          '-j',
          'ACCEPT',
        ]);
        await app.send(appAddress, dbAddress, 3306, 'question');
        await until(async () => (await db.received()).includes(`question from ${appAddress}`));
        await db.send(dbAddress, appAddress, 5000, 'answer');
        await until(async () => (await app.received()).includes(`answer from ${dbAddress}`));

        host.exec(
          ['ip', 'address', 'add', appAddress, 'dev', 'lo', ...(family === 0 ? [] : ['nodad'])],
          '',
          web.namespace,
        );
        assert(await web.bind(appAddress, 5000));
        await web.send(appAddress, dbAddress, 3306, 'forged');
        await app.send(appAddress, dbAddress, 3306, 'last');
        await until(async () => (await db.received()).includes(`last from ${appAddress}`));
        await sleep(50);
        assert(!(await db.received()).some((text) => text.startsWith('forged')));
        host.exec(['ip', 'address', 'del', appAddress, 'dev', 'lo'], '', web.namespace);
      }
      load('drop');
    });

    test('whatever the language accepts, the programs accept', () => {
      fc.assert(
        fc.property(profileArbitrary, profileArbitrary, (one, other) => {
          const output = new Recorder();
          const engine = new PolicyEngine({ endpointToHost: 'drop' }, output);
          engine.onProfile('one', one);
          engine.onProfile('other-with-a-rather-long-name', other);
          const profiles = ['one', 'other-with-a-rather-long-name'];
          engine.onEndpoint('a', {
            local: true,
            hostInterface: 'nctla',
            addresses: [...web.addresses],
            profiles,
          });
          host.exec(['ipset', '-exist', 'restore'], ipsetScript(output));
          host.exec([`iptables-${backend}-restore`, '--noflush', '--test'], iptablesScript(output, 4));
          host.exec([`ip6tables-${backend}-restore`, '--noflush', '--test'], iptablesScript(output, 6));
        }),
        { numRuns: 25 },
      );
      const unknownSet = [
        '*filter',
        '-A FORWARD -m set --match-set nctl4-none src -j DROP',
        'COMMIT',
        '',
      ].join('\n');
      assert.throws(() => host.exec([`iptables-${backend}-restore`, '--test'], unknownSet));
    });
  });
}

async function until(condition: () => Promise<boolean>): Promise<void> {
  for (let i = 0; i < 100; i++) {
    if (await condition()) return;
    await sleep(20);
  }
  assert.fail('did not happen within 2 s');
}
