/**
 * netctl-oci without an engine: what it makes of a bundle, how it calls plugins, what it leaves. Built with the address and the
 * undefined-behaviour sanitizer; runtime, plugins and lists are ours.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import fc from 'fast-check';

const sources = resolve(import.meta.dirname, '../../native/oci');
const sanitized = [
  '-std=c11',
  '-Wall',
  '-Wextra',
  '-Werror',
  '-D_GNU_SOURCE',
  '-O1',
  '-g',
  '-fsanitize=address,undefined',
];
/** Tells what it was called with; fails where the directory says so. */
const plugin = (directory: string): string => `#!/bin/sh
type=\${0##*/}
{ echo "$type $CNI_COMMAND $CNI_CONTAINERID $CNI_NETNS $CNI_IFNAME $CNI_ARGS"; cat; echo; } >>${directory}/calls
[ ! -e ${directory}/broken-$type ] || { echo '{"code": 7, "msg": "this one is broken"}'; exit 1; }
[ "$CNI_COMMAND" != ADD ] || echo '{"cniVersion": "1.0.0", "from": "'$type' '$CNI_IFNAME'"}'
`;

interface Called {
  readonly words: string;
  readonly config: Readonly<Record<string, unknown>>;
}

describe('netctl-oci', () => {
  let directory: string;
  let program: string;
  let bundle: string;

  before(() => {
    directory = mkdtempSync(join(tmpdir(), 'netctl-oci-'));
    program = join(directory, 'netctl-oci');
    const places = {
      RUNTIME: join(directory, 'runtime'),
      CONFIGURATIONS: join(directory, 'net.d'),
      PLUGINS: `${join(directory, 'none')}:${join(directory, 'plugins')}`,
    };
    const defines = Object.entries(places).map(([name, path]) => `-D${name}="${path}"`);
    const files = readdirSync(sources).filter((name) => name.endsWith('.c'));
    execFileSync('gcc', [
      ...sanitized,
      ...defines,
      '-o',
      program,
      ...files.map((name) => join(sources, name)),
    ]);
    for (const name of ['net.d', 'plugins']) mkdirSync(join(directory, name));
    writeFileSync(places.RUNTIME, '#!/bin/sh\necho "$*"\nexit 5\n', { mode: 0o755 });
    for (const type of ['first', 'second'])
      writeFileSync(join(directory, 'plugins', type), plugin(directory), { mode: 0o755 });
    for (const name of ['edge', 'back']) {
      const plugins = [{ type: 'first', mtu: 1400 }, { type: 'second' }];
      writeFileSync(
        join(directory, 'net.d', `10-${name}.conflist`),
        JSON.stringify({ cniVersion: '1.0.0', name, plugins }),
      );
    }
  });
  beforeEach(() => {
    bundle = mkdtempSync(join(directory, 'bundle-'));
    for (const name of ['calls', 'broken-first', 'broken-second'])
      rmSync(join(directory, name), { force: true });
  });
  after(() => rmSync(directory, { recursive: true, force: true }));

  const run = (words: readonly string[], input = '') =>
    // Its memory lives as long as the process, which is short.
    spawnSync(program, words, {
      input,
      encoding: 'utf8',
      timeout: 20_000,
      env: { ASAN_OPTIONS: 'detect_leaks=0' },
    });
  const write = (config: unknown): void =>
    writeFileSync(join(bundle, 'config.json'), typeof config === 'string' ? config : JSON.stringify(config));
  const read = (): string => readFileSync(join(bundle, 'config.json'), 'utf8');
  const asking = (networks: string): object => ({ process: { env: ['A=b', `NETCTL_NETWORKS=${networks}`] } });
  const hook = (verb: string) =>
    run(
      ['hook', verb],
      JSON.stringify({ ociVersion: '1.0.2', id: 'c1', status: 'creating', pid: 77, bundle }),
    );
  const calls = (): Called[] => {
    if (!existsSync(join(directory, 'calls'))) return [];
    const lines = readFileSync(join(directory, 'calls'), 'utf8').trim().split('\n');
    return Array.from({ length: lines.length / 2 }, (_, i) => ({
      words: lines[2 * i]!,
      config: JSON.parse(lines[2 * i + 1]!) as Called['config'],
    }));
  };
  const hookOf = (verb: string) => ({ path: program, args: ['netctl-oci', 'hook', verb] });

  test('create puts its hooks before those that are there, then the runtime has the word', () => {
    const theirs = { path: '/bin/theirs' };
    const config = { ...asking('edge'), hooks: { prestart: [theirs], createRuntime: [theirs] } };
    write(config);
    const { status, stdout } = run(['--root', '/r', 'create', '--bundle', bundle, 'c1']);
    assert.deepEqual([status, stdout], [5, `--root /r create --bundle ${bundle} c1\n`]);
    assert.deepEqual(JSON.parse(read()), {
      ...config,
      hooks: { prestart: [theirs], createRuntime: [hookOf('add'), theirs], poststop: [hookOf('delete')] },
    });
    assert.deepEqual(readdirSync(bundle), ['config.json']);
  });

  test('a container that asks for nothing keeps its file, byte by byte; other commands touch none', () => {
    for (const config of ['{ "process": {"env": ["NETCTL_NETWORK=x"]} }\n', '{}']) {
      write(config);
      run(['create', '-b', bundle, 'c1']);
      assert.equal(read(), config);
    }
    write(asking('edge'));
    const before = read();
    run(['state', '-b', bundle, 'c1']);
    assert.equal(read(), before);
  });

  test('any configuration: the hooks are in it, and all else is as it was', () => {
    fc.assert(
      fc.property(
        fc.dictionary(fc.string(), fc.jsonValue()),
        fc.jsonValue(),
        fc.nat(3),
        (more, other, indent) => {
          const { hooks, process: theirs, annotations, ...rest } = more;
          const config = { ...rest, other, annotations: { 'netctl.networks': 'edge' }, process: { env: [] } };
          write(JSON.stringify(config, null, indent));
          const { status, stderr } = run(['create', `--bundle=${bundle}`, 'c1']);
          assert.equal(status, 5, stderr);
          const expected = JSON.parse(JSON.stringify(config)) as object;
          const made = { createRuntime: [hookOf('add')], poststop: [hookOf('delete')] };
          assert.deepEqual(JSON.parse(read()), { ...expected, hooks: made });
        },
      ),
      { numRuns: 60 },
    );
  });

  test('what is no configuration is refused or left to the runtime: no crash, nothing half written', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.json().map((text) => text.slice(1)),
        ),
        (text) => {
          write(text);
          const { status, stderr } = run(['create', '--bundle', bundle, 'c1']);
          assert.ok(status === 1 || status === 5, stderr);
          assert.doesNotMatch(stderr, /Sanitizer|runtime error/);
          assert.equal(read(), text);
        },
      ),
      { numRuns: 60 },
    );
  });

  test('each network in turn, each plugin with the result of the one before; out again in reverse, with the whole', () => {
    write(asking('edge;IP=10.0.0.9;X=y back'));
    const joined = hook('add');
    assert.equal(joined.status, 0, joined.stderr);
    const added = calls();
    assert.deepEqual(
      added.map(({ words }) => words),
      [
        'first ADD c1 /proc/77/ns/net eth0 IgnoreUnknown=1;IP=10.0.0.9;X=y',
        'second ADD c1 /proc/77/ns/net eth0 IgnoreUnknown=1;IP=10.0.0.9;X=y',
        'first ADD c1 /proc/77/ns/net eth1 IgnoreUnknown=1',
        'second ADD c1 /proc/77/ns/net eth1 IgnoreUnknown=1',
      ],
    );
    const result = (from: string) => ({ cniVersion: '1.0.0', from });
    assert.deepEqual(
      added.slice(0, 2).map(({ config }) => config),
      [
        { cniVersion: '1.0.0', name: 'edge', type: 'first', mtu: 1400 },
        { cniVersion: '1.0.0', name: 'edge', type: 'second', prevResult: result('first eth0') },
      ],
    );
    const left = hook('delete');
    assert.equal(left.status, 0, left.stderr);
    const deleted = calls().slice(4);
    assert.deepEqual(
      deleted.map(({ words, config }) => [words, config['name'], config['prevResult']]),
      [
        ['second DEL c1  eth1 IgnoreUnknown=1', 'back', result('second eth1')],
        ['first DEL c1  eth1 IgnoreUnknown=1', 'back', result('second eth1')],
        ['second DEL c1  eth0 IgnoreUnknown=1;IP=10.0.0.9;X=y', 'edge', result('second eth0')],
        ['first DEL c1  eth0 IgnoreUnknown=1;IP=10.0.0.9;X=y', 'edge', result('second eth0')],
      ],
    );
    assert.deepEqual(readdirSync(bundle), ['config.json']);
  });

  test('an ADD that fails leaves nothing, and the reason is told', () => {
    write(asking('edge back'));
    writeFileSync(join(directory, 'broken-second'), '');
    const { status, stderr } = hook('add');
    assert.equal(status, 1);
    assert.match(stderr, /this one is broken/);
    assert.deepEqual(
      calls().map(({ words }) => words.split(' ').slice(0, 2).join(' ')),
      ['first ADD', 'second ADD', 'second DEL', 'first DEL'],
    );
    assert.deepEqual(readdirSync(bundle), ['config.json']);
  });

  test('a network that is not there is found before anything is done', () => {
    write(asking('edge nowhere'));
    const { status, stderr } = hook('add');
    assert.equal(status, 1);
    assert.match(stderr, /no network nowhere/);
    assert.deepEqual(calls(), []);
  });

  test('names with quotes or backslashes are refused before the container is made; the engine’s log has the reason', () => {
    write(asking('"edge"'));
    const log = join(bundle, 'log.json');
    const { status } = run(['--log', log, 'create', '--bundle', bundle, 'c1']);
    assert.equal(status, 1);
    assert.match((JSON.parse(readFileSync(log, 'utf8')) as { msg: string }).msg, /NETCTL_NETWORKS/);
  });
});
