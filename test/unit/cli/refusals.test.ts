/**
 * What netctl refuses, by itself (2) or by the agent (1): exit code, words, and that nothing was written.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { endpoint, put } from '../api/fixture.ts';
import { useCli } from './session.ts';

const cli = useCli();
const { all, netctl } = cli;

describe('what is refused: exit code and words', () => {
  const refused: [string, number, RegExp][] = [
    // by the agent
    ['pool add 10.0.0.1/8', 1, /^netctl: cidr: "10\.0\.0\.1\/8" .*10\.0\.0\.0\/8$/],
    ['pool add 10.1.2.0/24', 1, /overlaps 10\.1\.0\.0\/16 of pool default/],
    ['pool add 10.2.0.0/16 --kind macvlan --nat-outgoing', 1, /^netctl: natOutgoing: true/],
    ['pool add 10.2.0.0/16 --node-selector a', 1, /^netctl: nodeSelector: "a" /],
    ['pool add 10.2.0.0/16 --gateway 10.3.0.1', 1, /^netctl: gateway: "10\.3\.0\.1".*inside the pool/],
    ['pool set default --range 10.2.0.0-10.2.0.9', 1, /^netctl: ranges: .*inside the pool/],
    ['pool set default --max-blocks 0', 1, /^netctl: maxBlocksPerNode: 0/],
    ['ipam reserve --pool none', 1, /there is no pool none/],
    ['ipam reserve --ip 10.9.0.1', 1, /10\.9\.0\.1 is in no pool/],
    ['ipam reserve --count6 1', 1, /no IPv6 pool/],
    ['ipam release --ip 10.1.0.9', 1, /10\.1\.0\.9 is not allocated/],
    ['ipam release --ip 10.1.0.9 --generation 3', 1, /not allocated any more/],
    ['ipam release --reservation a/b', 1, /^netctl: reservation: "a\/b"/],
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
    ['ipam show --by pool --reservations', 2, /--by and --reservations exclude each other/],
    ['ipam show --by rack', 2, /--by: "rack" .*pool, node, tenant, app/],
    ['ipam reserve --owner t/a', 2, /--owner: "t\/a" .*TENANT\/APP\/INSTANCE/],
    ['ipam reserve --ip 10.1.0.9 --count4 2', 2, /--ip .*excludes --count4/],
    ['ipam release', 2, /one of --ip, --reservation and --owner/],
    ['ipam release --ip 10.1.0.9 --owner t/a/0', 2, /one of --ip, --reservation and --owner/],
    ['ipam release --owner t/a/0 --generation 1', 2, /--generation goes with --ip/],
    ['ipam release --reservation r1 --force', 2, /--force goes with --ip or --owner/],
    ['pool set default --max-blocks x', 2, /--max-blocks: "x" is not a number/],
    ['profile show --api http://localhost', 2, /--api: .*unix:PATH or https/],
    ['completion tcsh', 2, /SHELL: "tcsh"/],
  ];
  for (const [line, code, words] of refused) {
    test(`netctl ${line.slice(0, 70)}`, async () => {
      await all('pool add 10.1.0.0/16', 'profile add web');
      await put(cli.fixture.store, 'endpoints/node1/aaaa', endpoint());
      const before = await cli.fixture.store.list('');
      const run = await netctl(line);
      assert.deepEqual([run.code, run.stdout], [code, ''], run.stderr);
      assert.match(run.stderr.trimEnd(), words);
      if (code === 1) assert.equal(run.stderr.trimEnd().split('\n').length, 1, 'one line');
      assert.deepEqual(await cli.fixture.store.list(''), before, 'nothing was written');
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
      const before = await cli.fixture.store.list('');
      const run = await netctl('profile web rule update', stdin);
      assert.deepEqual([run.code, run.stdout], [code, ''], run.stderr);
      assert.match(run.stderr, words);
      assert.deepEqual(await cli.fixture.store.list(''), before);
    });
  }

  test('rule update does not wait for a terminal', async () => {
    const { code, stderr } = await netctl('profile web rule update', '', {}, true);
    assert.equal(code, 2);
    assert.match(stderr, /terminal: redirect a file: netctl profile web rule update < FILE/);
  });
});
