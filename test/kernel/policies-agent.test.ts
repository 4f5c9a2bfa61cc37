/** Policies, address sets and host endpoints from the command line to packets, on the built programs, with each back end. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { type Conflist, Container } from '../../lab/container.ts';
import { Host } from '../../lab/host.ts';

const conflist = (labels: Record<string, string>): Conflist => ({
  cniVersion: '1.0.0',
  name: 'edge',
  plugins: [
    {
      type: 'netctl',
      args: { cni: { labels: Object.entries(labels).map(([key, value]) => ({ key, value })) } },
    },
  ],
});

for (const backend of ['iptables', 'nftables', 'iptables-legacy']) {
  describe(`policies with ${backend}`, () => {
    let host: Host;
    const containers: Container[] = [];
    const addresses: string[] = [];

    before(async () => {
      host = await Host.create({ name: `po${backend.length}${process.pid}`, address: '192.0.2.1' });
      const variant = backend === 'iptables-legacy' ? ['--iptables-backend', 'legacy'] : [];
      await host.start(['--dataplane', backend.replace('-legacy', ''), ...variant]);
      await netctl('pool', 'add', '10.65.0.0/16');
      for (const role of ['web', 'db']) {
        const container = await Container.create(host, role);
        containers.push(container);
        const { ips } = await container.cniAdd(conflist({ role }));
        addresses.push(ips[0]!.address.split('/')[0]!);
        await container.serve([22, 80]);
      }
    });
    after(async () => {
      await Promise.all(containers.map((container) => container.close()));
      await host.close();
    });

    async function netctl(...words: string[]): Promise<string> {
      const { code, stdout, stderr } = await host.netctl(words);
      assert.equal(code, 0, stderr);
      return stdout;
    }

    async function apply(...documents: object[]): Promise<void> {
      const { code, stderr } = await host.netctl(['apply', '-f', '-'], { stdin: JSON.stringify(documents) });
      assert.equal(code, 0, stderr);
      assert.equal(stderr, '');
    }

    /** From web to db, on the ports 22 and 80; `netctl why` must say the same. */
    async function reaches(): Promise<boolean[]> {
      const [web] = containers;
      const [from, to] = addresses;
      const ports = [22, 80];
      const seen = await web!.connect(
        ports.map((port) => ({ address: to!, port })),
        400,
      );
      for (const [i, port] of ports.entries()) {
        const said = JSON.parse(await netctl('why', from!, to!, `tcp:${port}`, '-o', 'json'));
        assert.equal(said.allowed, seen[i]);
      }
      return seen;
    }

    test('a policy opens and closes within the answer of apply', async () => {
      assert.deepEqual(await reaches(), [true, true]);
      const policy = { kind: 'policy', name: 'db', selector: 'role == "db"' };
      const rule = { action: 'allow', protocol: 'tcp', dst_ports: [80], src_selector: 'role == "web"' };
      await apply({ ...policy, inbound_rules: [rule] });
      assert.deepEqual(await reaches(), [false, true]);
      assert.match(
        await netctl('why', addresses[0]!, addresses[1]!, 'tcp:22'),
        /dropped: no policy decided in nctl-in-edge-\S+ on/,
      );
      const office = { kind: 'address-set', name: 'office', nets: [`${addresses[0]}`] };
      await apply(office, {
        ...policy,
        inbound_rules: [{ action: 'deny', src_set: 'office' }, { action: 'pass' }],
      });
      assert.deepEqual(await reaches(), [false, false]);
      await apply({ ...office, nets: [] });
      assert.deepEqual(await reaches(), [true, true]);
      await netctl('endpoint', 'set', addresses[1]!, '--label', 'role=other');
      await netctl('delete', 'address-set', 'office', '--force');
      assert.deepEqual(await reaches(), [true, true]);
      await netctl('endpoint', 'set', addresses[1]!, '--label', 'role=db');
      assert.deepEqual(await reaches(), [false, false]);
      await netctl('delete', 'policy', 'db');
      assert.deepEqual(await reaches(), [true, true]);
    });

    test('a real packet confirms what is said, from a container and from the host', async () => {
      const [from, to] = addresses;
      interface Probe {
        readonly reason: string | null;
        readonly verdict: string | null;
        readonly agrees: boolean | null;
        readonly steps: { readonly chain: string; readonly table: string; readonly verdict: string }[];
      }
      const probe = async (source: string, destination: string, protocol: string): Promise<Probe> =>
        JSON.parse(await netctl('why', source, destination, protocol, '--probe', '-o', 'json')).probe;
      if (backend === 'iptables-legacy') {
        assert.match((await probe(from!, to!, 'tcp:80')).reason ?? '', /traces no rules of iptables-legacy/);
        assert.match(
          await netctl('why', from!, to!, 'tcp:80', '--probe'),
          /not sent: the kernel traces no rules/,
        );
        return;
      }
      const table = backend === 'nftables' ? 'netctl' : 'filter';
      for (const protocol of ['tcp:80', 'udp:53', 'icmp', 'sctp:80']) {
        const allowed = await probe(from!, to!, protocol);
        assert.deepEqual([allowed.reason, allowed.verdict, allowed.agrees], [null, 'accept', true], protocol);
        assert(allowed.steps.some((step) => step.table === table && step.chain.startsWith('nctl-in-edge')));
      }
      const policy = { kind: 'policy', name: 'db', selector: 'role == "db"', inbound_rules: [] };
      await apply(policy);
      for (const protocol of ['tcp:80', 'udp:53', 'icmp']) {
        const denied = await probe(from!, to!, protocol);
        assert.deepEqual([denied.verdict, denied.agrees], ['drop', true], protocol);
        assert.match(denied.steps.at(-1)!.chain, /^nctl-in-edge-/);
      }
      assert.deepEqual((await probe('host', to!, 'tcp:80')).agrees, true);
      assert.match((await probe('203.0.113.9', to!, 'tcp:80')).reason ?? '', /outside/);
      assert.match(
        await netctl('why', from!, to!, 'tcp:80', '--probe'),
        /a real packet\n(.*\n)*.*confirmed: drop/,
      );
      assert.doesNotMatch(await host.mustExec(['nft', 'list', 'tables']), /probe/);
      // What another table drops is not what was said, and is told.
      await netctl('delete', 'policy', 'db');
      await host.mustExec(['nft', 'add', 'table', 'ip', 'other']);
      await host.mustExec([
        ...['nft', 'add', 'chain', 'ip', 'other', 'forward'],
        '{ type filter hook forward priority 10; policy drop; }',
      ]);
      const dropped = await probe(from!, to!, 'tcp:80');
      assert.deepEqual([dropped.verdict, dropped.agrees], ['drop', false]);
      await host.mustExec(['nft', 'delete', 'table', 'ip', 'other']);
    });

    test('rules show how often they applied', async () => {
      await netctl(
        'profile',
        'edge',
        'rule',
        'add',
        'inbound',
        '--at',
        '1',
        'allow',
        'tcp',
        'to',
        'ports',
        '80',
      );
      assert.deepEqual(await reaches(), [true, true]);
      const shown = await netctl('profile', 'edge', 'rule', 'show');
      assert.match(shown, /1 allow tcp to ports 80 +\(1 packets, \d+ bytes\)/);
    });

    test('a host endpoint takes away what its profiles do not allow; failsafe ports stay', async () => {
      const profile = { kind: 'profile', name: 'closed', tags: [], inbound_rules: [], outbound_rules: [] };
      const hostEndpoint = {
        kind: 'host-endpoint',
        node: host.name,
        name: 'all',
        interface: '*',
        profiles: ['closed'],
      };
      await apply(profile, hostEndpoint);
      const why = async (protocol: string): Promise<boolean> =>
        JSON.parse(await netctl('why', '203.0.113.9', 'host', protocol, '-o', 'json')).allowed;
      assert.deepEqual([await why('tcp:22'), await why('tcp:8080')], [true, false]);
      assert.deepEqual(await reaches(), [true, true]);
      // By name: it is asked for what comes by that interface, as the routes of the host say.
      await apply(profile, { ...hostEndpoint, interface: 'eth0' });
      const whyNear = await netctl('why', '192.0.2.9', 'host', 'tcp:8080');
      assert.match(whyNear, /dropped: no profile matched/);
      assert.match(whyNear, /host interface eth0/);
      const sent = await netctl('why', 'host', '192.0.2.9', 'tcp:8080', '--probe', '-o', 'json');
      const { probe } = JSON.parse(sent);
      if (backend !== 'iptables-legacy') assert.deepEqual([probe.verdict, probe.agrees], ['drop', true]);
      await netctl('delete', 'host-endpoint', `${host.name}/all`);
      assert.equal(await why('tcp:8080'), true);
    });
  });
}
