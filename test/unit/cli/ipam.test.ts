/**
 * `netctl ipam` and the settings of pools against a listening API: what is typed, what is printed, which exit code.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { addressRecord, block, endpoint, put } from '../api/fixture.ts';
import { lines, useCli } from './session.ts';

const cli = useCli();
const { all, netctl } = cli;

describe('addresses', () => {
  test('pools with everything that says who may take what; `none` clears', async () => {
    await all(
      'pool add 10.1.0.0/16 --gateway 10.1.0.1 --range 10.1.0.0/24 --range 10.1.9.1-10.1.9.9 --tenant t --max-blocks 4 --max-addresses 99 --node-selector has(rack)',
    );
    const shown = async () => JSON.parse(await all('pool show default -o json'))[0];
    const { gateway, ranges, tenants, maxBlocksPerNode, maxAddressesPerNode, nodeSelector } = await shown();
    assert.deepEqual(
      [gateway, ranges, tenants, maxBlocksPerNode, maxAddressesPerNode, nodeSelector],
      ['10.1.0.1', ['10.1.0.0-10.1.0.255', '10.1.9.1-10.1.9.9'], ['t'], 4, 99, 'has(rack)'],
    );
    assert.match(
      await all('pool show -o wide'),
      /10\.1\.0\.0-10\.1\.0\.255,10\.1\.9\.1-10\.1\.9\.9 +t +4 +99/,
    );
    await all('pool set default --gateway none --range none --tenant none --max-blocks none');
    const cleared = await shown();
    assert.deepEqual(
      [cleared.gateway, cleared.ranges, cleared.tenants, cleared.maxBlocksPerNode],
      [null, [], [], null],
    );
    assert.deepEqual([cleared.maxAddressesPerNode, cleared.nodeSelector], [99, 'has(rack)']);
  });

  test('reserved by number or by name, listed, released with their reservation', async () => {
    await all('pool add 10.1.0.0/24', 'pool add fd00::/64');
    const both = JSON.parse(
      await all('ipam reserve --count4 2 --count6 1 --owner t/a/0 --pool default --pool fd00---64 -o json'),
    );
    assert.deepEqual(
      both.addresses.map(({ pool }: { pool: string }) => pool),
      ['default', 'default', 'fd00---64'],
    );
    const named = await all('ipam reserve --ip 10.1.0.77 --ip 10.1.0.78 --owner t/b/0 --ttl 60');
    assert.match(named, /^Addresses: +10\.1\.0\.77, 10\.1\.0\.78$/m);
    const [, id = ''] = /^Reservation: +(\S+)$/m.exec(named) ?? [];
    const table = (await all('ipam show --reservations')).split('\n');
    assert.match(table[0] ?? '', /^RESERVATION +OWNER +NODE +ADDRESSES +EXPIRES$/);
    assert.ok(
      table.some((line) => line.startsWith(id) && / t\/b +- +10\.1\.0\.77,10\.1\.0\.78 +1970/.test(line)),
    );
    assert.equal(
      await all(`ipam release --reservation ${id}`),
      `reservation ${id} cancelled: free 10.1.0.77, 10.1.0.78\n`,
    );
    assert.equal(
      await all(`ipam release --reservation ${id}`),
      `reservation ${id} held no address (any more)\n`,
    );
    const one = JSON.parse(await all('ipam reserve -o json'));
    assert.deepEqual(
      one.addresses.map(({ owner }: { owner: object }) => owner),
      [{ tenant: 'default', app: 'netctl', instance: 'reserved' }],
    );
    assert.equal(await all(`ipam release --reservation ${one.id} -o name`), `reservation/${one.id}\n`);
  });

  test('utilisation by pool and by app', async () => {
    await all('pool add 10.1.0.0/24', 'ipam reserve --count4 3 --owner t/a/0', 'ipam reserve --owner u/b/0');
    assert.equal(
      await all('ipam show --by pool'),
      lines(
        'POOL      IN-USE   COOLDOWN   AVAILABLE   EXCLUDED   CAPACITY',
        'default        4          0         250          2        256',
      ),
    );
    assert.equal(
      await all('ipam show --by app'),
      lines(
        'APP   IN-USE   RESERVED   BOUND   ACTIVE   RETAINED   QUARANTINED   COOLDOWN',
        't/a        3          3       0        0          0             0          0',
        'u/b        1          1       0        0          0             0          0',
      ),
    );
    assert.deepEqual(await netctl('ipam show --by node'), { code: 0, stdout: '', stderr: 'no nodes\n' });
  });

  test('one released: what is kept at once, what is in use by force only, at the generation that is named', async () => {
    await all('pool add 10.1.0.0/24 --cooldown 0');
    const { store, node } = cli.fixture;
    const owner = { tenant: 't', app: 'a', instance: '0' };
    const kept = { owner, state: 'retained', endpoint: null, onRelease: 'immutable', generation: 4 };
    await put(store, 'addresses/10.1.0.7', addressRecord(kept));
    await put(store, 'addresses/10.1.0.8', addressRecord({ owner, container: 'c1' }));
    await put(store, 'addresses/10.1.0.9', addressRecord(kept));
    await node.settled();
    const stale = await netctl('ipam release --ip 10.1.0.7 --generation 3');
    assert.deepEqual([stale.code, stale.stdout], [1, '']);
    assert.match(stale.stderr, /at generation 4, not 3/);
    assert.equal(await all('ipam release --ip 10.1.0.7'), 'address 10.1.0.7 released: free\n');
    assert.match((await netctl('ipam release --ip 10.1.0.8')).stderr, /in use by c1 on node node1/);
    assert.equal(
      await all('ipam release --ip 10.1.0.8 --force'),
      'address 10.1.0.8 released by force: free\n',
    );
    assert.deepEqual(
      cli.fixture.forced.map(({ what }) => what),
      ['10.1.0.8'],
    );
    assert.equal(await all('ipam release --owner t/a/0'), 'owner t/a/0: released 10.1.0.9\n');
    assert.equal(await all('ipam release --owner t/a/0'), 'owner t/a/0: nothing to release (any more)\n');
    assert.deepEqual((await store.list('addresses/')).entries, []);
  });

  test('who has an address: also for whom and until when it is kept', async () => {
    await all('pool add 10.1.0.0/24');
    const until = '2026-03-04T05:06:07.000Z';
    const record = addressRecord({ state: 'retained', endpoint: null, expiresAt: until, reservation: 'r1' });
    await put(cli.fixture.store, 'addresses/10.1.0.7', record);
    const shown = await all('ipam show --ip 10.1.0.7');
    assert.match(shown, /^Reservation: +r1$/m);
    assert.match(shown, /^Kept until: +2026-03-04T05:06:07\.000Z$/m);
  });
});

describe('check', () => {
  const owner = { tenant: 't', app: 'a', instance: '0' };

  async function leak(): Promise<void> {
    await all('pool add 10.1.0.0/24');
    const { store } = cli.fixture;
    await put(store, 'blocks/10.1.0.0-26', block);
    await put(store, 'addresses/10.1.0.7', addressRecord({ owner, endpoint: 'gone' }));
    await put(store, 'owners/t/a/0/10.1.0.7', { pool: 'default' });
  }

  test('nothing found: 0', async () => {
    assert.deepEqual(await netctl('ipam check'), { code: 0, stdout: '', stderr: 'no findings\n' });
    assert.deepEqual(await netctl('ipam check --fix -o json'), { code: 0, stdout: '[]\n', stderr: '' });
  });

  test('found: 4 with the remedy; fixed: the plan, then the outcome, and 0', async () => {
    await leak();
    const found = await netctl('ipam check');
    assert.equal(found.code, 4);
    assert.match(
      found.stdout,
      /^KIND +FOUND +REMEDY\nleaked +10\.1\.0\.7 is active for endpoint gone .*after 60 s\n$/,
    );
    const fixed = await netctl('ipam check --fix');
    assert.equal(fixed.code, 0);
    assert.match(
      fixed.stdout,
      /^KIND +FOUND +REMEDY\nleaked .*\n\nKIND +FOUND +REMEDY +OUTCOME\nleaked .* fixed\n$/,
    );
    assert.equal((await netctl('ipam check')).code, 0);
  });

  test('found and not for netctl to decide: 4, also with --fix', async () => {
    await leak();
    for (const id of ['ep1', 'ep2'])
      await put(cli.fixture.store, `endpoints/node1/${id}`, endpoint({ addresses: ['10.1.0.9'] }));
    const run = await netctl('ipam check --fix -o json');
    assert.equal(run.code, 4);
    assert.deepEqual(
      JSON.parse(run.stdout).map(({ kind, outcome }: Record<string, string>) => [kind, outcome]),
      [
        ['leaked', 'fixed'],
        ['duplicate', 'left'],
      ],
    );
  });
});
