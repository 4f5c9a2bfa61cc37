/**
 * netctl against a listening API on a unix socket: what a user types, what is printed, which exit code.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable, Writable } from 'node:stream';
import { after, afterEach, beforeEach, describe, test } from 'node:test';
import { parse as parseYaml } from 'yaml';
import type { Environment } from '../../../src/cli/client.ts';
import { main } from '../../../src/cli/main.ts';
import { addressRecord, block, endpoint, type Fixture, healthy, makeApi, put } from '../api/fixture.ts';

const directory = mkdtempSync(join(tmpdir(), 'netctl-cli-'));
after(() => rmSync(directory, { recursive: true }));
let sockets = 0;

let fixture: Fixture;
let socket: string;
beforeEach(async () => {
  fixture = await listening();
});
afterEach(() => fixture.api.close());

async function listening(overrides: Parameters<typeof makeApi>[0] = {}): Promise<Fixture> {
  socket = join(directory, `${sockets++}.sock`);
  const made = makeApi(overrides);
  await made.api.listen({ path: socket });
  return made;
}

class Sink extends Writable {
  text = '';
  readonly isTTY: boolean;

  constructor(isTTY = false) {
    super();
    this.isTTY = isTTY;
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.text += chunk.toString();
    done();
  }
}

interface Run {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

async function netctl(
  line: string | readonly string[],
  stdin = '',
  env: Environment = {},
  isTTY = false,
): Promise<Run> {
  const argv = typeof line === 'string' ? line.split(' ').filter((word) => word !== '') : line;
  const [stdout, stderr] = [new Sink(isTTY), new Sink(isTTY)];
  const input = Object.assign(Readable.from(stdin === '' ? [] : [Buffer.from(stdin)]), { isTTY });
  const code = await main(
    argv,
    { NETCTL_API: `unix:${socket}`, ...env },
    { stdin: input, stdout, stderr },
    '0.1.0',
  );
  return { code, stdout: stdout.text, stderr: stderr.text };
}

/** Runs the lines, each of which must succeed; the output of the last. */
async function all(...lines: string[]): Promise<string> {
  let stdout = '';
  for (const line of lines) {
    const run = await netctl(line);
    assert.equal(run.code, 0, `${line}: ${run.stderr}`);
    assert.equal(run.stderr, '', line);
    stdout = run.stdout;
  }
  return stdout;
}

function lines(...text: string[]): string {
  return text.map((line) => `${line}\n`).join('');
}

describe('what is typed and what is printed', () => {
  test('profiles', async () => {
    assert.equal(await all('profile add web'), 'profile web added\n');
    await all('profile add db', 'profile db tag add storage');
    assert.equal(
      await all('profile show'),
      lines(
        'NAME   TAGS         INBOUND   OUTBOUND',
        'db     db,storage         1          1',
        'web    web                1          1',
      ),
    );
    assert.equal(await all('profile db tag show'), lines('TAG', 'db', 'storage'));
    assert.equal(await all('profile db tag remove db'), 'profile db no longer carries tag db\n');
    assert.equal(await all('profile remove web'), 'profile web removed\n');
    assert.equal(await all('profile show -o name'), 'profile/db\n');
  });

  test('the words of rules, in any of the places that the grammar allows', async () => {
    await all(
      'profile add web',
      'profile web rule add inbound allow tcp from tag lb cidr 10.0.0.0/8 to ports 80,443,1000:2000',
      'profile web rule add inbound --at 1 deny from cidr 192.0.2.1',
      'profile web rule add outbound log icmp type 8 code 0',
      'profile web rule remove outbound --at 1',
    );
    assert.equal(
      await all('profile web rule show'),
      lines(
        'Inbound rules:',
        '   1 deny from cidr 192.0.2.1/32',
        '   2 allow from tag web',
        '   3 allow tcp from cidr 10.0.0.0/8 tag lb to ports 80,443,1000:2000',
        'Outbound rules:',
        '   1 log icmp type 8 code 0',
      ),
    );
    await all(
      'profile web rule remove inbound allow from tag web',
      'profile web rule remove inbound -- deny from cidr 192.0.2.1',
    );
    const { inbound_rules } = JSON.parse(await all('profile web rule json'));
    assert.deepEqual(inbound_rules, [
      {
        action: 'allow',
        protocol: 'tcp',
        src_net: '10.0.0.0/8',
        src_tag: 'lb',
        dst_ports: [80, 443, '1000:2000'],
      },
    ]);
  });

  test('rule json fed back to rule update changes nothing', async () => {
    await all(
      'profile add web',
      'profile web rule add inbound allow tcp to ports 80',
      'profile web tag add x',
    );
    const json = await all('profile web rule json');
    assert.deepEqual(Object.keys(JSON.parse(json)), ['id', 'inbound_rules', 'outbound_rules']);
    const before = await fixture.store.list('');
    const run = await netctl('profile web rule update', json);
    assert.deepEqual(run, {
      code: 0,
      stdout: 'profile web: rules updated (2 inbound, 1 outbound)\n',
      stderr: '',
    });
    assert.deepEqual(await fixture.store.list(''), before);
  });

  test('pools', async () => {
    assert.equal(
      await all('pool add 10.1.0.0/16 --exclude 10.1.0.0/28 --exclude 10.1.9.9 --cooldown 5'),
      'pool default (10.1.0.0/16) added\n',
    );
    assert.equal(
      await all('pool add fd00:0::/64 --name six --block-size 120'),
      'pool six (fd00::/64) added\n',
    );
    assert.equal(
      await all('pool show'),
      lines(
        'NAME      CIDR          KIND     BLOCK   COOLDOWN   EXCLUDES                  STATE',
        'default   10.1.0.0/16   routed     /26         5s   10.1.0.0/28,10.1.9.9/32   enabled',
        'six       fd00::/64     routed    /120        60s   -                         enabled',
      ),
    );
    await all('pool set default --disabled --exclude none --cooldown 0');
    const [shown] = JSON.parse(await all('pool show default -o json'));
    assert.deepEqual([shown.disabled, shown.excludes, shown.cooldownSeconds], [true, [], 0]);
    await all('pool set default --enabled');
    assert.equal(JSON.parse(await all('pool show default -o json'))[0].disabled, false);
    assert.equal(await all('pool remove six'), 'pool six removed\n');
  });

  test('addresses', async () => {
    await all('pool add 10.1.0.0/16', 'pool add fd00::/64');
    await put(fixture.store, 'blocks/10.1.0.0-26', block);
    await put(fixture.store, 'addresses/10.1.0.7', addressRecord());
    assert.equal(
      await all('ipam show'),
      lines(
        'POOL        CIDR           SIZE   USED   COOLDOWN   BLOCKS   NODES',
        'default     10.1.0.0/16   65536      1          0        1       1',
        'fd00---64   fd00::/64      2^64      0          0        0       0',
      ),
    );
    assert.equal(
      await all('ipam show --blocks'),
      lines(
        'BLOCK         POOL      NODE    USED   CLAIMED',
        '10.1.0.0/26   default   node1   1/64   2026-01-02T03:04:05.000Z',
      ),
    );
    const shown = await all('ipam show --ip 10.1.0.7');
    assert.match(shown, /^Address: +10\.1\.0\.7$/m);
    assert.match(shown, /^Owner: +cni\/edge\/c1$/m);
  });

  test('endpoints', async () => {
    await all('profile add web', 'profile add db');
    await put(fixture.store, 'endpoints/node1/aaaa', endpoint());
    assert.equal(
      await all('endpoint show'),
      lines(
        'ENDPOINT   NODE    CONTAINER       NETWORK   INTERFACE   ADDRESSES   PROFILES',
        'aaaa       node1   0123456789abc   edge      eth0        10.1.0.7    web',
      ),
    );
    assert.equal(await all('endpoint profile aaaa append db'), 'endpoint aaaa has profiles web, db\n');
    assert.equal(await all('endpoint profile 10.1.0.7 set db'), 'endpoint aaaa has profiles db\n');
    assert.equal(
      await all('endpoint profile aaaa remove db --node node1'),
      'endpoint aaaa has no profile: all its traffic is denied\n',
    );
    assert.match(await all('endpoint show --detailed'), /^Host interface: +nctl0123456789a$/m);
    await all('endpoint profile aaaa set web db');
    assert.equal(
      await all('profile show --detailed'),
      lines(
        'NAME   TAGS   NODE    ENDPOINT   CONTAINER              ADDRESSES',
        'db     db     node1   aaaa       0123456789abcdef0123   10.1.0.7',
        'web    web    node1   aaaa       0123456789abcdef0123   10.1.0.7',
      ),
    );
    assert.deepEqual(await netctl('endpoint show --node node2'), {
      code: 0,
      stdout: '',
      stderr: 'no endpoints\n',
    });
  });

  test('the agent', async () => {
    assert.equal(await all('version'), lines('netctl:  0.1.0', 'agent:   0.1.0'));
    assert.equal(
      await all('config show'),
      lines(
        'KEY              VALUE   SOURCE',
        'node.name        node1   flag',
        'bgp.listenPort   179     default',
      ),
    );
    assert.equal(
      await all('node status'),
      lines(
        'Node:       node1, healthy',
        'Agent:      version 0.1.0, process 4711, started 2026-01-02T03:04:05.000Z',
        'Store:      embedded, in sync since 2026-01-02T03:04:06.000Z, revision 12',
        'Policy:     iptables-nft, in sync, dropped 3',
        'Endpoints:  2, 0 unhealthy',
        'Held back:  nothing',
      ),
    );
  });

  test('the same in every format, global options before or after the words', async () => {
    await all('profile add web');
    const [json] = JSON.parse(await all('-o json profile show'));
    assert.deepEqual(parseYaml(await all('profile --output=yaml show')), [json]);
    assert.match(await all('profile show -o wide'), /REVISION\nweb .* 1\n$/);
    assert.equal(await all('profile web tag add x -o name'), 'profile/web\n');
    assert.equal(await all('-o=name profile show'), 'profile/web\n');
    assert.deepEqual(JSON.parse(await all('profile web tag add x -ojson')).tags, ['web', 'x']);
    assert.equal(JSON.parse(await all('node status -o json')).healthy, true);
    assert.equal(parseYaml(await all('version -o yaml')).agent, '0.1.0');
    assert.equal(JSON.parse(await all('profile remove web -o json')).applied, true);
  });

  test('colour on a terminal only, and not with NO_COLOR', async () => {
    const codes = '\u001b[';
    assert.ok((await netctl('node status', '', {}, true)).stdout.includes(codes));
    assert.ok(!(await netctl('node status', '', { NO_COLOR: '1' }, true)).stdout.includes(codes));
    assert.ok(!(await netctl('node status')).stdout.includes(codes));
  });
});

describe('what is refused: exit code and words', () => {
  const refused: [string, number, RegExp][] = [
    // by the agent
    ['pool add 10.0.0.1/8', 1, /^netctl: cidr: "10\.0\.0\.1\/8" .*10\.0\.0\.0\/8$/],
    ['pool add 10.1.2.0/24', 1, /overlaps 10\.1\.0\.0\/16 of pool default/],
    ['pool add 10.2.0.0/16 --kind macvlan', 1, /^netctl: kind: .*not supported yet/],
    ['pool add 10.2.0.0/16 --nat-outgoing', 1, /^netctl: natOutgoing: .*not supported yet/],
    ['pool add 10.2.0.0/16 --node-selector a', 1, /^netctl: nodeSelector: .*not supported yet/],
    ['pool add 10.2.0.0/16 --block-size 1.5', 1, /^netctl: blockSize: 1.5/],
    ['pool set default --cidr 10.2.0.0/16', 1, /^netctl: cidr: cannot be changed/],
    ['pool set default --kind routed', 1, /^netctl: kind: cannot be changed/],
    ['pool remove none', 1, /there is no pool none/],
    ['profile add show', 1, /^netctl: name: "show"/],
    [`profile add ${'a'.repeat(300)}`, 1, /^netctl: name: .*1 to 40/],
    ['profile add web', 1, /profile web exists already/],
    ['profile remove web', 1, /used by endpoint aaaa on node1/],
    ['profile none rule show', 1, /there is no profile none/],
    ['profile .. rule show', 1, /".." is not a name/],
    ['profile web rule add inbound allow tcp to ports 70000', 1, /70000/],
    ['profile web rule add inbound allow ipv6 from cidr 10.0.0.0/8', 1, /src_net/],
    ['profile web rule add inbound permit', 1, /"permit".*allow, deny or log/],
    ['profile web rule remove inbound --at 9', 1, /no inbound rule at 9 \(it has 1\)/],
    ['endpoint profile zzz append web', 1, /there is no endpoint zzz/],
    ['endpoint profile aaaa append none', 1, /there is no profile none: add it first/],
    ['ipam show --ip 10.1.0.9', 1, /10\.1\.0\.9 is not allocated/],
    ['ipam show --ip x', 1, /^netctl: address: "x"/],
    // by netctl itself
    ['', 2, /^netctl: say what to do\nSee netctl --help$/],
    ['frobnicate', 2, /^netctl: there is no command "frobnicate"\n/],
    ['profile', 2, /^netctl: there is no command "profile"\n/],
    ['profile web', 2, /Usage: netctl profile NAME tag show\n/],
    ['profile web tag', 2, /\nUsage: netctl profile NAME tag show\n.*tag add TAG\n.*tag remove TAG$/],
    ['profile add', 2, /\nUsage: netctl profile add NAME$/],
    ['profile add a b', 2, /^netctl: unknown: b\nUsage: netctl profile add NAME$/],
    ['profile show --bogus', 2, /^netctl: unknown: --bogus\nUsage: netctl profile show \[--detailed\]$/],
    ['profile show -o xml', 2, /"xml" is not valid: expected table, wide, json, yaml, name/],
    ['profile show -o', 2, /-o needs a value/],
    ['profile web rule add sideways allow', 2, /DIRECTION: "sideways" .*"inbound", "outbound"/],
    ['profile web rule add inbound --at x allow', 2, /--at: "x" is not a number/],
    ['profile web rule add inbound --at 1 --at 2 allow', 2, /--at is given more than once/],
    ['profile web rule remove inbound', 2, /by --at N or by its words/],
    ['profile web rule remove inbound --at 1 allow', 2, /by --at N or by its words/],
    ['pool set default', 2, /say what to change/],
    ['pool set default --disabled --enabled', 2, /exclude each other/],
    ['endpoint profile aaaa drop web', 2, /ACTION: "drop"/],
    ['endpoint profile aaaa set', 2, /something is missing/],
    ['ipam show --ip 10.1.0.1 --blocks', 2, /exclude each other/],
    ['profile show --api http://localhost', 2, /--api: .*unix:PATH or https/],
    ['completion fish', 2, /SHELL: "fish"/],
  ];
  for (const [line, code, words] of refused) {
    test(`netctl ${line.slice(0, 70)}`, async () => {
      await all('pool add 10.1.0.0/16', 'profile add web');
      await put(fixture.store, 'endpoints/node1/aaaa', endpoint());
      const before = await fixture.store.list('');
      const run = await netctl(line);
      assert.deepEqual([run.code, run.stdout], [code, ''], run.stderr);
      assert.match(run.stderr.trimEnd(), words);
      if (code === 1) assert.equal(run.stderr.trimEnd().split('\n').length, 1, 'one line');
      assert.deepEqual(await fixture.store.list(''), before, 'nothing was written');
    });
  }

  const updates: [string, number, RegExp][] = [
    ['', 1, /standard input is empty/],
    ['{', 1, /standard input is not JSON/],
    ['[]', 1, /an object with the keys/],
    ['{"id":"db","inbound_rules":[],"outbound_rules":[]}', 1, /^netctl: id: "db"/],
    ['{"id":"web","inbound_rules":[],"outbound_rules":[],"rules":1}', 1, /^netctl: rules: /],
    [
      '{"id":"web","inbound_rules":[{"action":"allow","protocol":"tcp","dst_ports":[70000]}],"outbound_rules":[]}',
      1,
      /inbound_rules\[0\]\.dst_ports\[0\]: 70000/,
    ],
  ];
  for (const [stdin, code, words] of updates) {
    test(`rule update < ${stdin.slice(0, 60)}`, async () => {
      await all('profile add web');
      const before = await fixture.store.list('');
      const run = await netctl('profile web rule update', stdin);
      assert.deepEqual([run.code, run.stdout], [code, ''], run.stderr);
      assert.match(run.stderr, words);
      assert.deepEqual(await fixture.store.list(''), before);
    });
  }

  test('rule update does not wait for a terminal', async () => {
    const { code, stderr } = await netctl('profile web rule update', '', {}, true);
    assert.equal(code, 2);
    assert.match(stderr, /terminal: redirect a file: netctl profile web rule update < FILE/);
  });
});

describe('when not all is well', () => {
  test('no agent: 3, for version too little to fail', async () => {
    const gone = { NETCTL_API: `unix:${directory}/gone.sock` };
    const run = await netctl('profile show', '', gone);
    assert.equal(run.code, 3);
    assert.match(run.stderr, /^netctl: cannot reach the agent at unix:.*gone\.sock: .*is netctld running/);
    assert.deepEqual(await netctl('version', '', gone), {
      code: 0,
      stdout: lines('netctl:  0.1.0', 'agent:   not reachable'),
      stderr: '',
    });
  });

  test('no store: 3', async () => {
    fixture.store.failNext('list');
    const { code, stderr } = await netctl('profile show');
    assert.equal(code, 3);
    assert.match(stderr, /^netctl: /);
  });

  test('something else that answers there: 3', async () => {
    const path = join(directory, `${sockets++}.sock`);
    const server = createServer((_, response) => response.end('<html>'));
    await new Promise<void>((resolve) => server.listen(path, resolve));
    const { code, stderr } = await netctl(`profile show --api unix:${path}`);
    server.close();
    assert.equal(code, 3);
    assert.match(stderr, /not a netctl agent/);
  });

  test('not healthy: 4, with every problem', async () => {
    await fixture.api.close();
    const status = {
      ...healthy,
      endpoints: { total: 1, unhealthy: [{ endpoint: 'ep1', reason: 'no route' }] },
    };
    fixture = await listening({ status: () => status });
    const run = await netctl('node status');
    assert.equal(run.code, 4);
    assert.match(run.stdout, /^Node: +node1, not healthy$/m);
    assert.match(run.stdout, /\nProblems:\n {2}endpoint ep1: no route\n$/);
    assert.equal((await netctl('node status -o json')).code, 4);
  });

  test('not yet in force: done, with a warning', async () => {
    await fixture.api.close();
    fixture = await listening({ applied: () => Promise.reject(new Error('5 s')) });
    const run = await netctl('profile add web');
    assert.deepEqual([run.code, run.stdout], [0, 'profile web added\n']);
    assert.match(
      run.stderr,
      /^netctl: warning: profile web: stored at revision 1, but not yet in force on this host/,
    );
  });
});

describe('over TLS', () => {
  test('with the certificates that the environment names; without them: 3', async () => {
    const [key, cert] = [join(directory, 'key.pem'), join(directory, 'cert.pem')];
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
    const unreadable = await netctl('profile show', '', { ...env, NETCTL_CA: join(directory, 'none.pem') });
    assert.equal(unreadable.code, 2);
    assert.match(unreadable.stderr, /NETCTL_CA: cannot read/);
    server.close();
  });
});

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
    [['po'], ['pool']],
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
      await put(fixture.store, 'endpoints/node1/aaaa', endpoint());
      const { stdout } = await netctl(['__complete', '--', ...typed]);
      assert.deepEqual(stdout.split('\n').slice(0, -1), expected);
    });
  }

  test('completion says nothing when the agent is away', async () => {
    const run = await netctl(['__complete', '--', 'profile', ''], '', { NETCTL_API: 'unix:/nonexistent' });
    assert.deepEqual(run, { code: 0, stdout: lines('add', 'remove', 'show'), stderr: '' });
  });

  test('bash takes the script and completes with it', async () => {
    const { stdout: script } = await netctl('completion bash');
    const stub = `netctl() { printf '%s\\n' "$@"; }\n${script}\nCOMP_WORDS=(netctl profile web "")\nCOMP_CWORD=3\n_netctl\nprintf '<%s>' "\${COMPREPLY[@]}"\n`;
    const { stdout } = await run('bash', ['-c', stub]);
    assert.equal(stdout, '<__complete><--><profile><web>');
  });
});

describe('as a process', () => {
  const entry = join(import.meta.dirname, '../../../src/main/netctl.ts');

  test('a reader that goes away early is no error', async () => {
    for (let i = 0; i < 40; i++)
      await put(fixture.store, `profiles/p${i}`, { tags: [], inbound_rules: [], outbound_rules: [] });
    const command = `"${process.execPath}" "${entry}" profile show -o json --api unix:${socket} | true; echo "\${PIPESTATUS[0]}"`;
    const { stdout, stderr } = await run('bash', ['-c', command]);
    assert.deepEqual([stdout, stderr], ['0\n', '']);
  });

  test('a file redirected into rule update, and the exit code of a refusal', async () => {
    await all('profile add web');
    const api = `--api unix:${socket}`;
    const command = `"${process.execPath}" "${entry}" profile web rule json ${api} | "${process.execPath}" "${entry}" profile web rule update ${api} && "${process.execPath}" "${entry}" profile remove none ${api}`;
    const { code, stdout, stderr } = await run('bash', ['-c', command]);
    assert.deepEqual([code, stdout], [1, 'profile web: rules updated (1 inbound, 1 outbound)\n']);
    assert.match(stderr, /^netctl: there is no profile none/);
  });
});

function run(command: string, args: readonly string[]): Promise<Run> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let [stdout, stderr] = ['', ''];
    child.stdout.on('data', (chunk) => (stdout += chunk));
    child.stderr.on('data', (chunk) => (stderr += chunk));
    child.on('error', reject);
    child.on('close', (code) => resolve({ code: code ?? -1, stdout, stderr }));
  });
}
