/** Docker's two drivers, called as libnetwork calls them, on an agent with a fake kernel. */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { request as httpRequest, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import type { Attachments } from '../../../src/agent/attach.ts';
import { wanted } from '../../../src/docker/options.ts';
import { createDockerServer } from '../../../src/docker/server.ts';
import { mappingText } from '../../../src/model/port-mapping.ts';
import type { Endpoint } from '../../../src/model/records.ts';
import { Rig, silent } from '../agent/rig.ts';

type Answer = Record<string, unknown> & {
  readonly Err?: string;
  readonly Error?: string;
  readonly PoolID: string;
  readonly Address: string;
};

const NetworkID = 'e'.repeat(64);
const EndpointID = 'a'.repeat(64);
const gateway = { 'com.docker.network.gateway': '169.254.1.1/32' };

describe("Docker's drivers", () => {
  let rig: Rig;
  let directory: string;
  let attachments: Attachments;
  let server: Server;

  async function serve(): Promise<void> {
    server = createDockerServer({
      attacher: attachments,
      addressesOf: (id) => attachments.addressesOf(id),
      ipam: rig.agent.ipam,
      node: 'n1',
      directory: join(directory, 'networks'),
      logger: silent,
    });
    await new Promise<void>((listening) => server.listen(join(directory, 'docker.sock'), listening));
  }
  beforeEach(async () => {
    directory = mkdtempSync(join(tmpdir(), 'netctl-docker-'));
    rig = new Rig();
    rig.linux.addNetns('/proc/self/ns/net');
    attachments = await rig.start();
    await serve();
  });
  afterEach(async () => {
    server.close();
    await rig.agent.stop();
    rmSync(directory, { recursive: true });
  });

  const post = (path: string, body: string): Promise<{ status: number; answer: Answer }> =>
    new Promise((resolve, reject) => {
      const options = { socketPath: join(directory, 'docker.sock'), path, method: 'POST', agent: false };
      const call = httpRequest(options, async (response) => {
        let text = '';
        for await (const part of response) text += part;
        resolve({ status: response.statusCode ?? 0, answer: JSON.parse(text) });
      });
      call.on('error', reject);
      call.end(body);
    });
  const ask = async (method: string, body: object = {}): Promise<Answer> =>
    (await post(`/${method}`, JSON.stringify(body))).answer;
  const must = async (method: string, body: object = {}): Promise<Answer> => {
    const answer = await ask(method, body);
    assert.equal(answer.Err ?? answer.Error, undefined, method);
    return answer;
  };
  const createNetwork = (generic: object = {}): Promise<Answer> =>
    must('NetworkDriver.CreateNetwork', {
      NetworkID,
      Options: { 'com.docker.network.generic': generic },
      IPv4Data: [{ AddressSpace: 'netctl', Pool: '0.0.0.0/0', Gateway: '169.254.1.1/32' }],
      IPv6Data: [],
    });
  /** As libnetwork: pool, then address. */
  const requestAddress = async (address = '', v6 = false): Promise<string> => {
    const { PoolID } = await must('IpamDriver.RequestPool', { AddressSpace: 'netctl', V6: v6 });
    return (await must('IpamDriver.RequestAddress', { PoolID, Address: address, Options: {} })).Address;
  };
  const endpoint = { NetworkID, EndpointID };
  const endpoints = async (): Promise<Endpoint[]> =>
    (await rig.store.list('endpoints/')).entries.map(({ value }) => value as unknown as Endpoint);

  test('says what it is, and that nothing else is there', async () => {
    assert.deepEqual(await must('Plugin.Activate'), { Implements: ['NetworkDriver', 'IpamDriver'] });
    assert.deepEqual(await must('NetworkDriver.GetCapabilities'), {
      Scope: 'local',
      ConnectivityScope: 'global',
    });
    for (const path of ['/NetworkDriver.AllocateNetwork', '/Plugin.toString', '/constructor.name', '/'])
      assert.equal((await post(path, '{}')).status, 404, path);
  });

  test('what is no JSON, and what is not what Docker sends, is an error in the field of that driver', async () => {
    assert.match((await post('/NetworkDriver.CreateNetwork', '{')).answer.Err!, /JSON/);
    assert.match((await post('/IpamDriver.RequestAddress', '[')).answer.Error!, /JSON/);
    assert.match((await ask('NetworkDriver.CreateEndpoint', { NetworkID: 7 })).Err!, /NetworkID/);
    const escaping = await ask('NetworkDriver.CreateNetwork', { NetworkID: '../../etc/passwd' });
    assert.match(escaping.Err!, /NetworkID.*12 to 64/);
    assert.deepEqual(readdirSync(directory), ['docker.sock']);
  });

  test('a container’s life: address, endpoint, join, leave, nothing left', async () => {
    await createNetwork({ 'netctl.network': 'edge', 'netctl.profile': 'web', 'netctl.labels': 'role:db' });
    const Address = await requestAddress();
    assert.match(Address, /^10\.0\.0\.\d+\/32$/);
    const created = await must('NetworkDriver.CreateEndpoint', { ...endpoint, Interface: { Address } });
    assert.match(JSON.stringify(created), /^{"Interface":{"MacAddress":"[0-9a-f:]{17}"}}$/);
    const [made] = await endpoints();
    assert.deepEqual(
      [made?.kind, made?.network, made?.addresses, made?.profiles, made?.labels],
      ['handed', 'edge', [Address.split('/')[0]], ['web'], { role: 'db' }],
    );
    const joined = await must('NetworkDriver.Join', { ...endpoint, SandboxKey: '/var/run/docker/netns/x' });
    assert.deepEqual(
      [joined['Gateway'], joined['GatewayIPv6'], joined['DisableGatewayService']],
      ['169.254.1.1', undefined, true],
    );
    assert.deepEqual(joined['StaticRoutes'], [{ Destination: '169.254.1.1/32', RouteType: 1, NextHop: '' }]);
    await must('NetworkDriver.Leave', endpoint);
    await must('NetworkDriver.DeleteEndpoint', endpoint);
    await must('IpamDriver.ReleaseAddress', { PoolID: '4/', Address: Address.split('/')[0] });
    assert.deepEqual(await endpoints(), []);
    await must('NetworkDriver.DeleteEndpoint', endpoint);
    rig.clock.advance(61_000);
    await attachments.expire();
    assert.deepEqual([await rig.keys('reservations/'), await rig.keys('addresses/')], [[], []]);
    await must('NetworkDriver.DeleteNetwork', { NetworkID });
  });

  test('both families: two reservations become one endpoint', async () => {
    await createNetwork();
    const [Address, AddressIPv6] = [await requestAddress(), await requestAddress('', true)];
    assert.match(AddressIPv6, /^fd00::.*\/128$/);
    await must('NetworkDriver.CreateEndpoint', { ...endpoint, Interface: { Address, AddressIPv6 } });
    const [made] = await endpoints();
    assert.deepEqual(
      made?.addresses,
      [Address, AddressIPv6].map((cidr) => cidr.split('/')[0]),
    );
    const joined = await must('NetworkDriver.Join', endpoint);
    assert.equal(joined['GatewayIPv6'], 'fe80::ecee:eeff:feee:eeee');
    assert.equal((joined['StaticRoutes'] as unknown[]).length, 2);
    assert.deepEqual(await rig.keys('reservations/'), []);
  });

  test('without addresses from Docker (the null IPAM driver) netctl gives them and says so', async () => {
    await createNetwork({ 'netctl.owner': 'shop/db/0' });
    const created = await must('NetworkDriver.CreateEndpoint', { ...endpoint, Interface: null });
    const { Address, AddressIPv6, MacAddress } = created['Interface'] as Record<string, string>;
    const [made] = await endpoints();
    const given = [Address, AddressIPv6].map((cidr) => cidr?.split('/')[0]);
    assert.deepEqual([made?.addresses, made?.mac], [given, MacAddress]);
  });

  test('a reservation that Docker gives back is free; the address of an endpoint is not touched', async () => {
    await createNetwork();
    const Address = await requestAddress('10.0.0.9');
    assert.equal(Address, '10.0.0.9/32');
    await must('IpamDriver.ReleaseAddress', { PoolID: '4/', Address: '10.0.0.9' });
    await requestAddress('10.0.0.9');
    await must('NetworkDriver.CreateEndpoint', { ...endpoint, Interface: { Address } });
    await must('IpamDriver.ReleaseAddress', { PoolID: '4/', Address: '10.0.0.9' });
    const { PoolID } = await must('IpamDriver.RequestPool', {});
    const again = await ask('IpamDriver.RequestAddress', { PoolID, Address: '10.0.0.9' });
    assert.match(again.Error!, /10\.0\.0\.9 is taken/);
  });

  test('pools by prefix and by name; what cannot be done is refused with what can', async () => {
    assert.deepEqual(await must('IpamDriver.RequestPool', { Pool: '10.0.0.0/24' }), {
      PoolID: '4/four',
      Pool: '10.0.0.0/24',
      Data: gateway,
    });
    assert.deepEqual(await must('IpamDriver.RequestPool', { Options: { 'netctl.pool': 'six' }, V6: true }), {
      PoolID: '6/six',
      Pool: '::/0',
      Data: {},
    });
    for (const [body, reason] of [
      [{ Pool: '10.9.0.0/24' }, /no such pool.*netctl pool add 10\.9\.0\.0\/24/],
      [{ Options: { 'netctl.pool': 'six' } }, /no routed IPv4 pool six/],
      [{ Options: { 'netctl.pol': 'six' } }, /netctl\.pol/],
      [{ Pool: '10.0.0.0/24', SubPool: '10.0.0.0/25' }, /--ip-range/],
    ] as const)
      assert.match((await ask('IpamDriver.RequestPool', body)).Error!, reason);
    const first = { RequestAddressType: 'com.docker.network.gateway' };
    const next = await must('IpamDriver.RequestAddress', { PoolID: '4/', Address: '', Options: first });
    assert.equal(next.Address, '169.254.1.1/32');
    const other = { PoolID: '4/', Address: '10.0.0.1', Options: first };
    assert.match((await ask('IpamDriver.RequestAddress', other)).Error!, /--gateway/);
    assert.match((await ask('IpamDriver.RequestAddress', { PoolID: '5/x' })).Error!, /PoolID/);
  });

  test('options that are not ours to know are let be; of ours none is misspelt without a word', async () => {
    const refused = async (generic: object, more: object = {}): Promise<string> => {
      const Options = { 'com.docker.network.generic': generic, ...more };
      return (await ask('NetworkDriver.CreateNetwork', { NetworkID, Options })).Err!;
    };
    await createNetwork({ 'com.docker.network.driver.mtu': '1400' });
    for (const [generic, reason] of [
      [{ 'netctl.profil': 'web' }, /netctl\.profil.*netctl\.profile/],
      [{ parent: 'eth0' }, /parent/],
      [{ 'netctl.owner': 'shop' }, /tenant\/app\/instance/],
      [{ 'netctl.retain-seconds': '60' }, /netctl\.on-release=ttl/],
      [{ 'netctl.labels': 'role' }, /key:value/],
      [{ 'com.docker.network.driver.mtu': '12' }, /68 to 65535/],
    ] as const)
      assert.match(await refused(generic), reason);
    assert.match(await refused({}, { 'com.docker.network.internal': true }), /--internal/);
    const Options = { 'netctl.network': 'other' };
    const misplaced = await ask('NetworkDriver.CreateEndpoint', { ...endpoint, Options });
    assert.match(misplaced.Err!, /netctl\.network/);
    assert.deepEqual(await endpoints(), []);
  });

  test('-p: ports of the host; one that Docker leaves to the driver is refused', async () => {
    await createNetwork();
    const create = (binding: object): Promise<Answer> => {
      const Options = { 'com.docker.network.portmap': [binding] };
      return ask('NetworkDriver.CreateEndpoint', { ...endpoint, Options, Interface: null });
    };
    const http = { Proto: 6, IP: '', Port: 80, HostIP: '', HostPort: 8080, HostPortEnd: 8080 };
    for (const [binding, reason] of [
      [{ ...http, HostPort: 0, HostPortEnd: 0 }, /-p.*80\/tcp.*8080:80/],
      [{ ...http, HostPortEnd: 8090 }, /-p.*80\/tcp.*8080:80/],
      [{ ...http, Proto: 47 }, /-p.*tcp, udp or sctp/],
      [{ ...http, HostIP: 'here' }, /-p.*hostIP/],
      [{ ...http, HostPort: '8080' }, /portmap.*HostPort/],
    ] as const)
      assert.match((await create(binding)).Err!, reason);
    assert.deepEqual(await endpoints(), []);
    const dns = { ...http, Proto: 17, Port: 5353, HostIP: '192.0.2.1', HostPort: 53, HostPortEnd: 53 };
    assert.deepEqual(
      wanted({}, { 'com.docker.network.portmap': [http, dns] }).portMappings?.map(mappingText),
      ['8080:80/tcp', '192.0.2.1:53:5353/udp'],
    );
  });

  test('networks are known after a restart, and an unknown one is named with the way out', async () => {
    await createNetwork({ 'netctl.network': 'edge' });
    server.close();
    rmSync(join(directory, 'docker.sock'), { force: true });
    await serve();
    await must('NetworkDriver.CreateEndpoint', { ...endpoint, Interface: null });
    assert.equal((await endpoints())[0]?.network, 'edge');
    const unknown = { NetworkID: 'f'.repeat(64), EndpointID };
    assert.match(
      (await ask('NetworkDriver.CreateEndpoint', unknown)).Err!,
      /ffffffffffff: remove and create/,
    );
    assert.match(
      (await ask('NetworkDriver.Join', { NetworkID, EndpointID: 'b'.repeat(64) })).Err!,
      /EndpointID/,
    );
  });
});
