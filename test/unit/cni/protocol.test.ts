/** The CNI protocol as the agent sees it: frames, calls, results of every version, errors. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { CniError, cniErrorText } from '../../../src/cni/errors.ts';
import { decodeRequest, encodeReply, frameLength } from '../../../src/cni/frame.ts';
import { type CniCall, parseCall } from '../../../src/cni/request.ts';
import { addAnswer, type CniVersion, cniResult } from '../../../src/cni/result.ts';
import { NetctlError } from '../../../src/lib/errors.ts';
import type { Attachment } from '../../../src/model/attachment.ts';
import { gateways, hostMac } from '../../../src/veth/plan.ts';

const env = {
  CNI_COMMAND: 'ADD',
  CNI_CONTAINERID: 'c1',
  CNI_NETNS: '/run/netns/c1',
  CNI_IFNAME: 'eth0',
  CNI_PATH: '/opt/cni/bin',
};

function frame(
  environment: Record<string, string>,
  stdin: string,
  { pid = 42, fd = 5, version = 1 } = {},
): Buffer {
  const block = Buffer.from(
    Object.entries(environment)
      .map(([name, value]) => `${name}=${value}\0`)
      .join(''),
  );
  const text = Buffer.from(stdin);
  const head = Buffer.alloc(17);
  head.writeUInt32BE(13 + block.length + text.length, 0);
  head.writeUInt8(version, 4);
  head.writeUInt32BE(pid, 5);
  head.writeInt32BE(fd, 9);
  head.writeUInt32BE(block.length, 13);
  return Buffer.concat([head, block, text]);
}

const call = (config: object, extra: Record<string, string> = {}): CniCall =>
  parseCall(
    decodeRequest(
      frame(
        { ...env, ...extra },
        JSON.stringify({ cniVersion: '1.0.0', name: 'edge', type: 'netctl', ...config }),
      ),
    ),
  );

function attach(config: object, extra: Record<string, string> = {}) {
  const parsed = call(config, extra);
  assert.equal(parsed.command, 'ADD');
  return (parsed as CniCall & { command: 'ADD' }).attach;
}

describe('frames', () => {
  test('a request is decoded as it was sent', () => {
    const request = decodeRequest(
      frame({ ...env, CNI_ARGS: 'A=b=c;IP=1.2.3.4' }, '{"x":"ü"}', { pid: 7, fd: -1 }),
    );
    assert.equal(request.pid, 7);
    assert.equal(request.netnsFd, null);
    assert.equal(request.env.get('CNI_ARGS'), 'A=b=c;IP=1.2.3.4');
    assert.equal(request.stdin, '{"x":"ü"}');
  });
  test('another protocol version is refused, naming both', () => {
    assert.throws(
      () => decodeRequest(frame(env, '{}', { version: 2 })),
      /protocol version 2, the agent speaks 1/,
    );
  });
  test('property: arbitrary bytes never crash, and never yield more than the frame holds', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        try {
          const buffer = Buffer.from(bytes);
          if (frameLength(buffer) === buffer.length) decodeRequest(buffer);
        } catch (error) {
          assert.ok(error instanceof NetctlError);
        }
      }),
      { numRuns: 500 },
    );
  });
  test('a reply carries exit code and text', () => {
    assert.deepEqual([...encodeReply(1, 'é')], [0, 0, 0, 4, 1, 1, 0xc3, 0xa9]);
  });
});

describe('calls', () => {
  test('defaults: the namespace is what the plugin holds open, everything else is left to the agent', () => {
    assert.deepEqual(attach({}), {
      network: 'edge',
      containerId: 'c1',
      interface: 'eth0',
      netns: { open: '/proc/42/fd/5', path: '/run/netns/c1' },
      profiles: [],
      pools: [],
      addresses: [],
      mac: null,
      mtuBytes: 0,
      owner: null,
      reservation: null,
      onRelease: 'delete',
      retainSeconds: null,
      labels: {},
      extraSources: [],
      macvlan: null,
      foreignLink: null,
      rateLimits: null,
      portMappings: [],
      attachedBy: 'runtime',
      foreignIpam: null,
    });
  });

  test('macvlan with all of its words, and with none', () => {
    const words = {
      macvlanMode: 'vepa',
      hostAccess: 'veth',
      duplicateDetection: 'fast',
      gatewayCheck: 'require',
      defaultRoute: false,
    };
    assert.deepEqual(attach({ mode: 'macvlan', parent: 'eth1', vlan: 7, ...words }).macvlan, {
      parent: 'eth1',
      vlan: 7,
      mode: 'vepa',
      hostAccess: 'veth',
      duplicateDetection: 'fast',
      gatewayCheck: 'require',
      defaultRoute: false,
    });
    assert.deepEqual(attach({ MODE: 'macvlan', Parent: 'eth1' }).macvlan, {
      parent: 'eth1',
      vlan: null,
      mode: 'bridge',
      hostAccess: 'none',
      duplicateDetection: 'off',
      gatewayCheck: 'off',
      defaultRoute: true,
    });
  });

  test('whose the addresses are, and what becomes of them: args.cni before CNI_ARGS; a named owner keeps them', () => {
    const kept = (config: object, args: Record<string, string> = {}) => {
      const { owner, reservation, onRelease, retainSeconds } = attach(config, args);
      return [owner?.instance ?? null, reservation, onRelease, retainSeconds];
    };
    const CNI_ARGS =
      'NETCTL_OWNER=t/a/i;NETCTL_RESERVATION=r-1;NETCTL_ON_RELEASE=ttl;NETCTL_RETAIN_SECONDS=60';
    assert.deepEqual(kept({}, { CNI_ARGS }), ['i', 'r-1', 'ttl', 60]);
    assert.deepEqual(kept({}, { CNI_ARGS: 'NETCTL_OWNER=t/a/i' }), ['i', null, 'immutable', null]);
    const netctl = { reservation: 'r2', onRelease: 'never', retainSeconds: null };
    assert.deepEqual(kept({ args: { cni: { netctl } } }, { CNI_ARGS: 'NETCTL_OWNER=t/a/i' }), [
      'i',
      'r2',
      'never',
      null,
    ]);
    const numbered = { onRelease: 'ttl', retainSeconds: 9 };
    assert.deepEqual(kept({ args: { cni: { netctl: numbered } } }), [null, null, 'ttl', 9]);
  });

  test('precedence: runtimeConfig, then args.cni, then CNI_ARGS, then the configuration', () => {
    const args = {
      CNI_ARGS: 'IgnoreUnknown=1;IP=10.0.0.3;MAC=02:00:00:00:00:03;NETCTL_PROFILE=fromargs;NETCTL_POOL=p3',
    };
    const config = { profiles: ['conf'], pools: ['p4'] };
    const cni = {
      ips: ['10.0.0.2/24'],
      netctl: { profiles: ['cni', 'base'], owner: 't/a/i', extraSources: ['192.0.2.1', 'fd00::/64'] },
      labels: [{ key: 'app', value: 'x' }],
    };
    assert.deepEqual(attach(config).profiles, ['conf']);
    const byArgs = attach(config, args);
    assert.deepEqual(
      [byArgs.profiles, byArgs.pools, byArgs.addresses, byArgs.mac],
      [['fromargs'], ['p3'], ['10.0.0.3'], '02:00:00:00:00:03'],
    );
    const byCni = attach({ ...config, args: { cni } }, args);
    assert.deepEqual(
      [byCni.profiles, byCni.addresses, byCni.labels],
      [['cni', 'base'], ['10.0.0.2'], { app: 'x' }],
    );
    assert.deepEqual(byCni.extraSources, ['192.0.2.1/32', 'fd00::/64']);
    assert.deepEqual(byCni.owner, { tenant: 't', app: 'a', instance: 'i' });
    const byRuntime = attach(
      { ...config, args: { cni }, runtimeConfig: { ips: ['10.0.0.1', 'fd00::1'], mac: '02:00:00:00:00:01' } },
      args,
    );
    assert.deepEqual([byRuntime.addresses, byRuntime.mac], [['10.0.0.1', 'fd00::1'], '02:00:00:00:00:01']);
  });

  test('keys match without regard to case, and null is as good as absent', () => {
    const folded = attach({
      RuntimeConfig: { IPs: ['10.0.0.9'], PortMappings: null, dns: { Servers: ['10.0.0.53'] } },
      args: null,
      MTU: 1400,
    });
    assert.deepEqual([folded.addresses, folded.mtuBytes], [['10.0.0.9'], 1400]);
  });

  test('published ports: their protocol in any case, none without a port of the host', () => {
    const portMappings = [
      { HostPort: 8080, ContainerPort: 80, Protocol: 'TCP', HostIP: '' },
      { hostPort: 53, containerPort: 5353, protocol: 'udp', hostIP: '192.0.2.1' },
      { hostPort: 0, containerPort: 81, protocol: 'tcp' },
    ];
    assert.deepEqual(attach({ runtimeConfig: { portMappings } }).portMappings, [
      { protocol: 'tcp', hostPort: 8080, containerPort: 80, hostIP: null },
      { protocol: 'udp', hostPort: 53, containerPort: 5353, hostIP: '192.0.2.1' },
    ]);
  });

  test('DEL needs nothing but names, and takes what was queued with its time', () => {
    const parsed = parseCall(
      decodeRequest(
        frame(
          { ...env, CNI_COMMAND: 'DEL', CNI_NETNS: '', NETCTL_QUEUED_AT: '1000' },
          '{"cniVersion":"1.0.0","name":"edge","prevResult":null}',
          { fd: -1 },
        ),
      ),
    );
    assert.deepEqual(parsed, {
      command: 'DEL',
      cniVersion: '1.0.0',
      id: { network: 'edge', containerId: 'c1', interface: 'eth0' },
      queuedAt: new Date(1000),
      delegate: null,
    });
  });

  test('DEL: nothing in the rest of the configuration keeps a container from going', () => {
    for (const config of [
      { mtu: 'x' },
      { mode: 'zz' },
      { runtimeConfig: 5, args: [] },
      { profiles: 'web', prevResult: 'x' },
      { ipam: 'x' },
      { ipam: { type: 'a/b' } },
      { ipam: { type: 'dhcp' } },
      { cniVersion: null },
    ]) {
      const parsed = call(config, { CNI_COMMAND: 'DEL', CNI_IFNAME: 'eth%d' });
      assert.ok(parsed.command === 'DEL' && parsed.delegate === null, JSON.stringify(config));
      assert.deepEqual(parsed.id, { network: 'edge', containerId: 'c1', interface: 'eth%d' });
    }
  });

  test('no version is the oldest', () => {
    for (const cniVersion of [undefined, null, '']) assert.equal(call({ cniVersion }).cniVersion, '0.1.0');
  });

  test('DNS: what the runtime says, else what the configuration says, list by list', () => {
    const dns = { nameservers: ['10.0.0.53'], domain: 'edge.example', search: ['example'] };
    const config = { dns, runtimeConfig: { dns: { Servers: ['10.96.0.10'], Searches: [], Options: null } } };
    const parsed = call(config);
    assert.ok(parsed.command === 'ADD');
    assert.deepEqual(parsed.answer.dns, { ...dns, nameservers: ['10.96.0.10'] });
  });

  test('blanks around arguments are no part of them', () => {
    const { addresses, mac } = attach({}, { CNI_ARGS: ' IP = 10.0.0.7/16 ; MAC= 02:00:00:00:00:01' });
    assert.deepEqual([addresses, mac], [['10.0.0.7'], '02:00:00:00:00:01']);
  });

  test('below another main plugin its own words are none of ours', () => {
    const config = { type: 'macvlan', mode: 'bridge', mtu: 'auto', master: 'eth0', parent: 5, dns: 'x' };
    const { foreignLink, mtuBytes } = attach(
      { ...config, ipam: { type: 'netctl-ipam' } },
      { NETCTL_ROLE: 'ipam' },
    );
    assert.deepEqual([foreignLink, mtuBytes], [{ hostInterface: null }, 0]);
  });

  test('GC: no list is no information, an empty or null one is', () => {
    const gc = (config: object) =>
      call({ cniVersion: '1.1.0', ...config }, { CNI_COMMAND: 'GC' }) as CniCall & { command: 'GC' };
    assert.equal(gc({}).valid, null);
    assert.deepEqual(gc({ 'cni.dev/valid-attachments': null }).valid, []);
    assert.deepEqual(gc({ 'cni.dev/valid-attachments': [{ containerID: 'c', ifname: 'eth0' }] }).valid, [
      { containerId: 'c', interface: 'eth0' },
    ]);
  });

  const refusals: [string, object, Record<string, string>, number, RegExp][] = [
    ['an unknown mode', { mode: 'l2' }, {}, 7, /mode: /],
    ['macvlan without parent', { mode: 'macvlan' }, {}, 7, /parent: mode macvlan needs/],
    ['a parent without macvlan', { parent: 'eth1' }, {}, 7, /parent: only with mode macvlan/],
    ['a bad parent', { mode: 'macvlan', parent: 'a/b' }, {}, 7, /parent: "a\/b" is not valid/],
    [
      'an unknown macvlan mode',
      { mode: 'macvlan', parent: 'eth1', macvlanMode: 'hairpin' },
      {},
      7,
      /macvlanMode: "hairpin" is not valid: expected bridge, private, vepa, passthru/,
    ],
    [
      'a shim for containers that reach nobody on their parent',
      { mode: 'macvlan', parent: 'eth1', hostAccess: 'shim', macvlanMode: 'private' },
      {},
      7,
      /hostAccess: shim reaches nobody with macvlanMode private/,
    ],
    ['a DHCP client on no wire', { ipam: { type: 'dhcp' } }, {}, 7, /ipam.type: dhcp only with mode macvlan/],
    ['a path as IPAM plugin', { ipam: { type: '../x' } }, {}, 7, /ipam.type: "..\/x" is not a name/],
    [
      'an interface of the plugin before that has no end on the host',
      { prevResult: { interfaces: [{ name: 'eth0', sandbox: '/run/netns/c1' }] } },
      {},
      2,
      /eth0 has no end on the host/,
    ],
    [
      'a published port that leads nowhere',
      { runtimeConfig: { portMappings: [{ hostPort: 80 }] } },
      {},
      7,
      /runtimeConfig.portMappings\[0\].containerPort: nothing given: expected a port from 1 to 65535/,
    ],
    [
      'a port published twice',
      {
        runtimeConfig: {
          portMappings: [
            { hostPort: 80, containerPort: 80 },
            { hostPort: 80, containerPort: 81, hostIP: '192.0.2.1' },
          ],
        },
      },
      {},
      7,
      /is not valid: expected each port of the host once, not 192.0.2.1:80:81\/tcp again/,
    ],
    [
      'a rate below any packet',
      { runtimeConfig: { bandwidth: { ingressRate: 1 } } },
      {},
      7,
      /runtimeConfig.bandwidth.inBitsPerSecond/,
    ],
    [
      'profile of 300 characters',
      { profiles: ['x'.repeat(300)] },
      {},
      7,
      /profile: "x+\.\.\. is not valid: expected 1 to 40/,
    ],
    ['bad address', {}, { CNI_ARGS: 'IP=10.0.0.300' }, 7, /ip: "10.0.0.300" is not valid/],
    ['bad mac', {}, { CNI_ARGS: 'MAC=01:00:5e:00:00:01' }, 7, /mac: .*unicast/],
    ['bad mtu', { mtu: 20 }, {}, 7, /mtu: 20 is not valid/],
    [
      'bad owner',
      { args: { cni: { netctl: { owner: 'only-one' } } } },
      {},
      7,
      /owner: "only-one" is not valid: expected tenant\/app\/instance/,
    ],
    ['bad reservation', {}, { CNI_ARGS: 'NETCTL_RESERVATION=a/b' }, 7, /reservation: "a\/b" is not valid/],
    [
      'bad policy',
      {},
      { CNI_ARGS: 'NETCTL_ON_RELEASE=keep' },
      7,
      /onRelease: "keep" .* delete, immutable, never, ttl/,
    ],
    [
      'seconds without ttl',
      {},
      { CNI_ARGS: 'NETCTL_OWNER=t/a/i;NETCTL_RETAIN_SECONDS=5' },
      7,
      /retainSeconds: "5" .* onRelease immutable/,
    ],
    [
      'unknown key of ours',
      { args: { cni: { netctl: { profile: ['x'] } } } },
      {},
      7,
      /args\.cni\.netctl\.profile: \["x"\] is not valid: expected no such key; accepted are profiles, pools/,
    ],
    ['bad name', { name: 'a b' }, {}, 7, /name: "a b" is not valid: expected a network name/],
    [
      'pools that are a text',
      { pools: 'p' },
      {},
      7,
      /pools: "p" is not valid: expected a value of type array/,
    ],
    ['bad mode', { mode: 'l2' }, {}, 7, /mode: "l2" is not valid: expected routed or macvlan/],
    ['bad version', { cniVersion: '9.9.9' }, {}, 7, /cniVersion/],
    ['container id', {}, { CNI_CONTAINERID: '../x' }, 4, /containerID/],
    [
      'a container id without end',
      {},
      { CNI_CONTAINERID: 'f'.repeat(1025) },
      4,
      /longer than 1024 characters/,
    ],
    ...['a/b', 'eth%d', '%s', 'all', 'default', 'é', 'a\u0001'].map((name): (typeof refusals)[number] => [
      `interface name ${JSON.stringify(name)}`,
      {},
      { CNI_IFNAME: name },
      4,
      /CNI_IFNAME: ".*" is not valid/,
    ]),
    ['a prefix longer than the address', {}, { CNI_ARGS: 'IP=10.0.0.1/33' }, 7, /ip: "10.0.0.1\/33" is not/],
    ['a prefix that is no number', {}, { CNI_ARGS: 'IP=10.0.0.1/x' }, 7, /ip: "10.0.0.1\/x" is not valid/],
    [
      'an address twice',
      {},
      { CNI_ARGS: 'IP=10.0.0.1,10.0.0.1/24' },
      7,
      /ip: "10.0.0.1" .* each address once/,
    ],
    [
      'an argument of ours that there is not',
      {},
      { CNI_ARGS: 'NETCTL_PROFIL=db' },
      4,
      /unknown argument NETCTL_PROFIL in CNI_ARGS: netctl knows NETCTL_PROFILE,/,
    ],
    ['a VLAN without macvlan', { vlan: 5 }, {}, 7, /vlan: only with mode macvlan/],
    [
      'what we do not do, with its value',
      { runtimeConfig: { ipRanges: [[{ subnet: '10.1.0.0/16' }]] } },
      {},
      2,
      /unsupported field runtimeConfig.ipRanges: \[\[\{"subnet":"10.1.0.0\/16"\}\]\]/,
    ],
    [
      'an interface of the plugin before that has no address',
      { prevResult: { interfaces: [{ name: 'v1' }, { name: 'eth0', sandbox: '/run/netns/c1' }], ips: [] } },
      {},
      7,
      /prevResult: eth0 has no address in ips/,
    ],
    [
      'netctl twice in a list',
      {
        prevResult: {
          interfaces: [{ name: 'nctl0610f65f986' }, { name: 'eth0', sandbox: '/run/netns/c1' }],
          ips: [{ address: '10.0.0.2/32', interface: 1 }],
        },
      },
      {},
      7,
      /nctl0610f65f986 is netctl's own: it can stand in a list once/,
    ],
    [
      'an interface of the plugin before that cannot be one',
      {
        prevResult: {
          interfaces: [{ name: 'a b' }, { name: 'eth0', sandbox: '/run/netns/c1' }],
          ips: [{ address: '10.0.0.2/24', interface: 1 }],
        },
      },
      {},
      7,
      /prevResult.interfaces.name: "a b" is not valid/,
    ],
    ['command', {}, { CNI_COMMAND: 'FROB' }, 4, /unknown CNI_COMMAND: FROB/],
  ];
  for (const [name, config, extra, code, message] of refusals) {
    test(`refused: ${name}`, () => {
      let text = '';
      try {
        call(config, extra);
        assert.fail('was accepted');
      } catch (error) {
        text = cniErrorText(error);
      }
      const answer = JSON.parse(text) as { code: number; msg: string };
      assert.deepEqual([answer.code, message.test(answer.msg)], [code, true], text);
    });
  }

  test('property: no configuration and no environment crashes the parser', () => {
    fc.assert(
      fc.property(
        fc.jsonValue(),
        fc.dictionary(
          fc.constantFrom('CNI_ARGS', 'CNI_IFNAME', 'CNI_CONTAINERID', 'CNI_COMMAND'),
          fc.string(),
        ),
        (json, extra) => {
          const config = {
            cniVersion: '1.0.0',
            name: 'n',
            ...(typeof json === 'object' ? json : { mode: json }),
          };
          try {
            parseCall({
              pid: 1,
              netnsFd: 3,
              env: new Map(Object.entries({ ...env, ...extra })),
              stdin: JSON.stringify(config),
            });
          } catch (error) {
            assert.ok(error instanceof NetctlError || error instanceof CniError, String(error));
          }
        },
      ),
      { numRuns: 300 },
    );
  });
});

const attachment = {
  network: 'edge',
  containerId: 'c1',
  interface: 'eth0',
  host: { interface: 'nctl0123456789a', mac: hostMac },
  mac: '02:42:0a:00:00:05',
  mtuBytes: 1500,
  addresses: ['10.0.0.5', 'fd00::5'],
  prefixLengths: [32, 128],
  gateways,
  netnsPath: '/run/netns/c1',
} as unknown as Attachment;

describe('results', () => {
  const interfaces = [
    { name: 'nctl0123456789a', mac: 'ee:ee:ee:ee:ee:ee' },
    { name: 'eth0', mac: '02:42:0a:00:00:05', sandbox: '/run/netns/c1' },
  ];
  const ips = [
    { address: '10.0.0.5/32', gateway: '169.254.1.1', interface: 1 },
    { address: 'fd00::5/128', gateway: 'fe80::ecee:eeff:feee:eeee', interface: 1 },
  ];
  const routes = [
    { dst: '0.0.0.0/0', gw: '169.254.1.1' },
    { dst: '::/0', gw: 'fe80::ecee:eeff:feee:eeee' },
  ];
  const versioned = ips.map((ip, i) => ({ version: i === 0 ? '4' : '6', ...ip }));
  const legacy = {
    ip4: { ip: '10.0.0.5/32', gateway: '169.254.1.1', routes: [routes[0]] },
    ip6: { ip: 'fd00::5/128', gateway: 'fe80::ecee:eeff:feee:eeee', routes: [routes[1]] },
    dns: {},
  };
  const expected: [CniVersion, object][] = [
    ['0.1.0', legacy],
    ['0.2.0', legacy],
    ['0.3.0', { interfaces, ips: versioned, routes, dns: {} }],
    ['0.3.1', { interfaces, ips: versioned, routes, dns: {} }],
    ['0.4.0', { interfaces, ips: versioned, routes, dns: {} }],
    ['1.0.0', { interfaces, ips, routes, dns: {} }],
    ['1.1.0', { interfaces: interfaces.map((entry) => ({ ...entry, mtu: 1500 })), ips, routes, dns: {} }],
  ];
  for (const [cniVersion, fields] of expected) {
    test(`the result in version ${cniVersion}`, () =>
      assert.deepEqual(cniResult(attachment, cniVersion, {}), { cniVersion, ...fields }));
  }
  test('0.2.0 after a plugin that has made another interface: the address is ours', () => {
    const before = { cniVersion: '0.2.0', ip4: { ip: '127.0.0.1/8' }, dns: { nameservers: ['10.0.0.53'] } };
    const form = { dns: {}, ipamDns: () => ({}), ipamRoutes: null, before };
    assert.deepEqual(addAnswer(attachment, '0.2.0', form), {
      cniVersion: '0.2.0',
      ...legacy,
      dns: before.dns,
    });
  });
  test('on a wire of its own: no host interface, the subnet, and only the routes that there are', () => {
    const onWire = {
      ...attachment,
      host: null,
      addresses: ['10.0.0.5'],
      prefixLengths: [24],
      gateways: {},
    } as unknown as Attachment;
    assert.deepEqual(cniResult(onWire, '1.0.0', {}), {
      cniVersion: '1.0.0',
      interfaces: [interfaces[1]],
      ips: [{ address: '10.0.0.5/24', gateway: undefined, interface: 0 }],
      routes: [],
      dns: {},
    });
  });

  test('0.2.0 cannot say two addresses of a family', () => {
    const two = { ...attachment, addresses: ['10.0.0.5', '10.0.0.6'] } as unknown as Attachment;
    assert.throws(() => cniResult(two, '0.2.0', {}), { code: 7, message: /more than 1 address per family/ });
  });
});

test('an error is one line of JSON, whatever was thrown', () => {
  for (const thrown of [
    new Error('a\nb'),
    'text',
    null,
    new NetctlError('POOL_EXHAUSTED', 'no free address'),
  ]) {
    const text = cniErrorText(thrown, '0.4.0');
    assert.ok(!text.includes('\n'));
    assert.equal(JSON.parse(text).cniVersion, '0.4.0');
  }
  assert.equal(JSON.parse(cniErrorText(new NetctlError('POOL_EXHAUSTED', 'x'))).code, 101);
});
