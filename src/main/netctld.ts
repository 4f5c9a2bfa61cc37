/**
 * netctld, the agent: here the adapters meet the ports. Reads the configuration, opens the store and the kernel, starts the
 * agent, then the delete queue, the CNI socket and the API; ends in the reverse order.
 *
 * In: argv, environment, configuration file. Out: a running agent; exit 0 after SIGTERM or SIGINT, 1 with one line on stderr
 * when it cannot start. With `--boot`: closes the host to containers' traffic until an agent is in sync, and ends. Never: a second
 * agent on the same directories or in the same network namespace.
 */
import { chmodSync, mkdirSync, readFileSync, renameSync, rmSync, symlinkSync } from 'node:fs';
import type { Server, Socket } from 'node:net';
import { dirname, join } from 'node:path';
import { TLSSocket } from 'node:tls';
import packageJson from '../../package.json' with { type: 'json' };
import { Agent } from '../agent/agent.ts';
import { closeUntilSync } from '../agent/boot.ts';
import { type Config, defaultConfigPath, loadConfig, type Setting } from '../agent/config.ts';
import { options } from '../agent/config-options.ts';
import { PolicyQuestions } from '../agent/policy-questions.ts';
import { type Caller, certificateCaller, localCaller } from '../api/caller.ts';
import type { ApiDeps } from '../api/deps.ts';
import { Metrics } from '../api/metrics.ts';
import { buildApi } from '../api/server.ts';
import { ByHand } from '../cni/by-hand.ts';
import { release } from '../cni/delegate.ts';
import { DeleteQueue } from '../cni/delete-queue.ts';
import { createCniServer } from '../cni/server.ts';
import { createDockerServer } from '../docker/server.ts';
import { systemClock } from '../lib/clock.ts';
import { asNetctlError, invalid, NetctlError } from '../lib/errors.ts';
import type { Logger } from '../lib/logger.ts';
import { createBird } from '../linux/real/bird.ts';
import { createLinux } from '../linux/real/linux.ts';
import { native } from '../linux/real/native.ts';
import { FlushMarkFile } from './flush-mark-file.ts';
import { listenMetrics, listenTls } from './listeners.ts';
import { createLogger } from './logger.ts';
import { claimOnly } from './only-agent.ts';
import { openStore } from './open-store.ts';
import { sayPresent } from './presence.ts';
import { takePriority } from './priority.ts';

const queuePollMilliseconds = 5000;
const holdMilliseconds = 60_000;
/** For the answers of requests that had begun when the end was asked for. */
const answerMilliseconds = 1000;

async function main(argv: readonly string[]): Promise<void> {
  if (argv.includes('--help') || argv.includes('-h')) return void process.stdout.write(help());
  if (argv.includes('--version')) return void process.stdout.write(`netctld ${packageJson.version}\n`);
  const isBoot = argv.includes('--boot');
  const flags = argv.filter((flag) => flag !== '--boot');
  const { config, settings } = loadConfig({ argv: flags, env: process.env, readFile: textOrNull });
  const logger = createLogger(config.log);
  if (isBoot) return boot(config, logger);
  process.umask(0o077);
  await claimOnly(config.runDir, logger);
  takePriority(logger);
  await run(config, settings, logger);
}

async function boot(config: Config, logger: Logger): Promise<void> {
  const linux = await createLinux({ iptablesBackend: config.dataplane.iptablesBackend });
  try {
    await closeUntilSync(linux, config, logger);
  } finally {
    linux.close();
  }
}

function makeDirectory(key: string, path: string): void {
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw invalid(key, path, `a directory that is there, or can be made (${(error as Error).message})`);
  }
}

async function run(config: Config, settings: readonly Setting[], logger: Logger): Promise<void> {
  // Until the sockets listen nothing else may: a start that waits for a cluster would end, since timers alone do not hold Node.
  setInterval(() => undefined, holdMilliseconds);
  for (const key of ['runDir', 'stateDir'] as const) makeDirectory(key, config[key]);
  chmodSync(config.runDir, 0o700);
  const { store, refusal, replication, presence } = await openStore(config, systemClock, logger);
  const linux = await createLinux({ iptablesBackend: config.dataplane.iptablesBackend });
  const bootId = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  const agent = new Agent({
    config,
    version: packageJson.version,
    bootId,
    store,
    linux,
    bird: createBird({ program: config.bgp.birdPath, directory: config.runDir }),
    clock: systemClock,
    logger,
    flushMark: new FlushMarkFile(join(config.runDir, 'connections-flushed')),
    clusterTrouble: () => replication()?.error ?? null,
    diskRefusal: refusal,
    releaseDelegate: (id, delegate) => release({ delegate, id, netnsPath: id.netns.path }),
  });
  const attachments = await agent.start();

  const queueDirectory = join(config.stateDir, 'delqueue');
  const queue = new DeleteQueue(queueDirectory, attachments, logger);
  link(queueDirectory, join(config.runDir, 'delqueue'));
  await queue.drain();
  const queueTimer = setInterval(() => void queue.drain(), queuePollMilliseconds);

  const byHand = new ByHand({
    attacher: attachments,
    directory: config.cniConfigDir,
    endpointsIn: (netns) => agent.endpointsIn(netns),
  });
  const questions = new PolicyQuestions(store, config, {
    linux,
    bootId,
    backend: () => agent.status().policy.backend,
  });
  const deps: ApiDeps = {
    store,
    ipam: agent.ipam,
    collect: (request) => agent.collection.run(request),
    clock: systemClock,
    node: config.node.name,
    version: packageJson.version,
    status: () => agent.status(replication(), refusal()),
    bgpStatus: () => agent.bgpStatus(),
    hostNotices: () => agent.hostNotices(),
    config: () => settings,
    applied: (revision) => agent.applied(revision),
    why: (query, isProbed) => questions.why(query, isProbed),
    impact: (changes) => questions.impact(changes),
    attach: (request) => byHand.attach(request),
    detach: (target, name) => byHand.detach(target, name),
    counters: () => agent.counters(),
    enforcement: () => agent.enforcement(),
    ruleCounts: (kind, name) => agent.ruleCounts(kind, name),
    callerOf,
    onForced: (change) => logger.warn({ ...change }, 'forced change of an address'),
    onBug: (error) => logger.error({ error: error.message, stack: error.stack }, 'the API met a bug'),
  };
  const metrics = new Metrics(deps);
  const api = buildApi(deps, metrics);
  await api.ready();
  const cni = createCniServer({
    attacher: attachments,
    logger,
    peerOf: (socket) => native.peerCredentials(descriptorOf(socket)),
  });
  await listen(cni, join(config.runDir, 'cni.sock'));
  await listen(api.server, join(config.runDir, 'api.sock'));
  const docker = createDockerServer({
    attacher: attachments,
    addressesOf: (id) => attachments.addressesOf(id),
    ipam: agent.ipam,
    node: config.node.name,
    directory: join(config.stateDir, 'docker'),
    logger,
  });
  if (config.docker.socket !== null) {
    mkdirSync(dirname(config.docker.socket), { recursive: true, mode: 0o755 });
    await listen(docker, config.docker.socket);
  }
  const leave =
    presence && sayPresent(presence, config.node.name, () => agent.status(replication(), refusal()));
  const remote = await listenTls(api, config.api, logger);
  const pages = metrics.server();
  await listenMetrics(pages, config.metrics, logger);
  notifySystemd('READY=1');

  const signal = await endSignal();
  logger.info({ signal }, 'stopping; containers keep their network');
  notifySystemd('STOPPING=1');
  clearInterval(queueTimer);
  for (const name of ['cni.sock', 'api.sock']) rmSync(join(config.runDir, name), { force: true });
  const lastAnswer = new Promise<void>((resolve) => cni.close(() => resolve()));
  // Docker tries again for a while where there is a socket, and gives up at once where there is none: the file stays.
  for (const server of [remote, pages, docker]) server?.close();
  await api.close();
  await leave?.();
  await agent.stop();
  await Promise.race([lastAnswer, new Promise((resolve) => setTimeout(resolve, answerMilliseconds))]);
  linux.close();
}

/** Made under another name, closed to others, then renamed: nobody meets a socket that is not ready. */
async function listen(server: Server, path: string): Promise<void> {
  const temporary = `${path}.new`;
  rmSync(temporary, { force: true });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(temporary, () => resolve());
  });
  chmodSync(temporary, 0o600);
  renameSync(temporary, path);
}

/** The CNI executable knows the run directory only, and the queue must outlive it. */
function link(target: string, path: string): void {
  rmSync(path, { force: true });
  symlinkSync(target, path);
}

/** Over TLS the certificate says it (the server has verified it); the unix socket is root's. */
function callerOf(socket: Socket): Caller {
  if (socket instanceof TLSSocket) {
    const certificate = socket.getPeerX509Certificate();
    if (certificate === undefined) throw new NetctlError('FORBIDDEN', 'there is no client certificate');
    return certificateCaller(certificate);
  }
  const { uid, pid } = native.peerCredentials(descriptorOf(socket));
  return localCaller(`uid ${uid}, process ${pid}`);
}

/** Node keeps the descriptor of a socket to itself; this is the one way to ask who is at the other end. */
function descriptorOf(socket: Socket): number {
  const fd = (socket as unknown as { _handle?: { fd?: number } })._handle?.fd;
  if (fd === undefined || fd < 0) throw new NetctlError('TRY_AGAIN', 'the connection is closed already');
  return fd;
}

function notifySystemd(state: string): void {
  const path = process.env['NOTIFY_SOCKET'];
  if (path !== undefined && path !== '') native.sendDatagram(path, Buffer.from(state));
}

function endSignal(): Promise<string> {
  return new Promise((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => resolve(signal));
  });
}

function textOrNull(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}

function help(): string {
  const lines = options.map(
    ({ flag, doc, fallback }) => `  --${flag.padEnd(22)} ${doc} Default: ${JSON.stringify(fallback)}`,
  );
  return `Usage: netctld [--config FILE] [--FLAG VALUE]…

The agent: one on each host, as root. Every flag is also a key of the file (default ${defaultConfigPath})
and an environment variable: --run-dir is NETCTL_RUN_DIR.
With --boot: drops all traffic of containers until an agent is in sync, and ends; does nothing where rules of netctl are.

${lines.join('\n')}
`;
}

main(process.argv.slice(2)).then(
  () => process.exit(0),
  (error: unknown) => {
    process.stderr.write(`netctld: ${asNetctlError(error).message}\n`);
    process.exit(1);
  },
);
