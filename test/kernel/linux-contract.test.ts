/**
 * The contract on the fake and on this machine's kernel, and what only a kernel can show: packets, timing, overflow.
 *
 * In: nothing. Out: tests. Never: a trace outside the sandbox.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readdirSync, readlinkSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { eventually } from '../../lab/run.ts';
import { FakeLinux } from '../../src/linux/fake/linux.ts';
import { probePacket } from '../../src/linux/packet.ts';
import type { LinkEvent, Linux, Routing, TrackedConnection } from '../../src/linux/ports.ts';
import { createConntrack } from '../../src/linux/real/conntrack.ts';
import { createIptables } from '../../src/linux/real/iptables.ts';
import { LinkReaper } from '../../src/linux/real/link-reaper.ts';
import { watchLinks } from '../../src/linux/real/link-watch.ts';
import { createLinux } from '../../src/linux/real/linux.ts';
import type { Address } from '../../src/model/ip.ts';
import { planContainer, planHost, type VethSpec } from '../../src/veth/plan.ts';
import { type Adapter, address, endpoint, linuxContract } from './linux-contract.ts';
import { addNetns, enterSandbox, ip, removeNetns } from './linux-contract-sandbox.ts';

enterSandbox(import.meta.url);

linuxContract('fake', async () => {
  const linux = new FakeLinux();
  return {
    linux,
    addNetns: (name) => {
      linux.addNetns(`/run/netns/${name}`);
      return `/run/netns/${name}`;
    },
    removeNetns: (name) => linux.removeNetns(`/run/netns/${name}`),
    close: () => assert.deepEqual(linux.pendingFailures, []),
  };
});

for (const iptablesBackend of ['nft', 'legacy'] as const) {
  linuxContract(`real kernel, iptables-${iptablesBackend}`, async (): Promise<Adapter> => {
    const linux = await createLinux({ iptablesBackend });
    return {
      linux,
      addNetns: (name) => addNetns(`${name}-${iptablesBackend}`),
      removeNetns: (name) => removeNetns(`${name}-${iptablesBackend}`),
      close: () => linux.close(),
    };
  });
}

describe('real kernel only', () => {
  let linux: Linux & { close(): void };
  let host: Routing;
  before(async () => {
    linux = await createLinux({ iptablesBackend: 'auto' });
    host = linux.openRouting();
    linux.writeSysctl('net/ipv4/conf/all/rp_filter', '0');
  });
  after(() => {
    host.close();
    linux.close();
  });

  /** A whole ADD; returns how long it took. */
  function attach(spec: VethSpec, path: string): number {
    const start = performance.now();
    const netns = linux.openNetns(path);
    const here = { ...spec, netnsFd: netns.fd };
    host.batch(planHost(here));
    const container = linux.openRouting(netns);
    container.batch(planContainer(here));
    host.link({ index: spec.hostIndex });
    container.close();
    netns.close();
    return performance.now() - start;
  }

  /** Time until the container refuses a TCP connection to a closed port; a lost packet is sent again after 1 s. */
  function firstAnswerMs(localAddress: string, remote: string): Promise<number> {
    const start = performance.now();
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    const socket = connect({ host: remote, port: 9, localAddress });
    socket.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'ECONNREFUSED') resolve(performance.now() - start);
      else reject(error);
    });
    socket.on('connect', () => reject(new Error(`${remote} took a connection to the discard port`)));
    return promise;
  }

  test('a pair has one queue each way on both ends: the kernel need not take others away again', () => {
    const path = addNetns('nct-queues');
    const spec = endpoint(2900, -1);
    attach(spec, path);
    const queuesOf = (text: string): unknown => {
      const [link] = JSON.parse(text) as { num_tx_queues?: number; num_rx_queues?: number }[];
      return [link?.num_tx_queues, link?.num_rx_queues];
    };
    const show = ['-d', '-j', 'link', 'show', 'dev'];
    assert.deepEqual(queuesOf(ip(...show, spec.hostInterface)), [1, 1]);
    assert.deepEqual(queuesOf(ip('-n', 'nct-queues', ...show, spec.containerInterface)), [1, 1]);
    removeNetns('nct-queues');
  });

  test('50 containers: the first packet after ADD is answered, IPv4 and IPv6; a deletion is done when it is answered', async (t) => {
    // The container's default gateway answers for nothing: the host needs addresses that containers can answer to.
    ip('addr', 'add', '192.0.2.1/32', 'dev', 'lo');
    ip('addr', 'add', 'fd00:1::1/128', 'dev', 'lo');
    const adds: number[] = [];
    const deletions: number[] = [];
    for (let i = 0; i < 50; i++) {
      const path = addNetns(`nct-ping-${i}`);
      const spec = { ...endpoint(3000 + i, -1), addresses: [address('10.66.0.2'), address('fd00:66::2')] };
      adds.push(attach(spec, path));
      const [from, to] = i % 2 ? ['192.0.2.1', '10.66.0.2'] : ['fd00:1::1', 'fd00:66::2'];
      const answered = await firstAnswerMs(from, to);
      assert.ok(
        answered < 900,
        `${to} answered container ${i} after ${answered} ms: the first packet was lost`,
      );
      const start = performance.now();
      await linux.deleteLink(spec.hostIndex);
      deletions.push(performance.now() - start);
      assert.equal(host.link({ index: spec.hostIndex }), null);
      removeNetns(`nct-ping-${i}`);
    }
    t.diagnostic(
      `ADD (namespace, host batch, container batch, carrier): median ${median(adds).toFixed(3)} ms`,
    );
    t.diagnostic(`deleteLink: median ${median(deletions).toFixed(3)} ms`);
  });

  test('adding one member to a set takes microseconds', (t) => {
    linux.ipsets.batch([{ kind: 'create', name: 'ct-time', type: 'net', family: 4 }]);
    const times = Array.from({ length: 200 }, (_, i) => {
      const start = performance.now();
      linux.ipsets.batch([{ kind: 'add', name: 'ct-time', members: [`10.80.0.${i + 1}/32`] }]);
      return performance.now() - start;
    });
    linux.ipsets.batch([{ kind: 'destroy', name: 'ct-time' }]);
    t.diagnostic(`ipset add of one member: median ${(median(times) * 1000).toFixed(1)} µs`);
    assert.ok(median(times) < 5);
  });

  test('a watch whose buffer overflowed says so and goes on', async () => {
    const events: LinkEvent[] = [];
    const stop = watchLinks((event) => events.push(event), undefined, 4096);
    const spec = endpoint(4000, linux.openNetns(addNetns('nct-overflow')).fd);
    host.batch(planHost(spec).slice(0, 1));
    for (let i = 0; i < 200; i++)
      host.batch([{ kind: 'link-set', index: spec.hostIndex, mtuBytes: 1300 + (i % 2) }]);
    const saw = (wanted: (event: LinkEvent) => boolean) => async () => {
      for (let i = 0; i < 500 && !events.some(wanted); i++) await sleep(10);
      return events.some(wanted);
    };
    assert.ok(await saw((event) => event.kind === 'lost')());
    events.length = 0;
    host.batch([{ kind: 'link-set', index: spec.hostIndex, mtuBytes: 1999 }]);
    assert.ok(await saw((event) => event.kind === 'changed' && event.link.mtuBytes === 1999)());
    await linux.deleteLink(spec.hostIndex);
    stop();
  });

  for (const useFilter of [true, false]) {
    test(`connections of an address go, others stay (${useFilter ? 'by filter' : 'one by one'})`, async () => {
      const conntrack = createConntrack({ useFilter });
      // Both directions of a translated connection: 203.0.113.9 stands only in the original, 10.67.0.3 only in the reply.
      track('10.67.0.2', '203.0.113.9', '10.67.0.3');
      track('10.67.0.4', '10.67.0.5', '10.67.0.5');
      track('10.67.0.6', '10.67.0.7', '10.67.0.7');
      const others = Array.from({ length: 20 }, (_, i) => `10.67.1.${i}`);
      const gone = ['10.67.0.3', '10.67.0.4', 'fd00:67::1'].map(address);
      // Few, which a filter deletes; then so many that a list of all is cheaper.
      await conntrack.flushAddresses(gone);
      track('10.67.0.4', '10.67.0.5', '10.67.0.5');
      await conntrack.flushAddresses([...gone, ...others.map(address)]);
      const left = execFileSync('conntrack', ['-L', '-p', 'udp'], {
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'ignore'],
      });
      assert.match(left, /10\.67\.0\.6/);
      assert.doesNotMatch(left, /203\.0\.113\.9|10\.67\.0\.4/);
      await conntrack.flushAddresses([address('10.67.0.7')]);
    });
  }

  test('connections of many addresses are flushed at once, on one socket that stays', async () => {
    for (const host of [1, 2, 3]) track(`10.69.0.${host}`, '10.69.0.9', '10.69.0.9');
    const conntrack = createConntrack();
    await conntrack.flushAddresses([address('10.69.0.1')]);
    const { length: left } = execFileSync('conntrack', ['-L', '-s', '10.69.0.1'], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    assert.equal(left, 0, 'one address alone');
    const sockets = (): number =>
      readdirSync('/proc/self/fd').filter((fd) => {
        try {
          return readlinkSync(`/proc/self/fd/${fd}`).startsWith('socket:');
        } catch {
          return false; // that of the list itself
        }
      }).length;
    const before = sockets();
    await Promise.all(
      ['10.69.0.2', 'fd00:69::1', '10.69.0.250'].map((text) => conntrack.flushAddresses([address(text)])),
    );
    // Those of lists are closed a moment later.
    assert.ok(sockets() <= before);
    assert.equal(await conntrack.flushWhere(4, ({ source }) => source.startsWith('10.69.')), 1);
  });

  test('of thousands of connections, which come in several pieces, those of many addresses go, of both families', async () => {
    const four = Array.from({ length: 4000 }, (_, i) => `10.66.${i >> 8}.${i & 255}`);
    const six = Array.from({ length: 1000 }, (_, i) => `fd00:66::${i + 1}`);
    const other = (source: string): string => (source.includes(':') ? 'fd00:99::1' : '10.99.0.1');
    const lines = [...four, ...six].map((each) => tracking(each, other(each), other(each)).join(' '));
    writeFileSync('/run/nct-connections', `${lines.join('\n')}\n`);
    execFileSync('conntrack', ['--load-file', '/run/nct-connections'], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    const conntrack = createConntrack();
    const gone = [...four, ...six].filter((_, i) => i % 2 === 0);
    await conntrack.flushAddresses(gone.map(address));
    const left: string[] = [];
    const note = ({ source }: TrackedConnection): boolean =>
      /^(10\.66\.|fd00:66:)/.test(source) && left.push(source) > 0;
    assert.equal(await conntrack.flushWhere(4, note), four.length / 2);
    assert.equal(await conntrack.flushWhere(6, note), six.length / 2);
    assert.deepEqual(new Set(left), new Set([...four, ...six].filter((_, i) => i % 2 === 1)));
  });

  test('connections that are picked go, and are shown as a filter has seen their first packet', async () => {
    const conntrack = createConntrack();
    track('10.68.0.2', '203.0.113.9', '10.68.0.3');
    track('10.68.0.4', '10.68.0.5', '10.68.0.5');
    const shown: TrackedConnection[] = [];
    const pick = (connection: TrackedConnection): boolean => {
      if (!connection.source.startsWith('10.68.')) return false;
      shown.push(connection);
      return connection.destination === '10.68.0.3';
    };
    assert.equal(await conntrack.flushWhere(4, pick), 1);
    assert.equal(await conntrack.flushWhere(6, pick), 0);
    const ports = { protocol: 17, sourcePort: 1000, destinationPort: 2000, icmp: null };
    assert.deepEqual(
      shown.sort((a, b) => (a.source < b.source ? -1 : 1)),
      [
        { ...ports, source: '10.68.0.2', destination: '10.68.0.3' },
        { ...ports, source: '10.68.0.4', destination: '10.68.0.5' },
      ],
    );
    assert.equal(await conntrack.flushWhere(4, ({ source }) => source.startsWith('10.68.')), 1);
  });

  test('what drops all at the hook forward is found, by policy or by the last rule, in any table', async () => {
    const nft = (text: string): void => void execFileSync('nft', ['-f', '-'], { input: text });
    const hook = (policy: string): string => `type filter hook forward priority 5; policy ${policy};`;
    nft(`table inet ct-drops {
      chain by-policy { ${hook('drop')} accept; }
      chain by-reject { ${hook('accept')} ip saddr 10.0.0.1 accept; counter reject with icmpx admin-prohibited; }
      chain logs { ${hook('accept')} log prefix "x"; }
      chain some { ${hook('accept')} tcp dport 22 drop; }
      chain other { type filter hook input priority 5; policy drop; accept; }
      chain none { drop; }
    }
    table ip ct-drops { chain by-drop { ${hook('accept')} accept; drop; }
    }`);
    const found = (await linux.nftables.dropsAtForward()).filter(({ table }) => table === 'ct-drops');
    assert.deepEqual(found.map(({ family, chain }) => `${family} ${chain}`).sort(), [
      'inet by-policy',
      'inet by-reject',
      'ip by-drop',
    ]);
    nft('delete table inet ct-drops; delete table ip ct-drops');
  });

  test('rules of others are told, those of tables of ours and of our own programs are not', async () => {
    let told = 0;
    const stop = linux.watchForeignRules('netctl', () => told++);
    linux.nftables.transact([{ family: 4, table: 'netctl-mine', kind: 'table-add' }]);
    linux.nftables.transact([{ family: 4, table: 'netctl-mine', kind: 'table-delete' }]);
    await createdIptables(linux);
    execFileSync('nft', ['add', 'table', 'ip', 'ct-last']);
    await eventually('the last one is told', 10_000, async () => told > 0);
    assert.equal(told, 1);
    execFileSync('nft', ['delete', 'table', 'ip', 'ct-last']);
    stop();
  });

  test('a traced packet tells which rules it meets', async () => {
    const netns = linux.openNetns(addNetns('nct-trace'));
    ip('link', 'add', 'trace0', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', 'nct-trace');
    ip('address', 'add', '10.69.0.1/24', 'dev', 'trace0');
    ip('link', 'set', 'trace0', 'up');
    ip('-n', 'nct-trace', 'address', 'add', '10.69.0.2/24', 'dev', 'eth0');
    ip('-n', 'nct-trace', 'link', 'set', 'eth0', 'up');
    execFileSync('nft', ['-f', '-'], {
      input: `table ip ct-trace {
        chain enter { type filter hook input priority 0; tcp dport 81 jump further; tcp dport 80 drop; }
        chain further { accept; }
      }`,
    });
    const send = (destinationPort: number) =>
      linux.tracePacket(
        probePacket({
          source: '10.69.0.2' as Address,
          destination: '10.69.0.1' as Address,
          protocol: 6,
          sourcePort: 40_000,
          destinationPort,
          icmp: null,
          id: destinationPort,
        }),
        netns,
      );
    const steps = async (port: number): Promise<string[]> =>
      (await send(port))
        .filter(({ table, verdict }) => table === 'ct-trace' && verdict !== 'continue')
        .map(({ family, chain, at, verdict }) => `${family} ${chain} ${at}: ${verdict}`);
    assert.deepEqual(await steps(80), ['ip enter rule: drop']);
    assert.deepEqual(await steps(81), ['ip enter rule: jump further', 'ip further rule: accept']);
    assert.deepEqual(await steps(82), ['ip enter policy: accept']);
    assert.doesNotMatch(execFileSync('nft', ['list', 'tables'], { encoding: 'utf8' }), /probe/);
    execFileSync('nft', ['delete', 'table', 'ip', 'ct-trace']);
    netns.close();
    removeNetns('nct-trace');
  });

  test('a deletion that the kernel refuses is reported, alone or in a group with others', async () => {
    const netns = linux.openNetns(addNetns('nct-refuse'));
    const specs = Array.from({ length: 300 }, (_, i) => ({
      ...endpoint(5000 + i, netns.fd),
      containerInterface: `c${i}`,
    }));
    for (const spec of specs) host.batch(planHost(spec).slice(0, 1));
    const loopback = host.link({ name: 'lo' })!.index;
    await assert.rejects(linux.deleteLink(loopback), { errno: 'EOPNOTSUPP' });
    const middle = Math.floor(specs.length / 2);
    const indexes = specs.map((spec) => spec.hostIndex).toSpliced(middle, 0, loopback);
    const results = await Promise.allSettled(indexes.map((index) => linux.deleteLink(index)));
    assert.deepEqual(
      results.flatMap((result, i) => (result.status === 'rejected' ? [i] : [])),
      [middle],
    );
    assert.deepEqual(
      (await host.links()).filter((link) => link.name.startsWith('nctl5')),
      [],
    );
    netns.close();
  });

  test('a deletion settles though both its notification and its acknowledgement were lost', async () => {
    const netns = linux.openNetns(addNetns('nct-lost'));
    const spec = endpoint(6000, netns.fd);
    host.batch(planHost(spec).slice(0, 1));
    const reaper = new LinkReaper();
    const removed = reaper.remove(spec.hostIndex);
    await Promise.resolve();
    reaper.close();
    await removed;
    assert.equal(host.link({ index: spec.hostIndex }), null);
    netns.close();
  });

  test('text that iptables does not take comes back with its own words', async () => {
    await assert.rejects(
      createIptables('nft', () => undefined).restore(4, '*filter\n-A FORWARD --bogus\nCOMMIT\n'),
      /--bogus/,
    );
  });

  test('what is not a network namespace is refused', () => {
    for (const path of ['/dev/null', '/proc/self/ns/mnt', '/no/such/file']) {
      assert.throws(() => linux.openNetns(path), { code: 'NETNS_INVALID' }, path);
    }
  });
});

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1]!;
}

/** A connection in the kernel's table: UDP from port 1000 to 2000, its destination translated where the answers come from elsewhere. */
function track(source: string, destination: string, replySource: string): void {
  execFileSync('conntrack', tracking(source, destination, replySource));
}

function tracking(source: string, destination: string, replySource: string): string[] {
  const first = ['-s', source, '-d', destination, '--sport', '1000', '--dport', '2000'];
  const answer = ['-r', replySource, '-q', source, '--reply-port-src', '2000', '--reply-port-dst', '1000'];
  return ['-I', '-p', 'udp', '-t', '120', ...first, ...answer];
}

/** A change by a program of ours. */
async function createdIptables({ iptables }: Pick<Linux, 'iptables'>): Promise<void> {
  await iptables.restore(4, '*filter\n:ct-ours - [0:0]\nCOMMIT\n');
  await iptables.restore(4, '*filter\n-X ct-ours\nCOMMIT\n');
}
