/**
 * netctl and what surrounds it: shells that complete, pipes that close, TLS.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { Readable, Writable } from 'node:stream';
import { describe, test } from 'node:test';
import { main } from '../../../src/cli/main.ts';
import { endpoint, put } from '../api/fixture.ts';
import { lines, run, useCli } from './session.ts';

const cli = useCli();
const { all, netctl } = cli;

describe('help and completion', () => {
  test('help is made of the table: all, one area, one command', async () => {
    const everything = await all('--help');
    assert.match(everything, /netctl profile NAME rule add \(inbound\|outbound\) RULE\.\.\. \[--at N\]/);
    assert.doesNotMatch(everything, /__complete/);
    assert.equal(await all('help'), everything);
    const pools = await all('pool --help');
    assert.match(pools, /netctl pool set NAME/);
    assert.doesNotMatch(pools, /profile NAME tag/);
    const add = await all('pool add --help');
    assert.match(add, /^Usage: netctl pool add CIDR/);
    assert.match(add, /--block-size BITS +prefix length/);
    assert.doesNotMatch(await all('pool set --help'), /--cidr/);
  });

  const completions: [string[], string[]][] = [
    [['po'], ['policy', 'pool']],
    [
      ['profile', ''],
      ['add', 'db', 'remove', 'show', 'web'],
    ],
    [
      ['profile', 'web', ''],
      ['rule', 'tag'],
    ],
    [
      ['profile', 'web', 'rule', 'add', ''],
      ['inbound', 'outbound'],
    ],
    [['profile', 'add', ''], []],
    [['profile', 'remove', 'w'], ['web']],
    [['pool', 'add', '10.0.0.0/8', '--e'], ['--exclude']],
    [['pool', 'set', ''], ['default']],
    [['endpoint', 'profile', 'aaaa', 'set', 'd'], ['db']],
    [['endpoint', 'profile', ''], ['aaaa']],
    [['profile', 'show', '-o', 'j'], ['json']],
    [['nothing', ''], []],
  ];
  for (const [typed, expected] of completions) {
    test(`netctl ${typed.join(' ')}<TAB>`, async () => {
      await all('profile add web', 'profile add db', 'pool add 10.1.0.0/16');
      await put(cli.fixture.store, 'endpoints/node1/aaaa', endpoint());
      const { stdout } = await netctl(['__complete', '--', ...typed]);
      assert.deepEqual(stdout.split('\n').slice(0, -1), expected);
    });
  }

  test('completion says nothing when the agent is away', async () => {
    const run = await netctl(['__complete', '--', 'profile', ''], '', { NETCTL_API: 'unix:/nonexistent' });
    assert.deepEqual(run, { code: 0, stdout: lines('add', 'remove', 'show'), stderr: '' });
  });

  test('zsh and fish have theirs', async () => {
    for (const [shell, line] of [
      ['zsh', /^compdef _netctl netctl$/m],
      ['fish', /^complete -c netctl -f -a '\(__netctl_complete\)'$/m],
    ] as const) {
      const { code, stdout } = await netctl(`completion ${shell}`);
      assert.equal(code, 0);
      assert.match(stdout, line);
      // What the shell itself thinks of it, where there is one.
      const checked = await run(shell, ['-n', '-c', stdout]).catch(() => null);
      assert.equal(checked?.code ?? 0, 0, checked?.stderr);
    }
  });

  test('bash takes the script and completes with it', async () => {
    const { stdout: script } = await netctl('completion bash');
    const stub = `netctl() { printf '%s\\n' "$@"; }\n${script}\nCOMP_WORDS=(netctl profile web "")\nCOMP_CWORD=3\n_netctl\nprintf '<%s>' "\${COMPREPLY[@]}"\n`;
    const { stdout } = await run('bash', ['-c', stub]);
    assert.equal(stdout, '<__complete><--><profile><web>');
  });
});

test('a disk that is full: one line and 1, a reader that went away: nothing', async () => {
  const told = async (code: string): Promise<[number, string]> => {
    let said = '';
    const refuse = (done: (error: Error) => void): void =>
      done(Object.assign(new Error(`${code}: no`), { code }));
    const stdout = new Writable({ write: (_chunk, _encoding, done) => refuse(done) });
    const stderr = new Writable({
      write(chunk, _encoding, done) {
        said += chunk;
        done();
      },
    });
    return [await main(['--help'], {}, { stdin: Readable.from([]), stdout, stderr }, '0.1.0'), said];
  };
  assert.deepEqual(await told('ENOSPC'), [1, 'netctl: the output cannot be written: ENOSPC: no\n']);
  assert.deepEqual(await told('EPIPE'), [0, '']);
});

test('diags: what the agent says, whatever else fails; without an agent 3, and still what there is', async () => {
  await all('pool add 10.1.0.0/16', 'bgp peer add tor --address 192.0.2.254 --as 65001');
  const { code, stdout } = await netctl('diags');
  assert.equal(code, 0);
  for (const title of ['status', 'config', 'pools', 'endpoints', 'BGP peers', 'metrics', '$ uname -a'])
    assert(stdout.includes(`== ${title}\n`), title);
  assert.match(stdout, /10\.1\.0\.0\/16/);
  const report = JSON.parse((await netctl('diags -o json')).stdout);
  assert.equal(report.pools.items[0].name, 'default');
  const away = await netctl('diags', '', { NETCTL_API: 'unix:/nonexistent' });
  assert.equal(away.code, 3);
  assert.match(away.stdout, /^== status\nnot to be had: cannot reach the agent/);
  assert.match(away.stdout, /\n== \$ uname -a\nLinux/);
});

describe('over TLS', () => {
  test('with the certificates that the environment names; without them: 3', async () => {
    const [key, cert] = [join(cli.directory, 'key.pem'), join(cli.directory, 'cert.pem')];
    const subject = ['-subj', '/CN=netctl-test', '-addext', 'subjectAltName=IP:127.0.0.1'];
    const made = await run('openssl', [
      'req',
      '-x509',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:P-256',
      '-nodes',
      '-days',
      '2',
      '-keyout',
      key,
      '-out',
      cert,
      ...subject,
    ]);
    assert.equal(made.code, 0, made.stderr);
    const pem = { key: readFileSync(key), cert: readFileSync(cert), ca: readFileSync(cert) };
    const server = createTlsServer({ ...pem, requestCert: true, rejectUnauthorized: true }, (_, response) =>
      response.end(JSON.stringify({ version: '0.1.0', node: 'node1' })),
    );
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const env = { NETCTL_API: `https://127.0.0.1:${(server.address() as AddressInfo).port}` };
    const trusted = await netctl('version', '', {
      ...env,
      NETCTL_CA: cert,
      NETCTL_CERT: cert,
      NETCTL_KEY: key,
    });
    assert.equal(trusted.stdout, lines('netctl:  0.1.0', 'agent:   0.1.0'));
    const anonymous = await netctl('profile show', '', { ...env, NETCTL_CA: cert });
    assert.deepEqual([anonymous.code, anonymous.stdout], [3, '']);
    const distrusting = await netctl('profile show', '', env);
    assert.deepEqual([distrusting.code, distrusting.stdout], [3, '']);
    const unreadable = await netctl('profile show', '', {
      ...env,
      NETCTL_CA: join(cli.directory, 'none.pem'),
    });
    assert.equal(unreadable.code, 2);
    assert.match(unreadable.stderr, /--ca \(NETCTL_CA\): cannot read/);
    server.close();
  });
});

describe('as a process', () => {
  const entry = join(import.meta.dirname, '../../../src/main/netctl.ts');

  test('a reader that goes away early is no error', async () => {
    for (let i = 0; i < 40; i++)
      await put(cli.fixture.store, `profiles/p${i}`, { tags: [], inbound_rules: [], outbound_rules: [] });
    const command = `"${process.execPath}" "${entry}" profile show -o json --api unix:${cli.socket} | true; echo "\${PIPESTATUS[0]}"`;
    const { stdout, stderr } = await run('bash', ['-c', command]);
    assert.deepEqual([stdout, stderr], ['0\n', '']);
  });

  test('a file redirected into rule update, and the exit code of a refusal', async () => {
    await all('profile add web');
    const api = `--api unix:${cli.socket}`;
    const command = `"${process.execPath}" "${entry}" profile web rule json ${api} | "${process.execPath}" "${entry}" profile web rule update ${api} && "${process.execPath}" "${entry}" profile remove none ${api}`;
    const { code, stdout, stderr } = await run('bash', ['-c', command]);
    assert.deepEqual([code, stdout], [1, 'profile web: rules updated (1 inbound, 1 outbound)\n']);
    assert.match(stderr, /^netctl: there is no profile none/);
  });
});
