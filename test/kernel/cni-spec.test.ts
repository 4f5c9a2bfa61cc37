/**
 * The CNI specification (0.1.0 to 1.1.0) rule by rule, by calls of the real executable against a real agent. Numbers are those of our
 * list of its MUSTs and SHOULDs; the last test counts them. What needs other plugins is in cni-chain.test.ts, what the executable
 * decides alone also in shim.test.ts.
 */

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { after, afterEach, before, describe, test } from 'node:test';
import { Container } from '../../lab/container.ts';
import { Host } from '../../lab/host.ts';
import { readState } from '../../lab/kernel-state.ts';
import { eventually, type Result } from '../../lab/run.ts';
import { EtcdHosts } from './etcd-hosts.ts';
import { enterSandbox } from './linux-contract-sandbox.ts';

// The addresses of the hosts are the same in every file that has some.
enterSandbox(import.meta.url);

type Env = Record<string, string>;
type Config = Record<string, unknown>;

interface Answer extends Result {
  // biome-ignore lint/suspicious/noExplicitAny: results and errors of seven versions
  readonly json: any;
}

const versions = ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'];
const seen = new Set<number>();

/** A test of the rules with these numbers. */
function rule(numbers: number[], title: string, body: () => Promise<void>): void {
  for (const number of numbers) seen.add(number);
  test(`${numbers.join(', ')}: ${title}`, body);
}

/** One call, exactly as given. */
async function callOn(host: Host, env: Env, config: Config | string, program = 'netctl'): Promise<Answer> {
  const stdin = typeof config === 'string' ? config : JSON.stringify({ socket: host.cniSocket, ...config });
  const clean = Object.entries(env).map(([key, value]) => `${key}=${value}`);
  const result = await host.exec(['env', '-i', ...clean, host.plugin(program)], { stdin });
  return { ...result, json: result.stdout === '' ? null : JSON.parse(result.stdout) };
}

describe('the CNI specification', () => {
  let host: Host;
  const containers: Container[] = [];
  const call = (env: Env, config: Config | string, program?: string): Promise<Answer> =>
    callOn(host, env, config, program);
  const edge = (cniVersion = '1.0.0', more: Config = {}): Config => ({ cniVersion, name: 'edge', ...more });
  const envOf = (command: string, container: Container, more: Env = {}): Env => ({
    CNI_COMMAND: command,
    CNI_CONTAINERID: container.id,
    CNI_NETNS: `/run/netns/${container.netns}`,
    CNI_IFNAME: 'eth0',
    CNI_PATH: `${host.pluginDirectory}:/usr/lib/cni`,
    ...more,
  });
  const create = async (name: string): Promise<Container> => {
    const container = await Container.create(host, name);
    containers.push(container);
    return container;
  };
  const ok = async (env: Env, config: Config): Promise<Answer> => {
    const answer = await call(env, config);
    assert.equal(answer.code, 0, answer.stdout + answer.stderr);
    return answer;
  };
  const fails = async (env: Env, config: Config | string, code: number, msg: RegExp): Promise<Answer> => {
    const answer = await call(env, config);
    assert.notEqual(answer.code, 0);
    assert.deepEqual([answer.json.code, msg.test(answer.json.msg)], [code, true], answer.stdout);
    return answer;
  };
  const endpoints = async (): Promise<{ containerId: string; network: string }[]> =>
    JSON.parse(await host.mustNetctl(['endpoint', 'show', '-o', 'json']));

  before(async () => {
    host = await Host.create({ name: `sp${process.pid}`, address: '192.0.2.1' });
    await host.start(['--dataplane', 'iptables']);
    await host.mustNetctl(['pool', 'add', '10.65.0.0/16', '--cooldown', '0']);
    await host.mustNetctl(['pool', 'add', 'fd00:65::/64', '--name', 'six', '--cooldown', '0']);
    const wire = ['10.66.0.0/24', '--name', 'wire', '--kind', 'macvlan', '--gateway', '10.66.0.1'];
    await host.mustNetctl(['pool', 'add', ...wire, '--cooldown', '0']);
  });
  afterEach(async () => {
    for (const container of containers.splice(0)) {
      for (const name of ['edge', 'other'])
        await call({ ...envOf('DEL', container), CNI_NETNS: '' }, { cniVersion: '1.0.0', name });
      await container.close();
    }
    assert.deepEqual(await endpoints(), []);
  });
  after(() => host.close());

  // The process: environment, input, output.

  rule([1, 20], 'JSON alone on standard output, exit code 0; the interface is there', async () => {
    const a = await create('a');
    const { stderr, json } = await ok(envOf('ADD', a), edge());
    assert.equal(stderr, '');
    assert.match(await a.mustExec(['ip', '-o', 'link', 'show', 'eth0']), /state UP/);
    assert.equal(json.interfaces[1].name, 'eth0');
  });

  rule([2], 'only the six commands', async () => {
    const a = await create('a');
    for (const command of ['ADDD', 'add', 'NOP'])
      await fails(envOf(command, a), edge(), 4, new RegExp(`^unknown CNI_COMMAND: ${command}$`));
  });

  rule([3], 'the form of CNI_CONTAINERID; long ones are no trouble', async () => {
    const a = await create('a');
    for (const id of ['-a', 'a/b', 'a b', '.a', 'ä'])
      await fails(envOf('ADD', a, { CNI_CONTAINERID: id }), edge(), 4, /^invalid characters in containerID$/);
    const long = { CNI_CONTAINERID: 'f'.repeat(1024) };
    await ok(envOf('ADD', a, long), edge());
    await ok(envOf('DEL', a, long), edge());
  });

  rule([4], 'the form of CNI_IFNAME', async () => {
    const a = await create('a');
    const bad: [string, RegExp][] = [
      ['a'.repeat(16), /^interface name is too long$/],
      ['.', /^interface name is \. or \.\.$/],
      ['..', /^interface name is \. or \.\.$/],
      ['a/b', /contains \/ or : or whitespace/],
      ['a:b', /contains \/ or : or whitespace/],
      ['a b', /contains \/ or : or whitespace/],
    ];
    for (const [name, msg] of bad) await fails(envOf('ADD', a, { CNI_IFNAME: name }), edge(), 4, msg);
  });

  rule([5], 'DEL with CNI_NETNS unset, empty, gone, or a plain file', async () => {
    const plain = `${host.stateDirectory}/plain`;
    writeFileSync(plain, '');
    const { CNI_NETNS: _, ...unset } = envOf('DEL', await create('n'));
    for (const netns of [undefined, '', '/run/netns/gone', 'relative', plain]) {
      const a = await create('a');
      await ok(envOf('ADD', a), edge());
      const env = { ...unset, CNI_CONTAINERID: a.id, ...(netns === undefined ? {} : { CNI_NETNS: netns }) };
      await ok(env, edge());
      assert.deepEqual(await endpoints(), []);
    }
  });

  rule([5], 'CNI_NETNS is a path that means the same to everybody', async () => {
    const a = await create('a');
    const relative = { CNI_NETNS: `../../../../../../run/netns/${a.netns}` };
    await fails(envOf('ADD', a, relative), edge(), 4, /^CNI_NETNS must be an absolute path$/);
  });

  rule([27], 'DEL with a configuration that no ADD would take any more', async () => {
    const a = await create('a');
    await ok(envOf('ADD', a), edge());
    await ok(envOf('DEL', a), edge('1.0.0', { mtu: '1500', mode: 'l2', runtimeConfig: { ips: 'x' } }));
    assert.deepEqual(await endpoints(), []);
  });

  rule([6, 8], 'what is missing is named, all at once', async () => {
    const rows: [Env, string][] = [
      [{ CNI_COMMAND: 'ADD' }, 'CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH'],
      [{ CNI_COMMAND: 'CHECK' }, 'CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH'],
      [{ CNI_COMMAND: 'DEL' }, 'CNI_CONTAINERID,CNI_IFNAME,CNI_PATH'],
      [{ CNI_COMMAND: 'GC' }, 'CNI_PATH'],
      [{ CNI_COMMAND: 'STATUS' }, 'CNI_PATH'],
    ];
    for (const [env, names] of rows)
      await fails(env, edge('1.1.0'), 4, new RegExp(`^required env variables \\[${names}\\] missing$`));
  });

  rule([7, 48], 'CNI_ARGS: empty, in any order, with what we do not know, with "=" in a value', async () => {
    for (const args of [
      '',
      'X=1;IP=10.65.0.77',
      'IP=10.65.0.77/16;CONSUL={"a":"b=c"};IgnoreUnknown=true',
      ';;',
    ]) {
      const a = await create('a');
      const { json } = await ok(envOf('ADD', a, { CNI_ARGS: args }), edge());
      if (args.includes('IP=')) assert.equal(json.ips[0].address, '10.65.0.77/32');
      await ok(envOf('DEL', a), edge());
    }
  });

  rule([9], 'VERSION works with nothing else valid, and says again what it was asked', async () => {
    const env = { CNI_COMMAND: 'VERSION', CNI_NETNS: 'dummy', CNI_IFNAME: 'dummy', CNI_PATH: 'dummy' };
    for (const input of ['{"cniVersion":"0.4.0"}', '', 'nonsense']) {
      const { code, json } = await call(env, input);
      assert.equal(code, 0);
      assert.deepEqual(json, {
        cniVersion: input.startsWith('{') ? '0.4.0' : '1.1.0',
        supportedVersions: versions,
      });
    }
  });

  rule([10], 'without CNI_COMMAND: the versions, on standard error, and success', async () => {
    const { code, stdout, stderr } = await call({}, '');
    assert.deepEqual([code, stdout], [0, '']);
    assert.match(stderr, /CNI protocol versions supported: 0\.1\.0, .*1\.1\.0/);
  });

  rule([11, 12], 'order of the checks: environment, id, interface, JSON, name, version', async () => {
    const a = await create('a');
    const bad = { CNI_CONTAINERID: '-', CNI_IFNAME: '/' };
    await fails({ ...envOf('ADD', a, bad), CNI_PATH: '' }, '{', 4, /missing$/);
    await fails(envOf('ADD', a, bad), '{', 4, /containerID/);
    await fails(envOf('ADD', a, { CNI_IFNAME: '/' }), '{', 4, /^interface name/);
    await fails(envOf('ADD', a), '{', 6, /^error unmarshall network config: /);
    await fails(envOf('ADD', a), '{"cniVersion":"9"}', 7, /^missing network name$/);
    const named = await fails(
      envOf('ADD', a),
      '{"cniVersion":"9","name":"-x"}',
      7,
      /^invalid characters found/,
    );
    assert.equal(named.json.details, '-x');
  });

  rule([13], 'a version must be one of ours, exactly', async () => {
    const a = await create('a');
    for (const version of ['1.1', '9.9.9', 'v1.0.0', '1.0.0 ']) {
      const { json } = await fails(envOf('ADD', a), edge(version), 1, /^incompatible CNI versions$/);
      assert.match(json.details, /plugin supports \["0\.1\.0" .*"1\.1\.0"\]$/);
    }
    const { json } = await ok(envOf('ADD', a), { name: 'edge' });
    assert.match(json.ip4.ip, /^10\.65\./);
  });

  rule([14], 'commands that a version does not have', async () => {
    const a = await create('a');
    await fails(envOf('CHECK', a), edge('0.3.1'), 1, /^config version does not allow CHECK$/);
    for (const command of ['GC', 'STATUS'])
      await fails(
        envOf(command, a),
        edge('1.0.0'),
        1,
        new RegExp(`^config version does not allow ${command}$`),
      );
  });

  rule([15, 26], 'the result in the words of each version', async () => {
    for (const cniVersion of versions) {
      const a = await create('a');
      const { json } = await ok(envOf('ADD', a), edge(cniVersion));
      assert.equal(json.cniVersion, cniVersion);
      const shown = JSON.parse(await host.mustNetctl(['endpoint', 'show', '-o', 'json']))[0];
      const [four, six] = shown.addresses as [string, string];
      const name = /nctl\w{11}/.exec(await host.mustExec(['ip', '-o', 'link']))![0];
      const gateway = { 4: '169.254.1.1', 6: 'fe80::ecee:eeff:feee:eeee' };
      const everything = { 4: '0.0.0.0/0', 6: '::/0' };
      if (cniVersion < '0.3') {
        const one = (ip: string, family: 4 | 6) => ({
          ip,
          gateway: gateway[family],
          routes: [{ dst: everything[family], gw: gateway[family] }],
        });
        assert.deepEqual(json, { cniVersion, ip4: one(`${four}/32`, 4), ip6: one(`${six}/128`, 6), dns: {} });
      } else {
        const mtu = cniVersion === '1.1.0' ? { mtu: 1500 } : {};
        const ip = (address: string, family: 4 | 6) => ({
          ...(cniVersion < '1' ? { version: String(family) } : {}),
          address,
          gateway: gateway[family],
          interface: 1,
        });
        const mac = JSON.parse(await a.mustExec(['ip', '-j', 'link', 'show', 'eth0']))[0].address as string;
        assert.deepEqual(json, {
          cniVersion,
          interfaces: [
            { name, mac: 'ee:ee:ee:ee:ee:ee', ...mtu },
            { name: 'eth0', mac, sandbox: `/run/netns/${a.netns}`, ...mtu },
          ],
          ips: [ip(`${four}/32`, 4), ip(`${six}/128`, 6)],
          routes: [4, 6].map((family) => ({ dst: everything[family as 4], gw: gateway[family as 4] })),
          dns: {},
        });
      }
      await ok(envOf('DEL', a), edge(cniVersion));
    }
  });

  rule([16], 'different containers at once, and one container by several callers', async () => {
    const many = await Promise.all(Array.from({ length: 8 }, (_, i) => create(`p${i}`)));
    const answers = await Promise.all(many.map((container) => ok(envOf('ADD', container), edge())));
    assert.equal(new Set(answers.map(({ json }) => json.ips[0].address)).size, 8);
    const same = await Promise.all(Array.from({ length: 4 }, () => ok(envOf('ADD', many[0]!), edge())));
    for (const { json } of same) assert.deepEqual(json, answers[0]!.json);
    await Promise.all(many.flatMap((container) => [1, 2].map(() => ok(envOf('DEL', container), edge()))));
  });

  rule([17], 'never the host: CNI_NETNS must not be where the plugin is', async () => {
    const a = await create('a');
    await fails(envOf('ADD', a, { CNI_NETNS: '/proc/self/ns/net' }), edge(), 8, /should not be the same/);
  });

  rule([17], 'never the host, wherever the plugin is, and whatever it is told to override', async () => {
    const a = await create('a');
    const own = { CNI_NETNS: `/run/netns/nct-${host.name}`, CNI_IFNAME: 'new0' };
    const wires = [{}, { mode: 'macvlan', parent: 'eth0', pools: ['wire'] }];
    for (const more of wires) {
      const override = { ...own, CNI_NETNS_OVERRIDE: '1' };
      await fails(envOf('ADD', a, override), edge('1.0.0', more), 8, /namespace of the host itself$/);
      const env = Object.entries(envOf('ADD', a, own)).map(([key, value]) => `${key}=${value}`);
      const stdin = JSON.stringify({ socket: host.cniSocket, ...edge('1.0.0', more) });
      const { code, stdout } = await a.exec(['env', '-i', ...env, host.plugin('netctl')], { stdin });
      assert.deepEqual([code, JSON.parse(stdout).code], [1, 8], stdout);
    }
    assert.doesNotMatch(await host.mustExec(['ip', '-o', 'link']), /new0|nctl/);
  });

  rule(
    [5],
    'a path of the plugin’s own: routed it works; what only the namespace tells of is refused',
    async () => {
      const a = await create('a');
      const by = ['sh', '-c', `exec 9</run/netns/${a.netns}; exec "$@"`, 'sh', host.plugin('netctl')];
      const add = async (config: Config): Promise<Answer> => {
        const env = Object.entries(envOf('ADD', a, { CNI_NETNS: '/proc/self/fd/9' }));
        const stdin = JSON.stringify({ socket: host.cniSocket, ...config });
        const clean = env.map(([key, value]) => `${key}=${value}`);
        const result = await host.exec(['env', '-i', ...clean, ...by], { stdin });
        return { ...result, json: JSON.parse(result.stdout) };
      };
      const { code, json } = await add(edge());
      assert.equal(code, 0, JSON.stringify(json));
      await ok(envOf('CHECK', a), edge('1.0.0', { prevResult: json }));
      await ok(envOf('DEL', a), edge());
      const refused = await add(edge('1.0.0', { mode: 'macvlan', parent: 'eth0', pools: ['wire'] }));
      assert.deepEqual([refused.code, refused.json.code], [1, 8], refused.stdout);
      assert.match(refused.json.msg, /^CNI_NETNS \/proc\/self\/fd\/9 is not .* where netctld looks/);
      assert.equal((await a.exec(['ip', 'link', 'show', 'eth0'])).code, 1);
    },
  );

  rule([18], 'keys that nobody knows, `capabilities` among them', async () => {
    const a = await create('a');
    const more = {
      capabilities: { portMappings: true },
      'x.y/z': [1],
      'cni.dev/future': {},
      args: { other: 1 },
    };
    await ok(envOf('ADD', a), edge('1.0.0', more));
  });

  rule([19], 'at most 1 MiB of configuration', async () => {
    const a = await create('a');
    await fails(
      envOf('ADD', a),
      edge('1.0.0', { padding: 'x'.repeat(1 << 20) }),
      5,
      /larger than 1048576 bytes/,
    );
  });

  // ADD.

  rule([20], 'an MTU that IPv6 does not go with, down to the least of IPv4', async () => {
    const a = await create('a');
    for (const mtu of [1279, 68]) {
      const config = edge('1.1.0', {
        mtu,
        pools: ['default'],
        runtimeConfig: { bandwidth: { egressRate: 1e6 } },
      });
      const { json } = await ok(envOf('ADD', a), config);
      assert.equal(json.interfaces[1].mtu, mtu);
      assert.match(
        await a.mustExec(['ip', '-o', 'link', 'show', 'eth0']),
        new RegExp(` mtu ${mtu} .*state UP`),
      );
      await ok(envOf('CHECK', a), { ...config, prevResult: json });
      await ok(envOf('DEL', a), config);
    }
  });

  rule([21], 'an interface of that name in the container is an error, and nothing changes', async () => {
    const a = await create('a');
    await a.mustExec(['ip', 'link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', 'x0']);
    await eventually('the rules that earlier containers needed are gone', 20_000, async () =>
      /-A nctl-from .*unknown endpoint/.test(await host.mustExec(['iptables-save'])),
    );
    const before = new Set(await readState(host));
    await fails(envOf('ADD', a), edge(), 111, /already has an interface eth0/);
    assert.deepEqual(await endpoints(), []);
    await eventually('nothing more on the host', 20_000, async () =>
      (await readState(host)).every((line) => before.has(line)),
    );
  });

  rule([22], 'a result of the plugin before is in ours', async () => {
    const a = await create('a');
    const prevResult = {
      cniVersion: '1.0.0',
      interfaces: [{ name: 'lo', mac: '00:00:00:00:00:00', sandbox: `/run/netns/${a.netns}` }],
      ips: [{ address: '127.0.0.1/8', interface: 0 }],
      'x.y/z': 'kept',
    };
    const { json } = await ok(envOf('ADD', a), edge('1.0.0', { prevResult }));
    assert.deepEqual(json.interfaces[0], prevResult.interfaces[0]);
    assert.deepEqual(
      json.ips.map((ip: { interface: number }) => ip.interface),
      [0, 2, 2],
    );
    assert.equal(json['x.y/z'], 'kept');
  });

  rule(
    [23],
    'ADD again: the same answer; another namespace, or no interface any more: made anew',
    async () => {
      const a = await create('a');
      const { json } = await ok(envOf('ADD', a), edge());
      assert.deepEqual((await ok(envOf('ADD', a), edge())).json, json);
      await a.mustExec(['ip', 'link', 'delete', 'eth0']);
      await ok(envOf('ADD', a), edge());
      assert.match(await a.mustExec(['ip', '-o', 'link', 'show', 'eth0']), /state UP/);
      const b = await create('b');
      await ok({ ...envOf('ADD', b), CNI_CONTAINERID: a.id }, edge());
      assert.match(await b.mustExec(['ip', '-o', 'link', 'show', 'eth0']), /state UP/);
      assert.equal((await a.exec(['ip', 'link', 'show', 'eth0'])).code, 1);
      assert.equal((await endpoints()).length, 1);
    },
  );

  test('several networks of one container: each address answers by its own interface, each can leave', async () => {
    const [a, b] = [await create('a'), await create('b')];
    const other = { cniVersion: '1.0.0', name: 'other', profiles: ['edge'] };
    const first = await ok(envOf('ADD', a), edge());
    const second = await ok(envOf('ADD', a, { CNI_IFNAME: 'eth1' }), other);
    await ok(envOf('ADD', b), edge());
    await a.serve([80]);
    for (const { json } of [first, second])
      for (const ip of json.ips as { address: string }[]) {
        const address = ip.address.split('/')[0]!;
        assert.deepEqual(await b.connect([{ address, port: 80 }], 5000), [true], address);
      }
    for (const [env, config, { json }] of [
      [envOf('CHECK', a), edge(), first],
      [envOf('CHECK', a, { CNI_IFNAME: 'eth1' }), other, second],
    ] as const)
      await ok(env, { ...config, prevResult: json });
    await ok(envOf('DEL', a), edge());
    const left = (second.json.ips[0].address as string).split('/')[0]!;
    assert.deepEqual(await b.connect([{ address: left, port: 80 }], 5000), [true]);
    await ok(envOf('ADD', a), edge());
    await ok(envOf('DEL', a, { CNI_IFNAME: 'eth1' }), other);
    for (const family of ['-4', '-6'])
      assert.doesNotMatch(
        await a.mustExec(['ip', family, 'rule']),
        /^32000:/m,
        'no rule stays in the container',
      );
  });

  test('macvlan beside other networks: the first keeps the default route, each answers by its own interface, each can leave', async () => {
    const wire = { cniVersion: '1.0.0', name: 'other', mode: 'macvlan', parent: 'eth0', pools: ['wire'] };
    const wired = { ...wire, profiles: ['edge'] };
    const [a, b, c] = [await create('a'), await create('b'), await create('c')];
    await ok(envOf('ADD', b), edge());
    await ok(envOf('ADD', c), wired);
    await a.serve([80]);
    for (const [first, second] of [
      [edge(), wired],
      [wired, edge()],
      [{ ...wired, name: 'edge' }, wired],
    ] as const) {
      const calls = [
        [envOf('ADD', a), first],
        [envOf('ADD', a, { CNI_IFNAME: 'eth1' }), second],
      ] as const;
      const json: Answer['json'][] = [];
      for (const [env, config] of calls) json.push((await ok(env, config)).json);
      const way = await a.mustExec(['ip', 'route', 'show', 'default']);
      assert.match(way, /^default via \S+ dev eth0 [^\n]*\n$/, 'the first has it, alone');
      const check = (at: 0 | 1): Promise<Answer> =>
        ok({ ...calls[at][0], CNI_COMMAND: 'CHECK' }, { ...calls[at][1], prevResult: json[at] });
      const reached = async (at: 0 | 1): Promise<void> => {
        const address = (json[at].ips[0].address as string).split('/')[0]!;
        const from = address.startsWith('10.66.') ? c : b;
        assert.deepEqual(await from.connect([{ address, port: 80 }], 5000), [true], address);
      };
      for (const at of [0, 1] as const) await check(at).then(() => reached(at));
      await a.mustExec(['sh', '-c', 'ip route flush table all dev eth1 default 2>&1']);
      const remedy = await call(
        { ...calls[1][0], CNI_COMMAND: 'CHECK' },
        { ...calls[1][1], prevResult: json[1] },
      );
      assert.match(remedy.json?.msg ?? '', /the default route by way of \S+ is missing/);
      await ok({ ...calls[1][0], CNI_COMMAND: 'DEL' }, second);
      await check(0).then(() => reached(0));
      json[1] = (await ok(...calls[1])).json;
      await ok({ ...calls[0][0], CNI_COMMAND: 'DEL' }, first);
      await check(1).then(() => reached(1));
      await ok({ ...calls[1][0], CNI_COMMAND: 'DEL' }, second);
    }
  });

  rule([24], 'what fails leaves nothing, at the very last step too', async () => {
    const a = await create('a');
    await fails(
      envOf('ADD', a, { CNI_ARGS: 'IP=10.65.0.5,10.65.0.6' }),
      edge('0.2.0'),
      7,
      /more than 1 address/,
    );
    await fails(envOf('ADD', a, { CNI_ARGS: 'IP=10.99.0.5' }), edge(), 102, /10\.99\.0\.5/);
    await fails(envOf('ADD', a), edge('1.0.0', { pools: ['nope'] }), 103, /no pool nope/);
    await fails(envOf('ADD', a), edge('1.0.0', { mtu: 1279 }), 7, /mtu: 1279 .* at least 1280 .* IPv6/);
    assert.deepEqual(await endpoints(), []);
    assert.doesNotMatch(await host.mustExec(['ip', '-o', 'link']), /nctl/);
    for (const { used } of JSON.parse(await host.mustNetctl(['ipam', 'show', '-o', 'json'])))
      assert.equal(used, 0);
  });

  // DEL.

  rule([27, 28, 30, 31], 'DEL three times, with names alone, also where no ADD ever was', async () => {
    const a = await create('a');
    const { json } = await ok(envOf('ADD', a), edge());
    const address = (json.ips[0].address as string).split('/')[0]!;
    const names = { CNI_COMMAND: 'DEL', CNI_CONTAINERID: a.id, CNI_IFNAME: 'eth0', CNI_PATH: '/opt/cni/bin' };
    await host.mustExec(['ip', 'netns', 'delete', a.netns]);
    for (let i = 0; i < 3; i++) assert.equal((await ok(names, edge())).stdout, '');
    await ok({ ...names, CNI_CONTAINERID: 'never' }, edge());
    const b = await create('b');
    const again = await ok(envOf('ADD', b, { CNI_ARGS: `IP=${address}` }), edge());
    assert.equal(again.json.ips[0].address, `${address}/32`, 'the address is free again');
  });

  rule(
    [25, 29, 51],
    'a delegate hears of ADD, of the DEL after a failed ADD, CHECK, GC, STATUS; its errors are told',
    async () => {
      const a = await create('a');
      const log = `${host.stateDirectory}/heard`;
      const script = `${host.pluginDirectory}/probe-ipam`;
      writeFileSync(
        script,
        `#!/bin/sh\ncat >/dev/null\necho "$CNI_COMMAND $CNI_CONTAINERID" >>${log}\n` +
          `[ -e ${log}.fail ] && { echo '{"code":100,"msg":"no luck"}'; exit 1; }\n` +
          `[ "$CNI_COMMAND" = ADD ] && echo '{"cniVersion":"1.1.0","ips":[{"address":"10.88.0.2/24"}]}'\nexit 0\n`,
        { mode: 0o755 },
      );
      const heard = async (): Promise<string[]> => {
        const text = await host.mustExec(['cat', log]);
        writeFileSync(log, '');
        return text
          .split('\n')
          .map((line) => line.split(' ')[0]!)
          .filter(Boolean);
      };
      const config = edge('1.1.0', { ipam: { type: 'probe-ipam' } });
      const { json } = await ok(envOf('ADD', a), config);
      assert.equal(json.ips[0].address, '10.88.0.2/32');
      assert.deepEqual(await heard(), ['ADD']);
      await ok(envOf('CHECK', a), { ...config, prevResult: json });
      await ok(envOf('STATUS', a), config);
      await ok(envOf('GC', a), {
        ...config,
        'cni.dev/valid-attachments': [{ containerID: a.id, ifname: 'eth0' }],
      });
      assert.deepEqual(await heard(), ['CHECK', 'STATUS', 'GC']);
      await ok(envOf('DEL', a), config);
      assert.ok((await heard()).every((command) => command === 'DEL'));
      writeFileSync(`${log}.fail`, '');
      for (const command of ['ADD', 'DEL', 'GC', 'STATUS'])
        await fails(
          envOf(command, a),
          { ...config, 'cni.dev/valid-attachments': [] },
          command === 'STATUS' ? 50 : 104,
          /probe-ipam \(\w+\): no luck/,
        );
      assert.deepEqual((await heard()).slice(0, 2), ['ADD', 'DEL']);
      await host.mustExec(['rm', `${log}.fail`]);
      await fails(envOf('ADD', a), edge('1.0.0', { ipam: { type: '../evil' } }), 7, /is not a name/);
    },
  );

  // CHECK.

  rule([33], 'CHECK needs prevResult', async () => {
    const a = await create('a');
    await ok(envOf('ADD', a), edge());
    await fails(envOf('CHECK', a), edge(), 7, /prevResult missing/);
  });

  rule([34, 36], 'CHECK is quiet when all is right, and says what is not', async () => {
    const a = await create('a');
    const { json } = await ok(envOf('ADD', a), edge());
    const name = json.interfaces[0].name as string;
    const address = (json.ips[0].address as string).split('/')[0]!;
    const check = (): Promise<Answer> => call(envOf('CHECK', a), edge('1.0.0', { prevResult: json }));
    const set = /nctl4-ep-\S+(?= )/.exec(await host.mustExec(['ipset', 'save']))![0];
    const neighbour = `ip neighbour replace 169.254.1.1 lladdr ee:ee:ee:ee:ee:ee dev eth0 nud permanent`;
    const mac = json.interfaces[1].mac as string;
    const damages: [string, RegExp, () => Promise<unknown>, () => Promise<unknown>][] = (
      [
        [
          'in',
          'ip address del ADDRESS/32 dev eth0',
          /address \S+ is missing/,
          // With its last address an interface loses its routes and neighbours too.
          'ip address add ADDRESS/32 dev eth0; ip route add 169.254.1.1 dev eth0; ' +
            `ip route add default via 169.254.1.1 dev eth0; ${neighbour}`,
        ],
        [
          'in',
          'ip route del default',
          /default route .*169\.254\.1\.1 is missing/,
          'ip route add default via 169.254.1.1 dev eth0',
        ],
        ['in', 'ip neighbour del 169.254.1.1 dev eth0', /does not know the MAC of 169/, neighbour],
        [
          'out',
          'ip route del ADDRESS dev NAME',
          /no route to/,
          'ip route add ADDRESS dev NAME proto 110 scope link',
        ],
        [
          'out',
          'ip neighbour del ADDRESS dev NAME',
          /does not know the MAC/,
          `ip neighbour replace ADDRESS lladdr ${mac} dev NAME nud permanent`,
        ],
        ['out', 'sysctl -qw net.ipv4.ip_forward=0', /ip_forward is 0/, 'sysctl -qw net.ipv4.ip_forward=1'],
        ['out', `ipset del ${set} ADDRESS,NAME`, /others had changed the policy/, 'true'],
        ['out', 'iptables -F nctl-FORWARD', /others had changed the policy/, 'true'],
      ] as [string, string, RegExp, string][]
    ).map(([where, damage, message, mend]) => {
      const run = (line: string) => (): Promise<unknown> => {
        const words = ['sh', '-ec', line.replaceAll('ADDRESS', address).replaceAll('NAME', name)];
        return where === 'in' ? a.mustExec(words) : host.mustExec(words);
      };
      return [damage, message, run(damage), run(mend)];
    });
    assert.deepEqual([(await check()).stdout, (await check()).code], ['', 0]);
    for (const [title, message, damage, mend] of damages) {
      await damage();
      const { code, stdout } = await check();
      assert.equal(code, 1, title);
      assert.match(stdout, message, title);
      await mend();
      assert.equal((await check()).code, 0, `after ${title}: ${(await check()).stdout}`);
    }
    await a.mustExec(['ip', 'link', 'set', 'eth0', 'down']);
    assert.match((await check()).stdout, /is down/);
    await a.mustExec(['ip', 'link', 'delete', 'eth0']);
    await eventually('a missing interface is told', 5000, async () =>
      /is missing/.test((await check()).stdout),
    );
  });

  rule([34], 'macvlan: CHECK looks at the rules in the container, and at those on the parent', async () => {
    const a = await create('a');
    const config = edge('1.0.0', { mode: 'macvlan', parent: 'eth0', pools: ['wire'] });
    const { json } = await ok(envOf('ADD', a), config);
    const check = (): Promise<Answer> => call(envOf('CHECK', a), { ...config, prevResult: json });
    assert.equal((await check()).code, 0);
    // At once, before the agent has looked by itself.
    await a.mustExec(['nft', 'flush', 'ruleset']);
    assert.match((await check()).json?.msg ?? '', /others had changed the policy .*: rules in the container/);
    assert.match(await a.mustExec(['nft', 'list', 'ruleset']), /drop/);
    const table = /^table netdev \S+/m.exec(await host.mustExec(['nft', 'list', 'ruleset']))![0];
    await host.mustExec(['nft', 'delete', ...table.split(' ')]);
    assert.match((await check()).json?.msg ?? '', /others had changed the policy/);
    assert.equal((await check()).code, 0);
  });

  rule([35], 'CHECK tolerates what plugins after us do', async () => {
    const a = await create('a');
    const { json } = await ok(envOf('ADD', a), edge());
    await a.mustExec(['ip', 'link', 'set', 'eth0', 'mtu', '1400']);
    await a.mustExec(['ip', 'address', 'add', '192.168.7.7/24', 'dev', 'eth0']);
    await a.mustExec(['ip', 'link', 'add', 'br0', 'type', 'bridge']);
    await a.mustExec(['ip', 'route', 'add', 'table', '100', 'default', 'via', '169.254.1.1', 'dev', 'eth0']);
    await a.mustExec(['ip', 'route', 'del', 'default']);
    const prevResult = {
      ...json,
      interfaces: [...json.interfaces, { name: 'br0', mac: '02:00:00:00:00:01' }],
    };
    await ok(envOf('CHECK', a), edge('1.0.0', { prevResult }));
  });

  rule([37], 'CHECK says nothing; a container that nobody knows is code 3', async () => {
    const a = await create('a');
    await fails(envOf('CHECK', a), edge('1.0.0', { prevResult: { ips: [] } }), 3, /no endpoint/);
  });

  // STATUS and GC.

  rule([38, 39], 'STATUS within 2 s: ready, no pool, exhausted, policy broken, agent away', async () => {
    const a = await create('a');
    const status = async (more: Config, code: number | null, msg = /^$/): Promise<void> => {
      const started = Date.now();
      const answer = await call({ CNI_COMMAND: 'STATUS', CNI_PATH: '/opt/cni/bin' }, edge('1.1.0', more));
      assert.ok(Date.now() - started < 2500, `${Date.now() - started} ms`);
      assert.deepEqual(
        [answer.json?.code ?? null, msg.test(answer.json?.msg ?? '')],
        [code, true],
        answer.stdout,
      );
    };
    await status({}, null);
    await status({ pools: ['nope'] }, 50, /no pool nope/);
    await status({ mode: 'macvlan', parent: 'eth0' }, null);
    await status({ mode: 'macvlan', parent: 'eth0', pools: ['default'] }, 50, /pool/);
    await status(
      { mode: 'macvlan', parent: 'eth0', mtu: 9000 },
      50,
      /MTU 9000 is more than the 1500 of parent/,
    );
    await status({ mtu: 3 }, 7, /^mtu: 3 is not valid/);
    await status({ profiles: ['a b'] }, 7, /^profile: "a b" is not valid/);
    await status({ name: 'n'.repeat(41) }, 7, /^profile \(named like the network\): /);
    await status({ mode: 'macvlan', parent: 'eth9' }, 50, /parent eth9 does not exist on this host/);
    await status({ mode: 'macvlan' }, 7, /parent: mode macvlan needs/);
    await host.mustNetctl([
      'pool',
      'add',
      '10.67.0.0/30',
      '--name',
      'tiny',
      '--block-size',
      '30',
      '--cooldown',
      '0',
    ]);
    await status({ pools: ['tiny'] }, null);
    const config = edge('1.1.0', { pools: ['tiny'] });
    const ids: string[] = [];
    for (let code = 0; code === 0; ) {
      const id = `t${ids.length}`;
      ({ code } = await call({ ...envOf('ADD', a), CNI_CONTAINERID: id, CNI_IFNAME: id }, config));
      if (code === 0) ids.push(id);
    }
    assert.ok(ids.length > 0);
    await status({ pools: ['tiny'] }, 50, /tiny/);
    for (const id of ids) await ok({ ...envOf('DEL', a), CNI_CONTAINERID: id, CNI_IFNAME: id }, config);
    await status({ pools: ['tiny'] }, null);
    await host.kill('SIGTERM');
    await status({}, 50, /agent|cni\.sock/);
    await host.start(['--dataplane', 'iptables']);
    await status({}, null);
  });

  rule(
    [40, 41, 42, 43],
    'GC: exactly what is not listed, of this network; null and [] are lists, no key is none',
    async () => {
      const all = await Promise.all(['a', 'b', 'c'].map(create));
      for (const each of all) await ok(envOf('ADD', each), edge());
      await ok(envOf('ADD', all[0]!, { CNI_IFNAME: 'eth1' }), { cniVersion: '1.0.0', name: 'other' });
      const gc = (more: Config): Promise<Answer> =>
        ok(
          { CNI_COMMAND: 'GC', CNI_PATH: '/x', CNI_CONTAINERID: '', CNI_NETNS: '', CNI_IFNAME: '' },
          edge('1.1.0', more),
        );
      const left = async (): Promise<string[]> =>
        (await endpoints())
          .map(({ network, containerId }) => `${network} ${containerId.split('-')[0]}`)
          .sort();
      await gc({});
      assert.equal((await left()).length, 4);
      const list = all.slice(0, 2).map(({ id }) => ({ containerID: id, ifname: 'eth0' }));
      await gc({ 'cni.dev/valid-attachments': list, 'cni.dev/attachments': list });
      assert.deepEqual(await left(), ['edge a', 'edge b', 'other a']);
      await gc({ 'cni.dev/valid-attachments': [list[0], { ...list[1], ifname: 'eth9' }] });
      assert.deepEqual(await left(), ['edge a', 'other a']);
      await gc({ 'cni.dev/valid-attachments': null });
      assert.deepEqual(await left(), ['other a']);
      await gc({ 'cni.dev/attachments': [] });
      assert.deepEqual(await left(), ['other a']);
      await ok(envOf('DEL', all[0]!, { CNI_IFNAME: 'eth1' }), { cniVersion: '1.0.0', name: 'other' });
    },
  );

  // Errors and conventions.

  rule(
    [32, 44, 45, 46],
    'an error is one line of JSON with version, code and cause; never "not found" for a DEL',
    async () => {
      const a = await create('a');
      for (const [config, code] of [
        [edge('1.0.0', { pools: ['nope'] }), 103],
        [edge('0.4.0', { mtu: 12 }), 7],
        [edge('1.1.0', { runtimeConfig: { portMappings: [{ HostPort: 1, ContainerPort: 0 }] } }), 7],
      ] as const) {
        const { stdout, json } = await call(envOf('ADD', a), config);
        assert.deepEqual([json.code, json.cniVersion], [code, config['cniVersion']], stdout);
        assert.equal(stdout.trim().split('\n').length, 1);
        assert.doesNotMatch(stdout, /not found/);
      }
      const gone = await call(envOf('DEL', a), edge('1.0.0', { ipam: { type: 'nothere' } }));
      assert.equal(gone.code, 1);
      assert.doesNotMatch(gone.stdout, /not found/);
    },
  );

  rule([47, 49, 50], 'runtimeConfig before args.cni before CNI_ARGS before the configuration', async () => {
    const config = (more: Config): Config =>
      edge('1.0.0', { args: { cni: { ips: ['10.65.0.31'] } }, ...more });
    for (const [more, expected] of [
      [{ runtimeConfig: { ips: ['10.65.0.30/16'] } }, '10.65.0.30/32'],
      [{ RuntimeConfig: { IPs: ['10.65.0.30'], dns: null } }, '10.65.0.30/32'],
      [{}, '10.65.0.31/32'],
    ] as const) {
      const a = await create('a');
      const env = envOf('ADD', a, { CNI_ARGS: 'IP=10.65.0.32;K8S_POD_NAME=web' });
      assert.equal((await ok(env, config(more))).json.ips[0].address, expected);
      await ok(envOf('DEL', a), edge());
    }
  });

  rule([52], 'as an IPAM plugin: addresses without interfaces, by the executable of that name', async () => {
    const a = await create('a');
    const config = edge('1.0.0', {
      type: 'ptp',
      ipam: { type: 'netctl-ipam', routes: [{ dst: '0.0.0.0/0' }] },
    });
    const { code, json, stdout } = await call(envOf('ADD', a), config, 'netctl-ipam');
    assert.equal(code, 0, stdout);
    assert.equal(json.interfaces, undefined);
    assert.equal(json.ips[0].interface, undefined);
    assert.deepEqual(json.routes, [{ dst: '0.0.0.0/0' }]);
    assert.equal((await call(envOf('DEL', a), config, 'netctl-ipam')).code, 0);
    // Before 0.3.0 a route stands beside the address of its family.
    const routes = [{ dst: '0.0.0.0/0' }, { dst: '10.8.0.0/16', gw: '10.65.0.1' }, { dst: '::/0' }];
    const old = { ...config, cniVersion: '0.2.0', ipam: { type: 'netctl-ipam', routes } };
    const { json: answer } = await call(envOf('ADD', a), old, 'netctl-ipam');
    assert.deepEqual([answer.ip4.routes, answer.ip6.routes], [routes.slice(0, 2), routes.slice(2)]);
    assert.equal((await call(envOf('DEL', a), old, 'netctl-ipam')).code, 0);
  });
});

test('38, 39: STATUS while etcd is away: ready as long as a block of the node has addresses', async () => {
  const lab = await EtcdHosts.create('ss', 1);
  try {
    const [host] = lab.hosts as [Host];
    await lab.ok(host, 'pool', 'add', '10.70.0.0/16', '--cooldown', '0');
    await lab.ok(host, 'pool', 'add', '10.71.0.0/16', '--name', 'second', '--cooldown', '0');
    const a = await Container.create(host, 'a');
    const config = { cniVersion: '1.1.0', name: 'edge', plugins: [{ type: 'netctl', pools: ['default'] }] };
    const pools = JSON.parse(await lab.ok(host, 'pool', 'show', '-o', 'json')) as { name: string }[];
    const [first] = pools.map(({ name }) => name).filter((name) => name !== 'second');
    await a.cniAdd({ ...config, plugins: [{ type: 'netctl', pools: [first] }] });
    await lab.wire(host, 'down');
    const status = (pool: string): Promise<Answer> =>
      callOn(
        host,
        { CNI_COMMAND: 'STATUS', CNI_PATH: '/x' },
        { cniVersion: '1.1.0', name: 'edge', pools: [pool] },
      );
    await eventually('the outage is noticed', 30_000, async () => (await status('second')).code !== 0);
    const { json } = await status('second');
    assert.deepEqual([json.code, /etcd.* is out of reach/.test(json.msg)], [50, true], JSON.stringify(json));
    assert.equal((await status(first!)).code, 0);
    await a.close();
  } finally {
    await lab.close();
  }
});

test('every rule has its test', () => {
  assert.deepEqual(
    Array.from({ length: 52 }, (_, i) => i + 1).filter((number) => !seen.has(number)),
    [],
  );
});
