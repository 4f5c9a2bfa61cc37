/** Policy as it is rendered, loaded by the real programs into a real kernel, judged by packets. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import { addressSetFromJson } from '../../src/model/address-set.ts';
import { hostEndpointFromJson } from '../../src/model/host-endpoint.ts';
import { type Cidr, families } from '../../src/model/ip.ts';
import { policyFromJson } from '../../src/model/policy.ts';
import { profileFromJson } from '../../src/model/profile.ts';
import { parseProtocolPort } from '../../src/model/protocol-port.ts';
import type { EndpointToHost } from '../../src/policy/compile-list.ts';
import { PolicyEngine } from '../../src/policy/engine.ts';
import { Explainer } from '../../src/policy/explain.ts';
import { listChains, listId } from '../../src/policy/names.ts';
import { netsArbitrary, policyArbitrary, profileArbitrary } from '../unit/policy/arbitrary.ts';
import { Recorder } from '../unit/policy/recorder.ts';
import { type Peer, PolicyHost } from './policy-hosts.ts';
import { policyLoaders } from './policy-loaders.ts';

const PORTS = [22, 80, 3306];

interface More {
  readonly policies?: Readonly<Record<string, object>>;
  readonly addressSets?: Readonly<Record<string, readonly string[]>>;
  readonly extraSources?: Readonly<Record<string, readonly Cidr[]>>;
  readonly hosts?: Readonly<Record<string, object>>;
  /** Prefixes of pools, true for those with NAT. */
  readonly pools?: Readonly<Record<string, boolean>>;
}

for (const loader of policyLoaders) {
  describe(`policy in the kernel, ${loader.name}`, () => {
    /** Variant of the programs that others on the host use. */
    const backend = loader.variant;
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

    /** What the interpreter says of the policy that is loaded. */
    let explainer: Explainer;

    /** The example's profiles, and an endpoint whose profile nobody has written. */
    function load(endpointToHost: EndpointToHost, more: More = {}): void {
      const output = new Recorder();
      const ssh = [parseProtocolPort('tcp:22', 'failsafe')];
      const engine = new PolicyEngine({ endpointToHost, failsafe: { inbound: ssh, outbound: ssh } }, output);
      for (const [name, peer] of Object.entries({ web, app, db, lost })) {
        if (name !== 'lost') {
          const json = JSON.parse(readFileSync(`conf/examples/${name}-rule.json`, 'utf8'));
          engine.onProfile(name, profileFromJson(json, name));
        }
        const { addresses } = peer;
        const extraSources = more.extraSources?.[name] ?? [];
        const labels = { role: name, ...(name === 'web' ? { front: 'yes' } : {}) };
        const endpoint = { local: true, hostInterface: `nctl${name}`, addresses, profiles: [name] };
        engine.onEndpoint(name, { ...endpoint, labels, extraSources });
      }
      for (const [name, policy] of Object.entries(more.policies ?? {}))
        engine.onPolicy(name, policyFromJson(policy));
      for (const [name, nets] of Object.entries(more.addressSets ?? {}))
        engine.onAddressSet(name, addressSetFromJson({ nets }));
      for (const [name, json] of Object.entries(more.hosts ?? {}))
        engine.onHostEndpoint(name, hostEndpointFromJson(json));
      for (const [cidr, natOutgoing] of Object.entries(more.pools ?? {}))
        engine.onPool(cidr, { cidr: cidr as Cidr, natOutgoing });
      for (const family of families) {
        const program = family === 4 ? 'iptables' : 'ip6tables';
        if (more.pools) host.exec([`${program}-${backend}`, '-t', 'nat', '-F']);
        host.exec([`${program}-${backend}`, '-F', 'FORWARD']);
        host.exec([`${program}-${backend}`, '-F', 'INPUT']);
        host.exec([`${program}-${backend}`, '-F', 'OUTPUT']);
      }
      explainer = explainerOf(output);
      loader.load(host, output);
    }

    /** All at once, since what is dropped costs a timeout. */
    async function expectConnections(
      rows: readonly [from: Peer, to: Peer, port: number, works: boolean][],
    ): Promise<void> {
      const shown = (from: Peer, to: string, port: number, works: boolean): string =>
        `${from.namespace.replace(/^nct-[0-9a-f]+-/, '')} → [${to}]:${port} ${works ? 'works' : 'is dropped'}`;
      for (const [from, to, port, works] of rows) expectExplained(from, to, port, works);
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

    /** The interpreter says the same, where netctl decides at all. */
    function expectExplained(from: Peer, to: Peer, port: number, works: boolean): void {
      const interfaceOf = (peer: Peer): string => {
        if (peer === self) return '';
        const name = peer.namespace.replace(/^nct-[0-9a-f]+-/, '');
        return peer === outside ? 'uplink' : peer === far ? 'far' : `nctl${name}`;
      };
      for (const family of [0, 1] as const) {
        const { verdict } = explainer.judge(from === self ? 'OUTPUT' : to === self ? 'INPUT' : 'FORWARD', {
          source: from.addresses[family],
          destination: to.addresses[family],
          inInterface: interfaceOf(from),
          outInterface: interfaceOf(to),
          protocol: 6,
          sourcePort: 50000,
          destinationPort: port,
          icmp: null,
        });
        if (verdict !== 'left') assert.equal(verdict, works ? 'accept' : 'drop');
      }
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
      await expectConnections([[outside, far, 22, false]]);
      for (const to of [...app.addresses, ...outside.addresses])
        assert.equal(await web.connect(to, 22), loader.acceptIsFinal, to);
      load('drop');
    });

    test('packet marks of others are what they were', async () => {
      const mangle = [`iptables-${backend}`, '-t', 'mangle'];
      host.exec([...mangle, '-A', 'PREROUTING', '-j', 'MARK', '--set-mark', '0x1234']);
      host.exec([...mangle, '-A', 'POSTROUTING', '-s', web.addresses[0], '-m', 'mark', '--mark', '0x1234']);
      host.exec([
        ...mangle,
        '-A',
        'POSTROUTING',
        '-s',
        web.addresses[0],
        '-m',
        'mark',
        '!',
        '--mark',
        '0x1234',
      ]);
      assert.equal(await web.connect(app.addresses[0], 22), true);
      assert.equal(await web.connect(app.addresses[0], 23), false);
      const saved = host.exec([`iptables-${backend}-save`, '-c', '-t', 'mangle']);
      const [same, other] = [...saved.matchAll(/^\[(\d+):\d+\] -A POSTROUTING/gm)].map(([, n]) => Number(n));
      assert(same! > 2 && other === 0, saved);
      host.exec([...mangle, '-F']);
    });

    test('a forged source is dropped, also inside an established flow', async () => {
      for (const family of [0, 1] as const) {
        const [appAddress, dbAddress] = [app.addresses[family], db.addresses[family]];
        await app.bind(appAddress, 5000);
        await db.bind(dbAddress, 3306);
        // db may send to app only what app asked for: the answer shows that the flow is established.
        loader.acceptUdp(host, family === 0 ? 4 : 6, listChains.inbound(listId(['db'])));
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

    test('a policy decides before the profiles, passes to them, or drops', async () => {
      load('drop', {
        policies: {
          // Second: what nobody has decided.
          later: { order: 20, selector: 'has(role)', inbound_rules: [{ action: 'pass', protocol: 'tcp' }] },
          first: {
            order: 10,
            selector: 'role in {"db", "app"}',
            inbound_rules: [
              { action: 'deny', protocol: 'tcp', dst_ports: [3306], src_selector: 'role == "app"' },
              { action: 'allow', protocol: 'tcp', src_selector: 'has(front) && !has(back)', dst_ports: [22] },
            ],
          },
          out: {
            selector: 'role == "app"',
            outbound_rules: [{ action: 'allow', protocol: 'tcp', '!dst_selector': 'role == "web"' }],
          },
        },
      });
      await expectConnections([
        [app, db, 3306, false],
        [web, db, 22, true],
        [web, db, 80, false],
        [web, app, 22, true],
        [outside, web, 80, true],
        [outside, web, 22, false],
        [app, outside, 80, true],
        [app, web, 80, false],
        [web, lost, 80, false],
      ]);
      load('accept', { policies: { out: { selector: 'role == "app"', outbound_rules: [] } } });
      await expectConnections([
        [app, self, 80, false],
        [app, db, 3306, false],
        [web, self, 80, true],
      ]);
      load('drop');
    });

    test('an address set stands for its prefixes; one that is missing denies', async () => {
      const rules = [
        { action: 'deny', src_set: 'blocked' },
        { action: 'pass', '!dst_set': 'nowhere' },
      ];
      const policies = { base: { selector: 'role == "web"', inbound_rules: rules } };
      load('drop', {
        policies,
        addressSets: {
          blocked: ['192.0.2.0/24', '2001:db8::/64', '10.255.0.0/16'],
          nowhere: ['203.0.113.0/24'],
        },
      });
      await expectConnections([
        [outside, web, 80, false],
        [far, web, 80, true],
        [db, web, 80, true],
      ]);
      load('drop', { policies, addressSets: { blocked: ['0.0.0.0/0', '::/0'], nowhere: [] } });
      await expectConnections([[far, web, 80, false]]);
      load('drop', { policies, addressSets: { blocked: [] } });
      await expectConnections([
        [far, web, 80, false],
        [web, app, 22, true],
      ]);
      load('drop');
    });

    test('an extra source may be answered from, though no connection was seen', async () => {
      const virtual = '203.0.113.7';
      const table = `iptables-${backend}`;
      host.exec(['ip', 'address', 'add', virtual, 'dev', 'lo'], '', web.namespace);
      host.exec(['ip', 'route', 'add', virtual, 'dev', 'nctlweb']);
      // As behind a director: the question does not come by this host's connection tracking.
      host.exec([table, '-t', 'raw', '-A', 'PREROUTING', '-d', virtual, '-j', 'CT', '--notrack']);
      assert.equal(await outside.connect(virtual, 80), false);
      load('drop', { extraSources: { web: ['203.0.113.0/29' as Cidr] } });
      assert.equal(await outside.connect(virtual, 80), true);
      assert.equal(await outside.connect(virtual, 22), false);
      await expectConnections([
        [outside, web, 80, true],
        [web, app, 22, true],
      ]);
      load('drop', { extraSources: { app: ['203.0.113.0/29' as Cidr] } });
      assert.equal(await outside.connect(virtual, 80), false);
      host.exec([table, '-t', 'raw', '-F']);
      load('drop');
    });

    test('a host endpoint: policy for the host itself, but for failsafe ports', async () => {
      const hosts = {
        uplink: { interface: 'uplink', labels: { edge: 'yes' }, profiles: ['web'] },
      };
      load('accept', { hosts });
      await expectConnections([
        [outside, self, 80, true],
        [outside, self, 3306, false],
        [outside, self, 22, true],
        [far, self, 3306, true],
        [self, outside, 80, true],
        [web, self, 3306, true],
        [self, db, 22, true],
        [outside, web, 80, true],
      ]);
      const policies = {
        edge: {
          selector: 'has(edge)',
          inbound_rules: [],
          outbound_rules: [{ action: 'pass', dst_set: 'some' }],
        },
      };
      const addressSets = { some: ['192.0.2.0/24'] };
      load('accept', { hosts: { ...hosts, rest: { interface: '*', profiles: [] } }, policies, addressSets });
      const [v4, v6] = outside.addresses;
      const [reaches4, reaches6, reachesFar] = await Promise.all([
        self.connect(v4, 80),
        self.connect(v6, 80),
        self.connect(far.addresses[0], 80),
        expectConnections([
          [outside, self, 80, false],
          [outside, self, 22, true],
          [far, self, 3306, false],
          [far, self, 22, true],
          [self, far, 22, true],
          [web, self, 3306, true],
        ]),
      ]);
      assert.deepEqual([reaches4, reaches6, reachesFar], [true, false, false]);
      load('drop');
      await expectConnections([[outside, self, 3306, true]]);
    });

    test('NAT outgoing: what leaves the pools has the address of the host', async () => {
      const seenBy = async (to: Peer): Promise<string[]> => {
        const text = `${Math.random()}`;
        for (const [family, address] of to.addresses.entries())
          await web.send(web.addresses[family]!, address, 6000, text);
        await until(async () => (await to.received()).filter((line) => line.startsWith(text)).length === 2);
        const lines = (await to.received()).filter((line) => line.startsWith(text));
        return lines.map((line) => line.slice(`${text} from `.length)).sort();
      };
      for (const peer of [outside, far]) for (const address of peer.addresses) await peer.bind(address, 6000);
      for (const address of web.addresses) await web.bind(address, 6001);
      const pools = {
        '10.0.0.0/16': true,
        'fd00::/64': true,
        '198.51.100.0/24': false,
        '2001:db8:1::/64': false,
      };
      load('drop', { pools });
      assert.deepEqual(await seenBy(outside), ['192.0.2.1', '2001:db8::1']);
      assert.deepEqual(await seenBy(far), [...web.addresses].sort());
      await expectConnections([
        [web, outside, 22, true],
        [web, app, 22, true],
      ]);
      load('drop', { pools: { '10.0.0.0/16': false } });
    });

    test('whatever the language accepts, the programs accept', () => {
      fc.assert(
        fc.property(
          profileArbitrary,
          profileArbitrary,
          policyArbitrary,
          netsArbitrary,
          (one, other, policy, nets) => {
            const output = new Recorder();
            const engine = new PolicyEngine({ endpointToHost: 'drop' }, output);
            engine.onProfile('one', one);
            engine.onProfile('other-with-a-rather-long-name', other);
            engine.onPolicy('base', { ...policy, selector: { kind: 'all' } });
            engine.onAddressSet('office', nets);
            const profiles = ['one', 'other-with-a-rather-long-name'];
            engine.onEndpoint('a', {
              local: true,
              hostInterface: 'nctla',
              addresses: [...web.addresses],
              profiles,
            });
            loader.check(host, output);
          },
        ),
        { numRuns: 25 },
      );
      const naming = new Recorder();
      const conditions = [
        { kind: 'set', set: 'nctl4-none', side: 'src', withInterface: false, negated: false } as const,
      ];
      const rules = [{ conditions, verdict: { kind: 'drop' }, comment: 'names an unknown set' } as const];
      naming.chains.set('4 nctl-FORWARD', { name: 'nctl-FORWARD', rules });
      assert.throws(() => loader.check(host, naming));
    });
  });
}

function explainerOf(output: Recorder): Explainer {
  const explainer = new Explainer();
  for (const [name, spec] of output.sets) {
    explainer.set(name, spec);
    for (const member of spec.members) explainer.member(name, member, true);
  }
  for (const [key, chain] of output.chains) explainer.chain(key.startsWith('4 ') ? 4 : 6, chain.name, chain);
  return explainer;
}

async function until(condition: () => Promise<boolean>): Promise<void> {
  for (let i = 0; i < 100; i++) {
    if (await condition()) return;
    await sleep(20);
  }
  assert.fail('did not happen within 2 s');
}
