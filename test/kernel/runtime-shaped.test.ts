/**
 * Runtimes that Debian 12 does not have: the calls of a container's whole life, in the order and form in which each sends them, made to
 * the real executable.
 */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { Container } from '../../lab/container.ts';
import { Host } from '../../lab/host.ts';

interface Call {
  readonly id: string;
  readonly netns?: string;
  readonly args?: string;
  /** Beside name, cniVersion and the plugin's own keys. */
  readonly config?: Readonly<Record<string, unknown>>;
}

describe('calls as runtimes send them', () => {
  let host: Host;
  let container: Container;
  let netns: string;

  before(async () => {
    host = await Host.create({ name: `rs${process.pid}`, address: '192.0.2.1' });
    await host.start();
    await host.mustNetctl(['pool', 'add', '10.65.0.0/16', '--cooldown', '0']);
    container = await Container.create(host, 'shaped');
    netns = `/run/netns/${container.netns}`;
  });
  afterEach(async () => {
    assert.deepEqual(JSON.parse(await host.mustNetctl(['endpoint', 'show', '-o', 'json'])), []);
    const check = await host.netctl(['ipam', 'check']);
    assert.equal(check.code, 0, check.stdout + check.stderr);
  });
  after(async () => {
    await container?.close();
    await host?.close();
  });

  async function call(
    command: string,
    version: string,
    { id, netns: path = '', args = '', config = {} }: Call,
  ) {
    const env = {
      CNI_COMMAND: command,
      CNI_CONTAINERID: id,
      CNI_NETNS: path,
      CNI_IFNAME: 'eth0',
      CNI_ARGS: args,
      CNI_PATH: '/opt/cni/bin',
    };
    const stdin = JSON.stringify({
      type: 'netctl',
      socket: host.cniSocket,
      ...config,
      cniVersion: version,
      name: 'edge',
    });
    const { code, stdout } = await host.exec([host.plugin('netctl')], { env, stdin });
    return { code, answer: stdout === '' ? null : (JSON.parse(stdout) as Record<string, unknown>) };
  }

  async function ok(command: string, version: string, values: Call) {
    const { code, answer } = await call(command, version, values);
    assert.equal(code, 0, `${command}: ${JSON.stringify(answer)}`);
    return answer;
  }

  test('nerdctl: DEL before ADD, fixed address and MAC, DEL without a namespace', async () => {
    const id = `default-${'a'.repeat(64)}`;
    const args = 'IgnoreUnknown=1;IP=10.65.3.3;MAC=02:00:00:00:03:03;NERDCTL_CNI_DHCP_HOSTNAME=web';
    await ok('DEL', '1.0.0', { id });
    const answer = await ok('ADD', '1.0.0', { id, netns, args });
    assert.match(JSON.stringify(answer), /02:00:00:00:03:03.*10\.65\.3\.3\/32/);
    await ok('DEL', '1.0.0', { id, args, config: { prevResult: answer } });
  });

  test('Nomad: an ADD that fails is repeated without DEL; arguments with JSON in them, none of them on DEL', async () => {
    const id = '5f0a1c2e-8d3b-4b6e-9a51-0c7d2f3e4a5b';
    const args = `IgnoreUnknown=true;NOMAD_REGION=global;NOMAD_JOB_ID=web;CONSUL_IPTABLES_CONFIG={"ProxyUserID":"101","a":"b=c"}`;
    const first = await call('ADD', '0.4.0', { id, netns, args: `${args};IP=192.0.2.200` });
    assert.equal(first.code, 1);
    const answer = await ok('ADD', '0.4.0', { id, netns, args });
    assert.deepEqual(await ok('ADD', '0.4.0', { id, netns, args }), answer);
    await ok('CHECK', '0.4.0', { id, netns, args, config: { prevResult: answer } });
    await ok('DEL', '0.4.0', { id, config: { runtimeConfig: { portMappings: [] } } });
    await ok('DEL', '0.4.0', { id });
  });

  test('CRI-O: VERSION, STATUS and GC at its start, CHECK after ADD, DEL from its cache and again', async () => {
    const id = 'c'.repeat(64);
    const args =
      'IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=c;K8S_POD_UID=1';
    const versions = await ok('VERSION', '1.0.0', { id: '' });
    assert.match(JSON.stringify(versions), /"1\.1\.0"/);
    await ok('STATUS', '1.1.0', { id: '' });
    await ok('GC', '1.1.0', { id: '', config: { 'cni.dev/valid-attachments': [] } });
    const answer = await ok('ADD', '1.1.0', { id, netns, args });
    await ok('CHECK', '1.1.0', { id, netns, args, config: { prevResult: answer } });
    const valid = [{ containerID: id, ifname: 'eth0' }];
    await ok('GC', '1.1.0', { id: '', config: { 'cni.dev/valid-attachments': valid } });
    await ok('CHECK', '1.1.0', { id, netns, args, config: { prevResult: answer } });
    await ok('DEL', '1.1.0', { id, netns, args, config: { prevResult: answer } });
    await ok('DEL', '1.1.0', { id });
  });
});
