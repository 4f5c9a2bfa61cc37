/**
 * `netctl bgp …` against a listening API, and the sessions in `netctl node status`.
 */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { BgpStatus } from '../../../src/api/bgp-schemas.ts';
import type { Json } from '../../../src/store/store.ts';
import { put } from '../api/fixture.ts';
import { lines, useCli } from './session.ts';

const cli = useCli();
const { all, netctl } = cli;

function passwordOf(entry: { readonly value: Json } | null): unknown {
  return (entry?.value as { password?: unknown } | undefined)?.password;
}

describe('peers', () => {
  test('are added with a password from a file, shown without it, removed', async () => {
    const file = join(cli.directory, 'password');
    writeFileSync(file, 'very secret\n');
    assert.equal(
      await all(
        `bgp peer add tor --address 192.0.2.254 --as 65001 --password-file ${file} --hold 9 --keepalive 3`,
      ),
      'bgp-peer tor added\n',
    );
    await all('bgp peer add reflectors --peer-selector has(reflector)');
    assert.equal(
      await all('bgp peer show'),
      lines(
        'NAME         PEER                AS   OF          PASSWORD   IMPORT   EXPORT',
        'reflectors   has(reflector)       -   all nodes   -          -        -',
        'tor          192.0.2.254      65001   all nodes   set        -        -',
      ),
    );
    const stored = await cli.fixture.store.get('bgp/peers/tor');
    assert.deepEqual(passwordOf(stored), 'very secret');
    for (const line of [
      'bgp peer show -o yaml',
      'bgp peer show tor -o json',
      'get bgp-peer -o yaml',
      'bgp peer show -o wide',
    ])
      assert.ok(!(await all(line)).includes('very secret'), line);
    assert.equal(await all('bgp peer remove tor'), 'bgp-peer tor removed\n');
    assert.equal(await all('bgp peer show -o name'), 'bgp-peer/reflectors\n');
  });

  test('take every option to the record', async () => {
    await all(
      'bgp peer add tor --address 192.0.2.254 --as 65001 --node node1 --port 1179 --source 192.0.2.1 --local-as 64700 ' +
        '--multihop on --ttl-security 2 --bfd off --passive --next-hop self --allow-own-as 1 --prepend 2 --max-prefixes 10 ' +
        '--community 65001:1 --community 1:2:3 --import-filter in --export-filter out-1 --export-filter out-2',
    );
    assert.deepEqual(JSON.parse(await all('get bgp-peer tor -o json')), {
      kind: 'bgp-peer',
      name: 'tor',
      address: '192.0.2.254',
      asNumber: 65001,
      node: 'node1',
      port: 1179,
      sourceAddress: '192.0.2.1',
      localAsNumber: 64700,
      multihop: true,
      ttlSecurityHops: 2,
      passive: true,
      nextHop: 'self',
      allowOwnAsNumbers: 1,
      prepend: 2,
      maxPrefixes: 10,
      communities: ['65001:1', '1:2:3'],
      importFilters: ['in'],
      exportFilters: ['out-1', 'out-2'],
    });
  });

  test('that are wrong are refused with one line and exit code 1; words that are wrong with 2', async () => {
    const refused = await netctl('bgp peer add tor --address 192.0.2.254');
    assert.deepEqual([refused.code, refused.stdout], [1, '']);
    assert.match(refused.stderr, /^netctl: asNumber: .*\n$/);
    assert.equal((await netctl('bgp peer add tor --address 192.0.2.254 --as 1 --bfd maybe')).code, 2);
    const unreadable = await netctl('bgp peer add tor --address 192.0.2.254 --as 1 --password-file /nowhere');
    assert.equal(unreadable.code, 1);
    assert.match(unreadable.stderr, /cannot read \/nowhere/);
  });

  test('take a password from standard input', async () => {
    const run = await netctl(
      'bgp peer add tor --address 192.0.2.254 --as 1 --password-file -',
      'from outside\r\nmore\n',
    );
    assert.equal(run.code, 0, run.stderr);
    const stored = await cli.fixture.store.get('bgp/peers/tor');
    assert.deepEqual(passwordOf(stored), 'from outside');
  });
});

describe('the whole cluster', () => {
  test('has a mesh that is shown, switched and timed', async () => {
    assert.match(await all('bgp mesh'), /^mesh: +on\n/im);
    assert.equal(await all('bgp mesh off'), 'mesh of the nodes off\n');
    await all('bgp mesh --hold 30 --keepalive 10 --bfd off --graceful-restart 20 --community 64512:1');
    const shown = JSON.parse(await all('bgp mesh -o json'));
    const { mesh, holdSeconds, keepaliveSeconds, bfd, gracefulRestartSeconds, communities } = shown;
    assert.deepEqual(
      [mesh, holdSeconds, keepaliveSeconds, bfd, gracefulRestartSeconds, communities],
      [false, 30, 10, false, 20, ['64512:1']],
    );
    await all('bgp mesh --keepalive none');
    assert.equal(JSON.parse(await all('bgp mesh -o json')).keepaliveSeconds, null);
    assert.equal((await netctl('bgp mesh perhaps')).code, 2);
  });

  test('has a password that is never shown', async () => {
    const file = join(cli.directory, 'mesh-password');
    writeFileSync(file, 'between us');
    await all(`bgp mesh --password-file ${file}`);
    for (const line of ['bgp mesh', 'bgp mesh -o yaml']) {
      const text = await all(line);
      assert.ok(text.includes('set') && !text.includes('between us'), text);
    }
    await all('bgp mesh --password-file none');
    assert.equal(JSON.parse(await all('bgp mesh -o json')).meshPassword, null);
  });

  test('has a default AS', async () => {
    assert.equal(await all('bgp default-as'), '64512\n');
    assert.equal(await all('bgp default-as 64999'), 'default AS 64999\n');
    assert.equal(await all('bgp default-as'), '64999\n');
    assert.equal((await netctl('bgp default-as 0')).code, 1);
  });
});

test('a node becomes a reflector', async () => {
  const { store } = cli.fixture;
  const node = {
    address4: '192.0.2.1',
    address6: null,
    version: '0.1.0',
    startedAt: '2026-01-02T03:04:05.000Z',
  };
  await put(store, 'nodes/node1', node);
  assert.equal(await all('node set node1 --route-reflector 244.0.0.1'), 'node node1 set\n');
  assert.match(await all('node show'), /node1 .* 244\.0\.0\.1 /);
  await all('node set node1 --route-reflector none');
  assert.equal((await netctl('node set node1')).code, 2);
});

describe('node status', () => {
  const session: BgpStatus['sessions'][number] = {
    peer: '192.0.2.2',
    port: 179,
    name: 'node2',
    type: 'mesh',
    asNumber: 64512,
    family: 4,
    state: 'Established',
    since: '2026-01-02T03:04:05.000Z',
    routes: { ipv4: { in: 2, out: 1 }, ipv6: null },
    bfd: 'up',
    lastError: null,
  };
  const bgp: BgpStatus = {
    bird: { version: '2.0.12', pid: 4713, startedAt: '', configuredAt: '', recovering: false },
    error: null,
    inSync: true,
    differences: [],
    problems: [],
    announced: { ipv4: 1, ipv6: 0 },
    sessions: [session],
  };

  test('shows the sessions of each family', async () => {
    await cli.listen({ bgpStatus: async () => bgp });
    const run = await netctl('node status');
    assert.equal(run.code, 0, run.stderr);
    assert.ok(
      run.stdout.endsWith(
        lines(
          'BGP:        BIRD 2.0.12, process 4713, in sync, 1 of 1 sessions established, 1 IPv4 and 0 IPv6 prefixes announced',
          '',
          'IPv4 BGP:',
          '  PEER        NAME    TYPE                   AS   STATE         SINCE                      BFD   IN   OUT   LAST ERROR',
          '  192.0.2.2   node2   node-to-node mesh   64512   Established   2026-01-02T03:04:05.000Z   up     2     1   -',
          '',
          'IPv6 BGP: no peers',
        ),
      ),
      run.stdout,
    );
  });

  test('a session that is not established is exit code 4, and says why, also on a port of its own', async () => {
    const down = {
      ...session,
      peer: 'fd00::2',
      port: 1179,
      family: 6 as const,
      type: 'global' as const,
      name: 'tor',
      state: 'Active',
      routes: { ipv4: { in: 0, out: 0 }, ipv6: { in: 3, out: 4 } },
      bfd: null,
      lastError: 'Socket: Connection refused',
    };
    await cli.listen({ bgpStatus: async () => ({ ...bgp, sessions: [session, down] }) });
    const run = await netctl('node status');
    assert.equal(run.code, 4);
    assert.match(run.stdout, /1 of 2 sessions established/);
    assert.match(
      run.stdout,
      /\[fd00::2\]:1179 +tor +global +64512 +Active .* 0\+3 +0\+4 +Socket: Connection refused/,
    );
    assert.match(run.stdout, /Problems:\n(.*\n)* {2}bgp: session with tor \(fd00::2\) is Active/);
    const json = JSON.parse((await netctl('node status -o json')).stdout);
    assert.equal(json.bgp.sessions[1].state, 'Active');
  });

  test('says that BIRD does not run', async () => {
    await cli.listen({
      bgpStatus: async () => ({ ...bgp, bird: null, inSync: false, error: 'BIRD does not run' }),
    });
    const run = await netctl('node status');
    assert.equal(run.code, 4);
    assert.match(run.stdout, /BGP: +BIRD does not run/);
  });
});
