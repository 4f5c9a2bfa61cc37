/**
 * The port Nftables over nfnetlink, in the agent's namespace.
 *
 * In: requests of ports.ts. Out: done as a whole, or a KernelError naming the first that was refused; what a table holds. Never: a
 * program executed, half of a transaction.
 */
import type { Family } from '../../model/ip.ts';
import { describeNft } from '../describe.ts';
import { errnoName } from '../netlink/errno.ts';
import { MessageBatch, NLMSG_ERROR, readAnswer, readMessages } from '../netlink/message.ts';
import { elementsOf } from '../netlink/nft-element.ts';
import {
  NFTABLES_GROUP,
  nftDump,
  nftDumpAll,
  nftElementDump,
  readChain,
  readElements,
  readForwardChain,
  readNotifiedTable,
  readRule,
  readRuleCount,
  readRuleEnd,
  readSet,
  readTable,
} from '../netlink/nft-list.ts';
import { checkNftRequest, splitNftRequests, writeTransaction } from '../netlink/nftables.ts';
import type {
  Nftables,
  NftBaseChain,
  NftChainInfo,
  NftCount,
  NftRequest,
  NftSetInfo,
  NftTable,
} from '../nftables-port.ts';
import { KernelError } from '../ports.ts';
import { dump, dumpEach } from './dump.ts';
import { asKernelErrors } from './exchange.ts';
import { NETLINK_NETFILTER, type NetlinkSocket, native, OWN_NETNS, RECEIVE_BYTES } from './native.ts';

const ENOBUFS = 105;
const TABLE_DORMANT = 1;
const LAST_SEQUENCE = 2 ** 31;

export function openNftables(): Nftables & { close(): void } {
  const socket = openSocket('open a netfilter socket');
  let nextSequence = 1;
  let ownPort = 0;
  return {
    transact(requests) {
      for (const request of requests) checkNftRequest(request);
      const parts = splitNftRequests(requests);
      if (parts.length === 0) return;
      if (nextSequence > LAST_SEQUENCE) nextSequence = 1;
      const batch = new MessageBatch(nextSequence);
      const positions = writeTransaction(batch, parts);
      nextSequence += batch.count;
      ownPort = exchange(socket, batch, positions, requests);
    },
    read: readWhole,
    counts: readCounts,
    dropsAtForward,
    watch: (table, onForeignChange) => watch(table, () => ownPort, onForeignChange),
    close: () => native.close(socket),
  };
}

/**
 * The kernel has answered when send returns: one message for each request that it refused, and one for the whole. Errors that show
 * only when all is put together come for the first message of the batch, before the others. Returns the number of our socket.
 */
function exchange(
  socket: NetlinkSocket,
  batch: MessageBatch,
  positions: readonly (number | null)[],
  requests: readonly NftRequest[],
): number {
  const what = `change ${requests.length} things in nftables`;
  asKernelErrors(what, () => native.send(socket, batch.bytes()));
  let port: number | null = null;
  let failure: KernelError | null = null;
  for (let bytes = receive(socket); bytes !== null; bytes = receive(socket)) {
    for (const message of readMessages(bytes)) {
      const index = message.sequence - batch.firstSequence;
      if (message.type !== NLMSG_ERROR || index < 0 || index >= positions.length) continue;
      port = message.port;
      const { errno, text } = readAnswer(message);
      if (errno === 0 || failure !== null) continue;
      const position = positions[index] ?? 0;
      const described = positions[index] === null ? what : describeNft(requests[position]!);
      failure = new KernelError(described, errnoName(errno), text, position);
    }
  }
  if (failure !== null) throw failure;
  if (port === null) throw new KernelError(what, 'ENOBUFS', 'the kernel sent no answer');
  return port;
}

/** An overflow (there are thousands of errors) is told once; what came before it can still be read. */
function receive(socket: NetlinkSocket): Buffer | null {
  try {
    return native.receive(socket);
  } catch (error) {
    if ((error as { errno?: number }).errno === ENOBUFS) return native.receive(socket);
    return asKernelErrors('receive from the kernel', () => {
      throw error;
    });
  }
}

async function readCounts(family: Family, table: string): Promise<Map<string, (NftCount | null)[]>> {
  const rules = await dump(
    'list counters of nftables',
    OWN_NETNS,
    NETLINK_NETFILTER,
    nftDump(family, 'rules', table),
    (message) => readRuleCount(message, table),
  );
  const counts = new Map<string, (NftCount | null)[]>();
  for (const { chain, count } of rules) counts.set(chain, [...(counts.get(chain) ?? []), count]);
  return counts;
}

async function dropsAtForward(): Promise<NftBaseChain[]> {
  const list = <T>(what: string, request: Buffer, read: Parameters<typeof dump<T>>[4]): Promise<T[]> =>
    dump(`list ${what} of nftables`, OWN_NETNS, NETLINK_NETFILTER, request, read);
  const drops: NftBaseChain[] = [];
  for (const found of await list('chains', nftDumpAll('chains'), readForwardChain)) {
    const { family, familyNumber, table, chain, dropsByPolicy } = found;
    const rules = dropsByPolicy
      ? []
      : await list('rules', nftDumpAll('rules', familyNumber, table), readRuleEnd);
    const last = rules.findLast((rule) => rule.chain === chain);
    if (dropsByPolicy || last?.dropsAll) drops.push({ family, table, chain });
  }
  return drops;
}

async function readWhole(family: Family, table: string): Promise<NftTable | null> {
  const list = <T>(what: string, request: Buffer, read: Parameters<typeof dump<T>>[4]): Promise<T[]> =>
    dump(`list ${what} of nftables`, OWN_NETNS, NETLINK_NETFILTER, request, read);
  const listEach = <T>(
    what: string,
    requests: readonly Buffer[],
    read: Parameters<typeof dump<T>>[4],
  ): Promise<T[][]> => dumpEach(`list ${what} of nftables`, OWN_NETNS, NETLINK_NETFILTER, requests, read);
  try {
    const [flags] = await list('tables', nftDump(family, 'tables', table), (m) => readTable(m, table));
    if (flags === undefined) return null;
    const [chains, sets] = await Promise.all([
      list('chains', nftDump(family, 'chains', table), (m) => readChain(m, table)),
      list('sets', nftDump(family, 'sets', table), (m) => readSet(m, table, family)),
    ]);
    // Chain by chain: the kernel goes on with a list by counting from its beginning, which with many rules takes seconds.
    const [rules, elements] = await Promise.all([
      listEach(
        'rules',
        chains.map(({ name }) => nftDump(family, 'rules', table, name)),
        (m) => readRule(m, table),
      ),
      listEach(
        'elements',
        sets.map(({ name }) => nftElementDump(family, table, name)),
        readElements,
      ),
    ]);
    return {
      isDormant: (flags & TABLE_DORMANT) !== 0,
      chains: new Map(
        chains.map(({ name, hook }, i): [string, NftChainInfo] => [
          name,
          { hook, comments: rules[i]!.map(({ comment }) => comment) },
        ]),
      ),
      sets: new Map(
        sets.map(({ name, spec }, i): [string, NftSetInfo] => [
          name,
          { spec, elements: spec === 'other' ? [] : elementsOf(elements[i]!.flat(), family, spec) },
        ]),
      ),
    };
  } catch (error) {
    // It went away between two lists: then there is none, or a new one, which the next reading finds.
    if (error instanceof KernelError && error.errno === 'ENOENT') return null;
    throw error;
  }
}

/** A notification names the socket whose request it tells of. */
function watch(table: string, ownPort: () => number, onForeignChange: () => void): () => void {
  const socket = openSocket('watch nftables');
  asKernelErrors('watch nftables', () => native.joinGroup(socket, NFTABLES_GROUP));
  native.onReadable(socket, (bytes, error) => {
    const isForeign =
      bytes === null
        ? error?.code === 'ENOBUFS'
        : readMessages(bytes).some((m) => m.port !== ownPort() && readNotifiedTable(m) === table);
    if (isForeign) onForeignChange();
  });
  native.unref(socket);
  return () => native.close(socket);
}

function openSocket(what: string): NetlinkSocket {
  return asKernelErrors(what, () => native.openNetlink(OWN_NETNS, NETLINK_NETFILTER, RECEIVE_BYTES));
}
