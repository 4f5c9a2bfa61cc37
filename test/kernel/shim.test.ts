/**
 * The CNI executable from outside: what a runtime sees on its output and what the agent sees on the wire.
 * In: both builds (static musl; address and undefined-behaviour sanitizers). Out: the same results from both.
 * Checks answered without an agent are here; an agent that is away or wrong, and the queue, have test files of their own.
 * Needs root: one network namespace of its own, removed at the end.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, openSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import fc from 'fast-check';
import { GC, padded, REFUSALS, type Refusal, STATUS, SUPPORTED, VERSIONS, without } from './shim-cases.ts';
import {
  build,
  type Environment,
  encodeReply,
  environment,
  type Flavour,
  makeNetns,
  makeRoot,
  makeRunDirectory,
  type Outcome,
  start,
  startAgent,
} from './shim-harness.ts';

const root = makeRoot();
const netns = makeNetns();
after(() => {
  netns.remove();
  rmSync(root, { recursive: true });
});

const ADD = environment('ADD', netns.path);
const DEL = environment('DEL', netns.path);
const CHECK = environment('CHECK', netns.path);

function assertRefused(outcome: Outcome, expected: Refusal): void {
  const error = JSON.parse(outcome.stdout);
  assert.equal(outcome.status, 1, outcome.stdout + outcome.stderr);
  assert.equal(outcome.stderr, '');
  assert.match(outcome.stdout, /^[^\n]*\n$/, 'one line');
  assert.equal(error.code, expected.code, outcome.stdout);
  if (typeof expected.msg === 'string') assert.equal(error.msg, expected.msg);
  else assert.match(error.msg, expected.msg);
  if (expected.details !== undefined) assert.equal(error.details, expected.details);
  assert.equal(error.cniVersion, expected.cniVersion ?? error.cniVersion);
}

for (const flavour of ['musl', 'sanitized'] as Flavour[]) {
  describe(flavour, () => {
    const shim = build(flavour, root);
    const run = (env: Environment, input: string | Buffer, options = {}) =>
      start(shim, env, input, options).done;

    test('refusals', async () => {
      for (const [what, env, input, expected] of REFUSALS) {
        const outcome = await run(env, input);
        try {
          assertRefused(outcome, expected);
        } catch (cause) {
          throw new Error(what, { cause });
        }
      }
    });

    test('VERSION works with nothing else valid', async () => {
      const dummies = {
        CNI_COMMAND: 'VERSION',
        CNI_CONTAINERID: '',
        CNI_NETNS: 'dummy',
        CNI_IFNAME: 'd/',
        CNI_PATH: 'dummy',
      };
      for (const [what, input, cniVersion] of VERSIONS) {
        for (const env of [{ CNI_COMMAND: 'VERSION' }, dummies]) {
          const { status, stdout, stderr } = await run(env, input);
          assert.equal(status, 0, what);
          assert.equal(stderr, '');
          assert.deepEqual(JSON.parse(stdout), { cniVersion, supportedVersions: SUPPORTED }, what);
        }
      }
    });

    test('VERSION answers although standard input never ends', async () => {
      const { status, stdout, ms } = await start(shim, { CNI_COMMAND: 'VERSION' }).done;
      assert.equal(status, 0);
      assert.equal(JSON.parse(stdout).cniVersion, '1.1.0');
      assert.ok(ms > 900 && ms < 3000, `${ms} ms`);
    });

    test('without a command it tells about itself', async () => {
      for (const env of [{}, { CNI_COMMAND: '' }]) {
        const { status, stdout, stderr } = await run(env, '');
        assert.deepEqual([status, stdout], [0, '']);
        assert.equal(
          stderr,
          `CNI plugin netctl v0.1.0\nCNI protocol versions supported: ${SUPPORTED.join(', ')}\n`,
        );
      }
      const ipam = await run({}, '', { argv0: 'netctl-ipam' });
      assert.match(ipam.stderr, /^CNI plugin netctl-ipam v0\.1\.0\n/);
    });

    test('options', async () => {
      for (const option of ['-v', '--version']) {
        const { status, stdout, stderr } = await run({}, '', { args: [option] });
        assert.deepEqual([status, stdout, stderr], [0, 'netctl 0.1.0\n', '']);
      }
      for (const option of ['-h', '--help']) {
        const { status, stdout } = await run({}, '', { args: [option] });
        assert.equal(status, 0);
        assert.match(stdout, /^Usage: /);
      }
      const wrong = await run({}, '', { args: ['--nope'] });
      assert.deepEqual([wrong.status, wrong.stdout], [2, '']);
      assert.match(wrong.stderr, /^Usage: /);
    });

    test('agrees with JSON.parse about random texts', async () => {
      const text = fc.tuple(
        fc.json({ maxDepth: 4 }),
        fc.nat(),
        fc.constantFrom('', '"', ',', '}', '[', '\\', '0', 'e', ' ', '-'),
        fc.boolean(),
      );
      await fc.assert(
        fc.asyncProperty(text, async ([json, at, insert, cut]) => {
          const i = at % (json.length + 1);
          const input = `{"x":${json.slice(0, i)}${insert}${json.slice(cut ? i + 1 : i)},"name":"/"}`;
          let valid = true;
          try {
            JSON.parse(input);
          } catch {
            valid = false;
          }
          assert.equal(JSON.parse((await run(ADD, input)).stdout).code, valid ? 7 : 6, input);
        }),
        { numRuns: 150 },
      );
    });

    test('the agent gets what the runtime gave', async () => {
      const { socket } = makeRunDirectory(root);
      const stale = join(root, 'stale-netns');
      writeFileSync(stale, '');
      const fifo = join(root, `fifo-${flavour}`);
      execFileSync('mkfifo', [fifo]);
      const config = (v = '1.1.0') =>
        `\n{"cniVersion":"${v}","name":"edge","Socket":"${socket}","x":"\u00e9\\u0000"} `;
      const inode = statSync(netns.path).ino;
      const seen: (number | null)[] = [];
      const agent = await startAgent(socket, (frame, peer) => {
        const link = `/proc/${frame.pid}/fd/${frame.netnsFd}`;
        if (frame.netnsFd >= 0) closeSync(openSync(link, 'r'));
        seen.push(frame.netnsFd >= 0 ? statSync(link).ino : null);
        peer.write(encodeReply(0, '{"it":"worked"}\n'));
      });
      const args = 'IgnoreUnknown=1;K8S_POD_NAME="a=b;c";IP=';
      const cases: [Environment, string | undefined, number | null][] = [
        [ADD, undefined, inode],
        [{ ...ADD, CNI_ARGS: '' }, undefined, inode],
        [{ ...CHECK, CNI_ARGS: args }, undefined, inode],
        [{ ...ADD, CNI_ARGS: args }, 'netctl-ipam', inode],
        [DEL, '/opt/cni/bin/netctl-ipam', inode],
        [without(DEL, 'CNI_NETNS'), undefined, null],
        [{ ...DEL, CNI_NETNS: '' }, undefined, null],
        [{ ...DEL, CNI_NETNS: '/nonexistent' }, undefined, null],
        [{ ...DEL, CNI_NETNS: stale }, undefined, null],
        [{ ...DEL, CNI_NETNS: fifo }, undefined, null],
        [{ ...DEL, CNI_NETNS: '/proc/self/ns/net' }, undefined, null],
        [GC, undefined, null],
        [{ ...STATUS, CNI_NETNS: netns.path, CNI_CONTAINERID: '' }, undefined, null],
        ...['TRUE', 'true', '1'].map((v): [Environment, string | undefined, number | null] => [
          { ...ADD, CNI_NETNS: '/proc/self/ns/net', CNI_NETNS_OVERRIDE: v },
          undefined,
          statSync('/proc/self/ns/net').ino,
        ]),
      ];
      for (const [env, argv0, netnsInode] of cases) {
        const running = start(shim, { SECRET: 'x', ...env }, config(), argv0 === undefined ? {} : { argv0 });
        const { status, stdout } = await running.done;
        const frame = agent.frames.pop()!;
        const names = ['CNI_COMMAND', 'CNI_CONTAINERID', 'CNI_NETNS', 'CNI_IFNAME', 'CNI_ARGS', 'CNI_PATH'];
        const entries = names.filter((n) => n in env).map((n) => `${n}=${env[n]}`);
        assert.deepEqual([status, stdout], [0, '{"it":"worked"}\n']);
        assert.deepEqual(frame.env, argv0 ? [...entries, 'NETCTL_ROLE=ipam'] : entries);
        assert.equal(frame.input.toString(), config());
        assert.equal(frame.pid, running.pid);
        assert.equal(seen.pop(), netnsInode, JSON.stringify(env));
      }
      await agent.close();
    });

    test('replies pass through, however large and however slow', async () => {
      const { socket } = makeRunDirectory(root);
      const config = padded(1 << 20)
        .replace('"relative"', JSON.stringify(socket))
        .slice(0, 1 << 20);
      const big = Buffer.alloc((4 << 20) - 2, 'r').toString();
      const answers: [number, string][] = [
        [0, ''],
        [1, '{"code":100,"msg":"no"}'],
        [255, 'x'],
        [7, 'not JSON \0\xff\n'],
        [0, big],
      ];
      for (const [exitCode, output] of answers) {
        const agent = await startAgent(socket, (_, peer) => {
          const bytes = encodeReply(exitCode, output);
          const cuts = bytes.length < 100 ? [...bytes.keys()] : [0, 3, 5, 6, 70000];
          cuts.forEach((cut, i) => {
            setTimeout(() => peer.write(bytes.subarray(cut, cuts[i + 1] ?? bytes.length)), i * 2);
          });
        });
        const outcome = await run(
          { ...ADD, CNI_ARGS: 'a'.repeat(65_000), CNI_PATH: 'p'.repeat(65_000) },
          config,
        );
        assert.equal(outcome.status, exitCode);
        assert.ok(outcome.stdout === output, `${outcome.stdout.length} bytes, sent ${output.length}`);
        assert.equal(agent.frames[0]?.input.length, 1 << 20);
        await agent.close();
      }
    });
  });
}
