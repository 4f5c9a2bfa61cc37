/**
 * Harness for the tests of the CNI executable: builds it, runs it as a runtime would, and plays the agent.
 * In: C sources of native/shim, an environment, standard input. Out: exit status, output, and the decoded request.
 * The codec here is written from native/shim/PROTOCOL.md alone, so that both sides check each other.
 * Must never use the machine's own socket or queue: every test has a directory of its own.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const SOURCES = new URL('../../native/shim/', import.meta.url).pathname;
const WARNINGS = ['-std=c11', '-Wall', '-Wextra', '-Werror', '-D_GNU_SOURCE', '-DNETCTL_VERSION="0.1.0"'];
const FLAVOURS = {
  musl: ['musl-gcc', '-Os', '-static', '-s'],
  glibc: ['gcc', '-Os', '-static', '-s'],
  sanitized: ['gcc', '-O1', '-g', '-fsanitize=address,undefined', '-fno-sanitize-recover=all'],
} as const;

export type Flavour = keyof typeof FLAVOURS;

/** Compiles the executable into `directory`; every wait is divided by `divisor`. Returns its path. */
export function build(flavour: Flavour, directory: string, divisor = 1): string {
  const [compiler, ...flags] = FLAVOURS[flavour];
  const output = join(directory, `netctl-cni-${flavour}-${divisor}`);
  const sources = readdirSync(SOURCES).filter((file) => file.endsWith('.c'));
  const divide = `-DNETCTL_TIME_DIVISOR=${divisor}`;
  execFileSync(compiler, [...WARNINGS, ...flags, divide, '-o', output, ...sources.map((f) => SOURCES + f)]);
  return output;
}

/** Compiles test/kernel/shim-fuzz.c with the parsers alone: nothing in it can reach an agent or a queue. Returns its path. */
export function buildFuzzer([compiler, ...flags]: [string, ...string[]], directory: string): string {
  const output = join(directory, 'fuzzer');
  const parts = ['agent.c', 'json.c', 'output.c', 'request.c'].map((file) => SOURCES + file);
  const own = new URL('shim-fuzz.c', import.meta.url).pathname;
  const always = [...WARNINGS, '-O1', '-g', '-fno-sanitize-recover=all', '-I', SOURCES];
  execFileSync(compiler, [...always, ...flags, '-o', output, own, ...parts]);
  return output;
}

export type Environment = Record<string, string>;
export type Outcome = { status: number | null; stdout: string; stderr: string; ms: number };
export type Running = { pid: number; done: Promise<Outcome> };

/** Starts the executable with exactly `env`. Without `input`, standard input stays open and silent. */
export function start(
  path: string,
  env: Environment,
  input?: string | Buffer,
  options: { argv0?: string; args?: string[] } = {},
): Running {
  const began = performance.now();
  const child = spawn(path, options.args ?? [], {
    env: { ...env, ASAN_OPTIONS: 'detect_leaks=1:exitcode=99', UBSAN_OPTIONS: 'exitcode=99' },
    argv0: options.argv0 ?? '/opt/cni/bin/netctl',
  });
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  child.stdout.on('data', (chunk) => stdout.push(chunk));
  child.stderr.on('data', (chunk) => stderr.push(chunk));
  child.stdin.on('error', () => undefined); // EPIPE: it refused without reading
  if (input !== undefined) child.stdin.end(input);
  const done = new Promise<Outcome>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (status) => {
      const text = (chunks: Buffer[]) => Buffer.concat(chunks).toString('utf8');
      resolve({ status, stdout: text(stdout), stderr: text(stderr), ms: performance.now() - began });
    });
  });
  return { pid: child.pid!, done };
}

export type Frame = { pid: number; netnsFd: number; env: string[]; input: Buffer; bytes: Buffer };

/** Decodes one whole request frame, length prefix included; throws when it is not exactly one. */
export function decodeFrame(bytes: Buffer): Frame {
  if (bytes.length !== 4 + bytes.readUInt32BE(0))
    throw new Error(`frame of ${bytes.length} bytes is cut or too long`);
  if (bytes.readUInt8(4) !== 1) throw new Error(`version ${bytes.readUInt8(4)}`);
  const envLength = bytes.readUInt32BE(13);
  const env = bytes.subarray(17, 17 + envLength).toString('utf8');
  if (!env.endsWith('\0')) throw new Error('the last entry has no NUL');
  return {
    pid: bytes.readUInt32BE(5),
    netnsFd: bytes.readInt32BE(9),
    env: env.slice(0, -1).split('\0'),
    input: bytes.subarray(17 + envLength),
    bytes,
  };
}

export function encodeReply(exitCode: number, output: string | Buffer, version = 1): Buffer {
  const body = Buffer.concat([Buffer.from([version, exitCode]), Buffer.from(output)]);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(body.length);
  return Buffer.concat([length, body]);
}

/** What the agent does once it has a whole request. */
export type Behaviour = (frame: Frame, socket: Socket) => void;

export type Agent = { frames: Frame[]; close: () => Promise<void> };

/** Listens on `path` as the agent would and keeps every request. */
export async function startAgent(path: string, behave: Behaviour): Promise<Agent> {
  const frames: Frame[] = [];
  const sockets = new Set<Socket>();
  const server: Server = createServer((socket) => {
    let received = Buffer.alloc(0);
    sockets.add(socket);
    socket.on('error', () => undefined);
    socket.on('close', () => sockets.delete(socket));
    socket.on('data', (chunk) => {
      received = Buffer.concat([received, chunk]);
      if (received.length < 4 || received.length < 4 + received.readUInt32BE(0)) return;
      const frame = decodeFrame(received);
      frames.push(frame);
      behave(frame, socket);
    });
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return {
    frames,
    close: () => {
      for (const socket of sockets) socket.destroy();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}

/** A safe run directory with an empty queue; gone with `root`. */
export function makeRunDirectory(root: string, queue = true): { dir: string; socket: string; queue: string } {
  const dir = mkdtempSync(join(root, 'run-'));
  if (queue) mkdirSync(join(dir, 'delqueue'), { mode: 0o700 });
  return { dir, socket: join(dir, 'cni.sock'), queue: join(dir, 'delqueue') };
}

export function makeRoot(): string {
  return mkdtempSync(join(tmpdir(), 'netctl-shim-'));
}

/** A network namespace of its own for one test file. */
export function makeNetns(): { path: string; remove: () => void } {
  const name = `nct-${randomBytes(4).toString('hex')}`;
  execFileSync('ip', ['netns', 'add', name]);
  const remove = () => void execFileSync('ip', ['netns', 'delete', name]);
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      remove();
      process.exit(1);
    });
  }
  return { path: `/run/netns/${name}`, remove };
}

/** The environment of a runtime for one container. */
export const environment = (command: string, netns = '/run/netns/none'): Environment => ({
  CNI_COMMAND: command,
  CNI_CONTAINERID: 'c1',
  CNI_NETNS: netns,
  CNI_IFNAME: 'eth0',
  CNI_PATH: '/opt/cni/bin',
});

/** The network configuration that leads to `socket`. */
export const config = (socket: string) => JSON.stringify({ cniVersion: '1.1.0', name: 'edge', socket });
/** What waits in a queue. */
export const entries = (queue: string) => readdirSync(queue).filter((file) => file !== 'lock');
/** The error that was printed; fails when there is none. */
export const errorOf = ({ stdout, status }: Outcome) => {
  assert.equal(status, 1, stdout);
  return JSON.parse(stdout) as { code: number; msg: string; details?: string; cniVersion: string };
};

/** FNV-1a as PROTOCOL.md describes it, for the name of a queue file. */
export function queueName(...key: string[]): string {
  const hash = (seed: bigint) =>
    Buffer.from(key.join('\0')).reduce(
      (h, byte) => ((h ^ BigInt(byte)) * 0x100000001b3n) & 0xffffffffffffffffn,
      seed,
    );
  const hex = (seed: bigint) => hash(seed).toString(16).padStart(16, '0');
  return `${hex(0xcbf29ce484222325n)}${hex(0x84222325cbf29ce4n)}.delete`;
}
