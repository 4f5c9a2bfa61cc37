/** The agent's configuration: precedence, and one clear refusal for everything that is not in the table. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { loadConfig } from '../../../src/agent/config.ts';
import { options } from '../../../src/agent/config-options.ts';

const load = (argv: string[], env: Record<string, string> = {}, file: string | null = null) =>
  loadConfig({
    argv,
    env,
    readFile: (path) => (file === null || path !== '/etc/netctl/netctld.yaml' ? null : file),
  });

describe('precedence', () => {
  test('flag, environment, file, default; each with its source', () => {
    const file = 'runDir: /file\nstateDir: /file\nlog: {level: warn}\n';
    const { config, settings } = load(
      ['--run-dir', '/flag', '--node', 'n1'],
      { NETCTL_RUN_DIR: '/env', NETCTL_STATE_DIR: '/env/' },
      file,
    );
    assert.deepEqual(
      [config.runDir, config.stateDir, config.log.level, config.log.format],
      ['/flag', '/env', 'warn', 'json'],
    );
    const sources = Object.fromEntries(settings.map(({ key, source }) => [key, source]));
    assert.deepEqual(
      [sources['runDir'], sources['stateDir'], sources['log.level'], sources['log.format']],
      ['flag', 'environment', 'file', 'default'],
    );
  });
  test('node name and address are enough', () => {
    const { config } = load(['--node', 'n1', '--address', '192.0.2.1']);
    assert.deepEqual(
      [config.node.name, config.node.address4, config.datastore.type],
      ['n1', '192.0.2.1', 'embedded'],
    );
  });
  test('what is on by default can be switched off by a flag', () => {
    assert.equal(load([]).config.bgp.enabled, true);
    assert.equal(load(['--no-bgp']).config.bgp.enabled, false);
    assert.equal(load([], { NETCTL_BGP: 'false' }).config.bgp.enabled, false);
  });
  test('the example file holds the defaults and every key', () => {
    const text = readFileSync(new URL('../../../conf/netctld.yaml', import.meta.url), 'utf8');
    load([], {}, text);
    for (const { key } of options)
      assert.match(text, new RegExp(`\\b${key.split('.').at(-1)}:`), `conf/netctld.yaml lacks ${key}`);
  });
});

describe('refusals name the key, the value and what is accepted', () => {
  const rows: [string[], Record<string, string>, string | null, RegExp][] = [
    [['--datastore', 'consul'], {}, null, /--datastore: "consul" is not valid: expected embedded or etcd/],
    [
      ['--datastore', 'etcd'],
      {},
      null,
      /datastore.endpoints: \[\] is not valid: expected at least one address/,
    ],
    [['--etcd-endpoints', 'host:2379'], {}, null, /--etcd-endpoints: "host:2379" is not valid/],
    [['--etcd-endpoints', 'http://a:1,https://b:1'], {}, null, /all http or all https/],
    [
      ['--etcd-endpoints', 'http://a:1', '--etcd-ca', '/ca'],
      {},
      null,
      /https addresses, since certificates are given/,
    ],
    [
      ['--etcd-cert', '/c', '--etcd-endpoints', 'https://a:1'],
      {},
      null,
      /datastore.key: null is not valid: expected a value, since datastore.cert is set/,
    ],
    [[], {}, 'datastore: {prefix: x}', /datastore.prefix: "x" is not valid: expected a path/],
    [['--address', 'fd00::1'], {}, null, /--address: "fd00::1" is not valid: expected an IPv4 address/],
    [['--mtu', '70000'], {}, null, /--mtu: "70000" is not valid: expected a whole number from 0 to 65535/],
    [['--run-dir', 'relative'], {}, null, /--run-dir: "relative" is not valid: expected an absolute path/],
    [['--frobnicate'], {}, null, /Unknown option '--frobnicate'/],
    [
      [],
      { NETCTL_LOG_LEVEL: 'loud' },
      null,
      /NETCTL_LOG_LEVEL: "loud" is not valid: expected debug or info or warn or error/,
    ],
    [[], {}, 'log: {colour: true}', /unknown key log.colour: accepted are log.level, log.format/],
    [[], {}, 'nonsense: 1', /unknown key nonsense/],
    [[], {}, 'node: web', /node: "web" is not valid: expected an object with node.name/],
    [[], {}, 'node: {labels: [a]}', /node.labels/],
    [[], {}, '{', /not YAML/],
    [['--config', '/nowhere'], {}, null, /there is no file \/nowhere/],
  ];
  for (const [argv, env, file, message] of rows) {
    test(String(message), () => assert.throws(() => load(argv, env, file), message));
  }
});
