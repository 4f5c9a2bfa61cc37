/** Calls as runtimes send them (recorded/*.json; `source` says how each is known), and what netctl understands of them. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { type CniCall, parseCall } from '../../../src/cni/request.ts';

interface Recorded {
  readonly source: string;
  readonly env: Readonly<Record<string, string>>;
  readonly stdin: object;
  /** The part of the call that this runtime has a say in. */
  readonly expected: Readonly<Record<string, unknown>>;
}

const directory = new URL('recorded/', import.meta.url);

const parse = (env: Readonly<Record<string, string>>, stdin: object): CniCall =>
  parseCall({ pid: 1, netnsFd: 5, env: new Map(Object.entries(env)), stdin: JSON.stringify(stdin) });

describe('recorded calls', () => {
  for (const file of readdirSync(directory)) {
    const { source, env, stdin, expected } = JSON.parse(
      readFileSync(new URL(file, directory), 'utf8'),
    ) as Recorded;
    test(`${file} (${source})`, () => {
      const call = parse(env, stdin);
      const understood: Record<string, unknown> =
        call.command === 'ADD'
          ? { ...call.attach, cniVersion: call.cniVersion }
          : { ...(call as CniCall & { command: 'DEL' }).id };
      assert.equal(call.command, env['CNI_COMMAND']);
      for (const [key, value] of Object.entries(expected)) assert.deepEqual(understood[key], value, key);
    });
  }

  const env = {
    CNI_COMMAND: 'ADD',
    CNI_CONTAINERID: 'c',
    CNI_NETNS: '/n',
    CNI_IFNAME: 'eth0',
    CNI_PATH: '/p',
  };
  const add = (more: object, args = '') =>
    (
      parse({ ...env, CNI_ARGS: args }, { cniVersion: '1.0.0', name: 'n', ...more }) as CniCall & {
        command: 'ADD';
      }
    ).attach;

  test('labels of the configuration stand over those that a runtime is known by', () => {
    const args = { cni: { labels: [{ key: 'k8s.pod', value: 'mine' }] } };
    assert.deepEqual(add({ args }, 'K8S_POD_NAMESPACE=a;K8S_POD_NAME=b').labels, {
      'k8s.namespace': 'a',
      'k8s.pod': 'mine',
    });
  });

  test('capabilities that ask for what netctl does not do are refused by name', () => {
    for (const [key, value] of Object.entries({
      ipRanges: [[{ subnet: '10.0.0.0/8' }]],
      deviceID: '0000:00:1f.6',
      infinibandGUID: 'c2:11:22:33:44:55:66:77',
    }))
      assert.throws(
        () => add({ runtimeConfig: { [key]: value } }),
        new RegExp(`unsupported field runtimeConfig.${key}`),
      );
    assert.deepEqual(
      add({ runtimeConfig: { ipRanges: null, portMappings: [], aliases: { n: ['a'] } } }).labels,
      {},
    );
  });

  test('a label that no selector could name is refused', () => {
    const labels = { labels: [{ key: 'a b', value: '' }] };
    const args = { 'org.apache.mesos': { network_info: { labels } } };
    assert.throws(() => add({ args }), /label a b/);
  });
});
