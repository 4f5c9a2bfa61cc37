/**
 * netctl against a listening API: what a user types, what is printed, which exit code.
 */
import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { parse as parseYaml } from 'yaml';
import { addressRecord, block, endpoint, healthy, put, whyAnswer } from '../api/fixture.ts';
import { lines, useCli } from './session.ts';

const cli = useCli();
const { all, netctl } = cli;

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

  test('name:add is the profile called add, as a network of that name makes it', async () => {
    const record = { tags: ['add'], inbound_rules: [], outbound_rules: [] };
    for (const name of ['add', 'show', 'remove']) await put(cli.fixture.store, `profiles/${name}`, record);
    assert.equal(await all('profile name:add tag show'), lines('TAG', 'add'));
    assert.match(await all('profile name:show rule add inbound allow'), /profile show has 1 inbound rule/);
    assert.match(await all('profile remove name:remove'), /profile remove removed/);
    assert.equal(await all('get profile name:add -o name'), 'profile/add\n');
    assert.equal(await all('profile show -o name'), 'profile/add\nprofile/show\n');
  });

  test('kinds are taken in the plural, too', async () => {
    assert.equal(await all('get profiles -o json'), await all('get profile -o json'));
    assert.equal(await all('get policies -o json'), await all('get policy -o json'));
    assert.equal(await all('get address-sets -o json'), await all('get address-set -o json'));
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
        '   1 deny from cidr 192.0.2.1/32                                       (0 packets, 0 bytes)',
        '   2 allow from tag web                                                (0 packets, 0 bytes)',
        '   3 allow tcp from cidr 10.0.0.0/8 tag lb to ports 80,443,1000:2000   (0 packets, 0 bytes)',
        'Outbound rules:',
        '   1 log icmp type 8 code 0   (0 packets, 0 bytes)',
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
    const before = await cli.fixture.store.list('');
    const run = await netctl('profile web rule update', json);
    assert.deepEqual(run, {
      code: 0,
      stdout: 'profile web: rules updated (2 inbound, 1 outbound)\n',
      stderr: '',
    });
    assert.deepEqual(await cli.fixture.store.list(''), before);
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
    await all('pool set default --enabled --nat-outgoing');
    assert.equal(JSON.parse(await all('pool show default -o json'))[0].natOutgoing, true);
    await all('pool set default --no-nat-outgoing');
    assert.equal(JSON.parse(await all('pool show default -o json'))[0].natOutgoing, false);
    assert.equal(JSON.parse(await all('pool show default -o json'))[0].disabled, false);
    assert.equal(await all('pool remove six'), 'pool six removed\n');
  });

  test('documents: apply, get, delete, policy show, address-set show', async () => {
    const files = join(cli.directory, 'documents');
    mkdirSync(files);
    writeFileSync(
      join(files, '1.yaml'),
      lines(
        'kind: policy',
        'name: base',
        'order: 10',
        'selector: role == "db"',
        'inbound_rules:',
        '- {action: pass, protocol: tcp, src_set: office}',
        '- {action: deny}',
        '---',
        '{"kind": "address-set", "name": "office", "nets": ["10.1.0.0/16", "192.0.2.1"]}',
      ),
    );
    writeFileSync(
      join(files, '2.json'),
      '[{"kind":"policy","name":"a","order":11,"selector":"all()","outbound_rules":[]}]',
    );
    writeFileSync(join(files, 'README'), 'not a document');
    assert.equal(
      await all(`apply -f ${files} --dry-run`),
      lines(
        'policy base created (dry run)',
        'address-set office created (dry run)',
        'policy a created (dry run)',
        'no pair of endpoints gets another answer',
      ),
    );
    await all(`apply -f ${files}`);
    assert.equal(
      await all('policy show'),
      lines(
        'NAME   ORDER   INBOUND   OUTBOUND   SELECTOR',
        'base   10            2          -   role == "db"',
        'a      11            -          0   all()',
      ),
    );
    assert.equal(
      await all('policy show base'),
      lines(
        'Policy base, order 10, for role == "db"',
        'Inbound rules:',
        '   1 pass tcp from set office   (0 packets, 0 bytes)',
        '   2 deny                       (0 packets, 0 bytes)',
      ),
    );
    assert.equal(await all('address-set show office'), lines('10.1.0.0/16', '192.0.2.1/32'));
    const yaml = await all('get policy -o yaml');
    assert.deepEqual(
      (await netctl('apply --file -', yaml)).stdout,
      lines('policy a unchanged', 'policy base unchanged'),
    );
    assert.deepEqual((await netctl('delete address-set office')).code, 1);
    assert.equal(await all('delete address-set office --force'), 'address-set office deleted\n');
    const again = await netctl('apply -f -', yaml);
    assert.match(again.stderr, /warning: policy base: there is no address set office/);
    assert.equal(await all('delete policy a', 'get policy -o name'), 'policy/base\n');
    assert.match((await netctl('apply -f -', 'kind: [')).stderr, /standard input is not YAML/);
    assert.match((await netctl('apply -f none.yaml')).stderr, /cannot read none.yaml/);
    assert.match((await netctl('apply')).stderr, /say which files/);
    await put(cli.fixture.store, 'policies/bad', {});
    assert.match((await netctl('policy show')).stderr, /warning: policies\/bad in the store is not valid/);
  });

  test('apply --dry-run: which pairs would get another answer', async () => {
    const party = (name: string, endpoints: number, ...examples: string[]) => ({ name, endpoints, examples });
    const db = party('db', 1, 'aaaa');
    const impact = async () => ({
      changes: [
        {
          source: party('web', 12, 'bbbb', 'cccc', 'dddd'),
          destination: db,
          families: [4 as const, 6 as const],
          traffic: 'tcp 3306',
          before: 'allowed' as const,
          after: 'denied' as const,
        },
        {
          source: party('address set office', 0),
          destination: db,
          families: [6 as const],
          traffic: 'all traffic',
          before: 'denied' as const,
          after: 'allowed' as const,
        },
      ],
      more: 3,
      complete: false,
    });
    await cli.listen({ impact });
    const policy = JSON.stringify({ kind: 'policy', name: 'p', selector: 'all()', inbound_rules: [] });
    const { stdout } = await netctl('apply -f - --dry-run', policy);
    assert.equal(
      stdout,
      lines(
        'policy p created (dry run)',
        '',
        'FROM                                      TO          TRAFFIC              NOW       THEN',
        'web (12 endpoints: bbbb, cccc, dddd, …)   db (aaaa)   tcp 3306             allowed   denied',
        'address set office                        db (aaaa)   all traffic (IPv6)   denied    allowed',
        'and 3 more',
        'there is more than was looked at',
      ),
    );
    const json = JSON.parse((await netctl('apply -f - --dry-run -o json', policy)).stdout);
    assert.deepEqual(json.impact, await impact());
  });

  test('endpoint set: labels and extra sources', async () => {
    await put(cli.fixture.store, 'endpoints/node1/aaaa', endpoint({ labels: { old: 'yes' } }));
    assert.equal(
      await all(
        'endpoint set aaaa --label role=db --label empty= --extra-source 192.0.2.1 --extra-source fd00::/64',
      ),
      'endpoint aaaa set\n',
    );
    const shown = async () => JSON.parse(await all('endpoint show -o json'))[0];
    assert.deepEqual((await shown()).labels, { role: 'db', empty: '' });
    await all('endpoint set aaaa --label none');
    assert.deepEqual((await shown()).labels, {});
    assert.deepEqual((await shown()).extraSources, ['192.0.2.1/32', 'fd00::/64']);
    assert.equal((await netctl('endpoint set aaaa')).code, 2);
    assert.equal((await netctl('endpoint set aaaa --label role')).code, 2);
    assert.match((await netctl('endpoint set aaaa --extra-source 10.0.0.1/8')).stderr, /extraSources\[0\]/);
  });

  test('why: a sentence, and the rules on the way', async () => {
    const asked: unknown[] = [];
    await cli.listen({
      why: async (query) => {
        asked.push(query);
        return whyAnswer;
      },
    });
    assert.equal(
      await all('why aaaa bbbb tcp:3306'),
      lines(
        '10.1.0.7 (endpoint aaaa on node1) → 10.1.0.8 (endpoint bbbb on node1) tcp:3306: dropped by outbound rule 1 of profile web on node1',
        '',
        'on node1',
        '  nctl-FORWARD rule 5: from an endpoint (goto nctl-from)',
        '  nctl-out-web-x rule 1: web: deny tcp (drop)',
      ),
    );
    await all('why aaaa host');
    assert.deepEqual(asked, [
      { source: 'aaaa', destination: 'bbbb', protocol: { number: 6, port: 3306 } },
      { source: 'aaaa', destination: 'host', protocol: 'icmp' },
    ]);
    assert.match((await netctl('why aaaa bbbb tcp')).stderr, /^netctl: protocol: "tcp" .*tcp:PORT/);
  });

  test('rules with their counters', async () => {
    const inbound = [{ packets: 12, bytes: 720 }];
    await cli.listen({ ruleCounts: async () => ({ inbound, outbound: [] }) });
    await all('profile add web', 'profile web rule add inbound deny');
    assert.equal(
      await all('profile web rule show'),
      lines(
        'Inbound rules:',
        '   1 allow from tag web   (12 packets, 720 bytes)',
        '   2 deny                 (0 packets, 0 bytes)',
        'Outbound rules:',
        '   1 allow   (0 packets, 0 bytes)',
      ),
    );
  });

  test('addresses', async () => {
    await all('pool add 10.1.0.0/16', 'pool add fd00::/64');
    await put(cli.fixture.store, 'blocks/10.1.0.0-26', block);
    await put(cli.fixture.store, 'addresses/10.1.0.7', addressRecord());
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
    await put(cli.fixture.store, 'endpoints/node1/aaaa', endpoint());
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

describe('when not all is well', () => {
  test('no agent: 3, for version too little to fail', async () => {
    const gone = { NETCTL_API: `unix:${cli.directory}/gone.sock` };
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
    cli.fixture.store.failNext('list');
    const { code, stderr } = await netctl('profile show');
    assert.equal(code, 3);
    assert.match(stderr, /^netctl: /);
  });

  test('something else that answers there: 3', async () => {
    const path = join(cli.directory, 'other.sock');
    const server = createServer((_, response) => response.end('<html>'));
    await new Promise<void>((resolve) => server.listen(path, resolve));
    const { code, stderr } = await netctl(`profile show --api unix:${path}`);
    server.close();
    assert.equal(code, 3);
    assert.match(stderr, /not a netctl agent/);
  });

  test('not healthy: 4, with every problem', async () => {
    await cli.fixture.api.close();
    const status = {
      ...healthy,
      endpoints: { total: 1, unhealthy: [{ endpoint: 'ep1', reason: 'no route' }] },
    };
    await cli.listen({ status: () => status });
    const run = await netctl('node status');
    assert.equal(run.code, 4);
    assert.match(run.stdout, /^Node: +node1, not healthy$/m);
    assert.match(run.stdout, /\nProblems:\n {2}endpoint ep1: no route\n$/);
    assert.equal((await netctl('node status -o json')).code, 4);
  });

  test('not yet in force: done, with a warning', async () => {
    await cli.fixture.api.close();
    await cli.listen({ applied: () => Promise.reject(new Error('5 s')) });
    const run = await netctl('profile add web');
    assert.deepEqual([run.code, run.stdout], [0, 'profile web added\n']);
    assert.match(
      run.stderr,
      /^netctl: warning: profile web: stored at revision 1, but not yet in force on this host/,
    );
  });
});
