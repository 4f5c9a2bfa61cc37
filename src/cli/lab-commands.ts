/**
 * `netctl lab`: several hosts on this machine, to try things with.
 *
 * In: arguments; the lab itself is handed in by main (a command line that is asked for a pool should not load it). Out: progress on
 * standard error, tables, the exit code of a command that ran on a host. Never: knowledge of how a host is made.
 */
import { type Command, type Context, type Option, UsageError } from './command.ts';
import { CliError, exitCodes } from './exit.ts';
import type { LabHost } from './lab-control.ts';
import type { View } from './output.ts';
import { joined } from './table.ts';

const labName: Readonly<Record<string, Option>> = {
  name: { type: 'text', value: 'LAB', help: 'which lab, where several are up (default: default)' },
};

const hostView: View<LabHost> = {
  kind: 'host',
  name: ({ name }) => name,
  columns: [
    { header: 'HOST', value: ({ name }) => name },
    { header: 'ADDRESS4', value: ({ address4 }) => address4 },
    { header: 'ADDRESS6', value: ({ address6 }) => address6 },
    {
      header: 'AGENT',
      value: ({ agent, healthy }) => (agent === null ? 'down' : healthy ? 'healthy' : 'not healthy'),
    },
    {
      header: 'SESSIONS',
      value: ({ sessions }) => (sessions === null ? '' : `${sessions.established}/${sessions.all}`),
    },
    {
      header: 'CONTAINERS',
      value: ({ containers }) =>
        joined(containers.map(({ name, addresses }) => `${name}=${addresses[0] ?? ''}`)),
    },
    { header: 'PROBLEMS', value: ({ problems }) => problems.join('; '), wide: true },
  ],
};

export const labCommands: readonly Command[] = [
  {
    words: 'lab up',
    options: {
      nodes: { type: 'number', value: 'N', help: 'how many hosts (default: 3)' },
      reflectors: {
        type: 'number',
        value: 'R',
        help: 'the first R hosts reflect routes to the others, instead of a mesh of all (default: 0)',
      },
      router: {
        type: 'text',
        value: 'PROGRAM',
        help: 'a router of another AS in the middle: bird, frr or gobgp',
      },
      wait: { type: 'flag', help: 'stay until interrupted, then take the lab down' },
      ...labName,
    },
    help: 'Make hosts out of namespaces of this machine, each with its own agent, and one etcd; needs root.',
    run: (context) => foreseen(() => up(context)),
  },
  {
    words: 'lab status',
    options: labName,
    help: 'List the hosts of the lab and their containers; exit code 4 when one is not healthy.',
    run: ({ args, output, lab }) =>
      foreseen(async () => {
        const hosts = await (await lab()).status(nameOf(args));
        await output.list(hostView, hosts);
        return hosts.every(({ healthy }) => healthy) ? exitCodes.done : exitCodes.unhealthy;
      }),
  },
  {
    words: 'lab exec HOST COMMAND...',
    options: labName,
    help: 'Run a command on a host (node1), in a container there (node1/NAME) or on the router: lab exec node1 -- ip route',
    run: ({ args, lab }) =>
      foreseen(async () => (await lab()).exec(nameOf(args), args.text('HOST'), args.list('COMMAND') ?? [])),
  },
  {
    words: 'lab attach HOST NAME',
    options: {
      network: { type: 'text', value: 'NETWORK', help: 'network to join (default: edge)' },
      profile: {
        type: 'list',
        value: 'PROFILE',
        help: 'profile of the container (default: the one named like the network)',
      },
      ip: { type: 'text', value: 'ADDRESS', help: 'this address instead of any' },
      ...labName,
    },
    help: 'Make a container on a host, by calling the CNI plugin there.',
    run: ({ args, output, lab }) =>
      foreseen(async () => {
        const [network, ip] = [args.optionalText('network'), args.optionalText('ip')];
        const made = await (await lab()).attach(nameOf(args), args.text('HOST'), args.text('NAME'), {
          profiles: args.list('profile') ?? [],
          ...(network === undefined ? {} : { network }),
          ...(ip === undefined ? {} : { ip }),
        });
        const where = `${args.text('HOST')}/${made.name}`;
        await output.changed('container', where, `container ${where}: ${made.addresses.join(', ')}`, made);
      }),
  },
  {
    words: 'lab detach HOST NAME',
    options: labName,
    help: 'Remove a container from a host, by calling the CNI plugin there.',
    run: ({ args, output, lab }) =>
      foreseen(async () => {
        await (await lab()).detach(nameOf(args), args.text('HOST'), args.text('NAME'));
        const where = `${args.text('HOST')}/${args.text('NAME')}`;
        await output.changed('container', where, `container ${where} removed`, { name: args.text('NAME') });
      }),
  },
  {
    words: 'lab down',
    options: labName,
    help: 'Remove the lab with everything in it.',
    run: ({ args, output, lab }) =>
      foreseen(async () => {
        const name = nameOf(args);
        const was = await (await lab()).down(name);
        await output.changed('lab', name, was ? `lab ${name} removed` : `there is no lab ${name}`, { name });
      }),
  },
];

async function up({ args, output, lab }: Context): Promise<void> {
  const control = await lab();
  const name = nameOf(args);
  const options = {
    nodes: args.number('nodes'),
    reflectors: args.number('reflectors'),
    router: args.optionalText('router'),
  };
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
  const start = performance.now();
  const seconds = () => `${((performance.now() - start) / 1000).toFixed(1)} s`;
  const hosts = await control.up({
    name,
    ...given,
    progress: (step, done, all) =>
      output.progress(`${seconds().padStart(6)}  ${step} ${done}/${all}`, done === all),
  });
  await output.list(hostView, hosts);
  if (output.forPeople) {
    const which = name === 'default' ? '' : ` --name ${name}`;
    output.note(
      `up after ${seconds()}; try: netctl lab attach${which} node1 web; netctl lab exec${which} node1/web -- ip address`,
    );
  }
  if (args.flag('wait') !== true) return;
  output.note('Ctrl-C removes it');
  await control.interrupted();
  await control.down(name);
}

function nameOf(args: Context['args']): string {
  return args.optionalText('name') ?? 'default';
}

/** The lab's errors are sentences for people; anything else is a bug and keeps its stack. */
async function foreseen<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof UsageError || !(error instanceof Error) || error.name !== 'Error') throw error;
    throw new CliError(error.message);
  }
}
