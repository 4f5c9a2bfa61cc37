/**
 * The lab as the command line wants it: the interface of src/cli/lab-commands.ts, for a terminal that may be interrupted.
 *
 * In: names and options as they were typed. Out: plain values. Never: a lab half up after an interrupt.
 */
import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import { dirname } from 'node:path';
import type { LabControl, LabHost } from '../src/cli/lab-control.ts';
import { Lab } from './lab.ts';
import type { LabNode } from './node.ts';
import { type RouterKind, routerKinds } from './router.ts';
import { stateOf } from './state.ts';

const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

export const labControl: LabControl = {
  async up({ name, nodes, reflectors, router, progress }) {
    const interrupt = new AbortController();
    const stop = () => interrupt.abort();
    for (const signal of signals) process.on(signal, stop);
    try {
      const lab = await Lab.up({
        name,
        ...(nodes === undefined ? {} : { nodes }),
        ...(reflectors === undefined ? {} : { reflectors }),
        router: router === undefined ? null : routerKind(router),
        signal: interrupt.signal,
        progress,
      });
      return await Promise.all(lab.nodes.map(hostState));
    } finally {
      for (const signal of signals) process.off(signal, stop);
    }
  },
  interrupted() {
    // Signals alone do not keep Node.js alive.
    const wait = setInterval(() => undefined, 60_000);
    return new Promise((resolve) => {
      for (const signal of signals) {
        process.once(signal, () => {
          clearInterval(wait);
          resolve();
        });
      }
    });
  },
  down: (name) => Lab.down(name),
  status: (name) => Promise.all(Lab.open(name).nodes.map(hostState)),
  exec(name, host, command) {
    const lab = Lab.open(name);
    const [node = '', container] = host.split('/', 2);
    const place = node === 'router' ? lab.router : lab.node(node).place;
    // Asked for its name only: an unknown one is an error that says so.
    if (container !== undefined) lab.node(node).container(container);
    return attended(
      place.command(['setpriv', '--pdeathsig', 'TERM', '--', ...command], container),
      lab.node('node1'),
    );
  },
  attach: (name, host, container, { ip, ...options }) =>
    Lab.open(name)
      .node(host)
      .attach(container, { ...options, args: ip === undefined ? '' : `IP=${ip}` }),
  detach: (name, host, container) => Lab.open(name).node(host).detach(container),
};

function routerKind(text: string): RouterKind {
  const kind = routerKinds.find((one) => one === text);
  if (kind === undefined)
    throw new Error(`--router: "${text}" is not valid: expected ${routerKinds.join(', ')}`);
  return kind;
}

async function hostState(node: LabNode): Promise<LabHost> {
  const { name, address, address6 } = node;
  const common = { name, address4: address, address6 };
  const nothing = { agent: null, healthy: false, sessions: null, containers: [] };
  if (!node.isUp) return { ...common, ...nothing, problems: ['the host is down'] };
  const containers = node.containers();
  if (node.agentPid === null) return { ...common, ...nothing, containers, problems: ['the agent is down'] };
  try {
    const { healthy, problems, sessions } = await stateOf(node);
    return { ...common, agent: node.agentPid, healthy, sessions, problems, containers };
  } catch (error) {
    return { ...common, ...nothing, containers, problems: [(error as Error).message] };
  }
}

/** Runs a program with our streams until it ends; an interrupt at the terminal is the program's, not ours. */
function attended([program = '', ...args]: readonly string[], { programs }: LabNode): Promise<number> {
  const path = `${dirname(programs.netctl)}:${process.env['PATH'] ?? ''}`;
  // NETCTL_API, where it is set, means an agent of this machine.
  const env = { ...process.env, PATH: path, NETCTL_API: undefined };
  const child = spawn(program, args, { stdio: 'inherit', env });
  const pass = (signal: NodeJS.Signals) => child.kill(signal);
  const ignore = () => undefined;
  process.on('SIGINT', ignore).on('SIGTERM', pass).on('SIGHUP', pass);
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code, signal) => {
      process.off('SIGINT', ignore).off('SIGTERM', pass).off('SIGHUP', pass);
      resolve(code ?? (signal === null ? 1 : 128 + constants.signals[signal]));
    });
  });
}
