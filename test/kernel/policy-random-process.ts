/**
 * Run inside a network namespace by policy-wire.ts, with the name of a back end: policy as an agent has it, from worlds that come
 * as JSON, one on each line of standard input. With `macvlan` and the namespaces of four containers: in those.
 *
 * Out: one line for each, when the kernel has it and has forgotten all connections: `null`, or the error.
 */
import { createInterface } from 'node:readline';
import { IptablesBackend } from '../../src/dataplane/iptables-backend.ts';
import { MacvlanPolicy } from '../../src/dataplane/macvlan-policy.ts';
import { NftBackend } from '../../src/dataplane/nft-backend.ts';
import { PolicyDataplane } from '../../src/dataplane/policy-dataplane.ts';
import { systemClock } from '../../src/lib/clock.ts';
import type { Logger } from '../../src/lib/logger.ts';
import { MessageBatch, readAnswer, readMessages } from '../../src/linux/netlink/message.ts';
import { createLinux } from '../../src/linux/real/linux.ts';
import { NETLINK_NETFILTER, native, OWN_NETNS } from '../../src/linux/real/native.ts';
import { PolicyEngine } from '../../src/policy/engine.ts';
import type { PolicyOutput } from '../../src/policy/output.ts';
import { bootId, macvlanEndpoint } from '../unit/dataplane/macvlan-endpoint.ts';
import type { World } from '../unit/policy/worlds.ts';
import { endpointAddresses } from './policy-wire-ends.ts';
import { macvlanMac, macvlanParent } from './policy-wire-macvlan.ts';

/** NFNL_SUBSYS_CTNETLINK and IPCTNL_MSG_CT_DELETE; without a tuple: all. */
const DELETE_CONNECTIONS = (1 << 8) | 2;

interface Policy extends PolicyOutput {
  start(): Promise<void>;
  flush(): Promise<void>;
}

const [backendName, ...containers] = process.argv.slice(2);
const logger: Logger = { debug() {}, info() {}, warn() {}, error: (fields) => console.error(fields) };
const linux = await createLinux({
  iptablesBackend: backendName === 'iptables-legacy' ? 'legacy' : 'nft',
});
const namespaces = containers.map((name) => linux.openNetns(`/run/netns/${name}`));
const policy = backendName === 'macvlan' ? inContainers() : onHost();
const engine = new PolicyEngine({ endpointToHost: 'drop' }, policy);
await policy.start();

for await (const line of createInterface({ input: process.stdin })) {
  try {
    await load(JSON.parse(line) as World);
    console.log('null');
  } catch (error) {
    console.log(JSON.stringify(String(error)));
  }
}
linux.close();

/** In place of the world before. */
async function load(world: World): Promise<void> {
  for (const name of ['web', 'db']) engine.onProfile(name, world.profiles[name] ?? null);
  for (const name of ['a', 'b']) engine.onPolicy(name, world.policies[name] ?? null);
  engine.onAddressSet('office', world.office);
  world.parties.forEach((party, i) => {
    engine.onEndpoint(`${i}`, { local: true, hostInterface: `nctl${i}`, ...party });
  });
  // Lists of the world before last go.
  engine.retire();
  await policy.flush();
  for (const netns of namespaces.length > 0 ? namespaces.map(({ fd }) => fd) : [OWN_NETNS])
    forgetConnections(netns);
}

function onHost(): Policy {
  const backend = backendName === 'nftables' ? new NftBackend(linux) : new IptablesBackend(linux, logger);
  return new PolicyDataplane({ backend, other: null }, logger);
}

function inContainers(): Policy {
  const options = {
    bootId,
    node: 'here',
    hostAddresses: [],
    macvlanPrivileged: 'flag',
    requests: () => 0,
    clock: systemClock,
  } as const;
  const all = new MacvlanPolicy(linux, options, logger);
  for (const [i, name] of containers.entries()) {
    const words = {
      hostInterface: `nctl${i}`,
      mac: macvlanMac(i),
      parent: macvlanParent(i),
      addresses: endpointAddresses[i]!,
    };
    all.onEndpoint(null, macvlanEndpoint(`/run/netns/${name}`, namespaces[i]!, words));
  }
  return all;
}

function forgetConnections(netnsFd: number): void {
  const socket = native.openNetlink(netnsFd, NETLINK_NETFILTER, 65536);
  const batch = new MessageBatch(1);
  batch.add(DELETE_CONNECTIONS, 0, (writer) => writer.zeros(4));
  native.send(socket, batch.finish());
  const [answer] = readMessages(native.receive(socket)!);
  native.close(socket);
  const { errno } = readAnswer(answer!);
  if (errno !== 0) throw new Error(`cannot flush connections: errno ${errno}`);
}
