/** The agent's side of the CNI socket under whatever may come in: no crash, no hang, always JSON. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createConnection, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import fc from 'fast-check';
import { createCniServer } from '../../../src/cni/server.ts';
import { NetctlError } from '../../../src/lib/errors.ts';
import type { Attacher, Attachment } from '../../../src/model/attachment.ts';

const silent = { debug() {}, info() {}, warn() {}, error() {} };
const refuse = (): never => {
  throw new NetctlError('POOL_EXHAUSTED', 'nothing is given out here');
};
let attach: Attacher['attach'] = async () => refuse();
const attacher: Attacher = {
  attach: (request, accept) => attach(request, accept),
  detach: async () => undefined,
  check: async () => refuse(),
  collect: async () => undefined,
  notReady: () => null,
};

/** One whole request frame. */
function frameOf(env: Readonly<Record<string, string>>, stdin: string | Uint8Array): Buffer {
  const block = Buffer.from(
    Object.entries(env)
      .map(([key, value]) => `${key}=${value}\0`)
      .join(''),
  );
  const head = Buffer.alloc(17);
  const rest = Buffer.concat([block, Buffer.from(stdin)]);
  head.writeUInt32BE(13 + rest.length, 0);
  head.writeUInt8(1, 4);
  head.writeInt32BE(7, 9);
  head.writeUInt32BE(block.length, 13);
  return Buffer.concat([head, rest]);
}

describe('the CNI socket', () => {
  const directory = mkdtempSync(join(tmpdir(), 'netctl-cni-'));
  const path = join(directory, 'cni.sock');
  let server: Server;

  before(async () => {
    server = createCniServer({ attacher, logger: silent, peerOf: () => ({ pid: 1, uid: 0 }) });
    await new Promise<void>((listening) => server.listen(path, listening));
  });
  after(() => {
    server.close();
    rmSync(directory, { recursive: true });
  });

  /** What the agent answers to bytes that come in pieces. @param ends whether the caller then ends its side */
  const exchange = (bytes: Uint8Array, pieceBytes: number, ends: boolean): Promise<Buffer> =>
    new Promise((resolve, reject) => {
      const parts: Buffer[] = [];
      const late = setTimeout(() => reject(new Error('no answer and no end')), 5000);
      const socket = createConnection(path, () => {
        for (let at = 0; at < bytes.length; at += pieceBytes)
          socket.write(bytes.subarray(at, at + pieceBytes));
        if (ends) socket.end();
      });
      socket.on('data', (part) => parts.push(part)).on('error', () => undefined);
      socket.on('close', () => {
        clearTimeout(late);
        resolve(Buffer.concat(parts));
      });
    });
  const assertJson = (reply: Buffer): void => {
    assert.equal(reply.readUInt32BE(0), reply.length - 4);
    assert.equal(reply.readUInt8(4), 1);
    const text = reply.toString('utf8', 6);
    if (reply.readUInt8(5) === 0 && text === '') return;
    const error = JSON.parse(text);
    assert.deepEqual([typeof error.code, typeof error.msg, error.msg === ''], ['number', 'string', false]);
  };

  const commands = fc.constantFrom('ADD', 'DEL', 'CHECK', 'GC', 'STATUS', 'VERSION', '', 'x');
  const word = fc.oneof(
    fc.string({ maxLength: 20 }),
    fc.constantFrom('c1', 'eth0', 'IP=10.0.0.1', '/run/netns/a'),
  );
  const environments = fc.record({
    CNI_COMMAND: commands,
    CNI_CONTAINERID: word,
    CNI_IFNAME: word,
    CNI_NETNS: word,
    CNI_ARGS: word,
    CNI_PATH: fc.constantFrom('', '/nowhere'),
  });
  const values = fc.oneof(
    fc.jsonValue({ maxDepth: 3 }),
    fc.constantFrom(null, [], {}, 'netctl', 'dhcp', '1.1.0'),
  );
  const keys = [
    'ipam',
    'prevResult',
    'runtimeConfig',
    'args',
    'mode',
    'parent',
    'profiles',
    'pools',
    'mtu',
    'vlan',
  ];
  const configs = fc.record(
    {
      cniVersion: fc.oneof(fc.constantFrom('0.1.0', '0.4.0', '1.0.0', '1.1.0'), values),
      name: fc.oneof(fc.constantFrom('edge', 'a.b-c_d'), values),
      ...Object.fromEntries(keys.map((key) => [key, values])),
      'cni.dev/valid-attachments': values,
    },
    { requiredKeys: [] },
  );

  test('property: any environment with any configuration gets its JSON', async () => {
    await fc.assert(
      fc.asyncProperty(
        environments,
        configs,
        fc.integer({ min: 1, max: 200 }),
        async (env, config, piece) => {
          assertJson(await exchange(frameOf(env, JSON.stringify(config)), piece, false));
        },
      ),
      { numRuns: 150 },
    );
  });

  test('property: standard input that is no JSON gets its JSON', async () => {
    await fc.assert(
      fc.asyncProperty(environments, fc.uint8Array({ maxLength: 100 }), async (env, stdin) => {
        assertJson(await exchange(frameOf(env, stdin), 1 << 16, false));
      }),
      { numRuns: 50 },
    );
  });

  test('property: arbitrary bytes, cut anywhere, are answered or dropped, and the next caller is served', async () => {
    const good = frameOf({ CNI_COMMAND: 'STATUS', CNI_PATH: '/x' }, '{"cniVersion":"1.1.0","name":"edge"}');
    const bytes = fc.oneof(
      fc.uint8Array({ maxLength: 60 }),
      fc.nat(good.length - 1).map((length) => good.subarray(0, length)),
    );
    await fc.assert(
      fc.asyncProperty(bytes, async (sent) => {
        const reply = await exchange(sent, 7, true);
        if (reply.length > 0) assertJson(reply);
        assertJson(await exchange(good, 1 << 16, false));
      }),
      { numRuns: 50 },
    );
  });

  test('an ADD whose caller has gone is not accepted', async () => {
    const add = frameOf(
      { CNI_COMMAND: 'ADD', CNI_CONTAINERID: 'c', CNI_IFNAME: 'eth0', CNI_NETNS: '/x', CNI_PATH: '/x' },
      '{"cniVersion":"1.1.0","name":"edge"}',
    );
    const { promise: accepted, resolve } = Promise.withResolvers<unknown>();
    attach = async (_, accept) => {
      await closed;
      // The end of the connection is an event of its own here.
      await new Promise((turn) => setTimeout(turn, 100));
      try {
        accept?.({} as Attachment);
        resolve(null);
      } catch (error) {
        resolve(error);
      }
      return refuse();
    };
    const caller = createConnection(path, () => caller.write(add, () => caller.destroy()));
    const closed = once(caller, 'close');
    assert.match(String(await accepted), /went away before the answer/);
    attach = async () => refuse();
  });
});
