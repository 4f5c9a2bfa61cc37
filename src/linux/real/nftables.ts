/**
 * The port Nftables over nfnetlink, in one namespace.
 *
 * In: requests of ports.ts. Out: done as a whole, or a KernelError naming the first that was refused; what a table holds. Never: a
 * program executed, half of a transaction.
 */

import { closeSync } from 'node:fs';
import { describeNft } from '../describe.ts';
import { errnoName } from '../netlink/errno.ts';
import { hasMessage, MessageBatch, NLMSG_ERROR, readAnswer, readMessages } from '../netlink/message.ts';
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
  NftBaseChain,
  NftChainInfo,
  NftCount,
  NftPlace,
  NftRequest,
  NftSetInfo,
  NftTable,
  OpenNftables,
} from '../nftables-port.ts';
import { KernelError } from '../ports.ts';
import { dump, dumpEach } from './dump.ts';
import { asKernelErrors } from './exchange.ts';
import { NETLINK_NETFILTER, type NetlinkSocket, native, RECEIVE_BYTES } from './native.ts';

const ENOBUFS = 105;
const TABLE_DORMANT = 1;
const LAST_SEQUENCE = 2 ** 31;

/** @param netnsFd of the namespace; it may be closed afterwards @param onPort hears the number of our socket after each transaction */
export function openNftables(
  netnsFd: number,
  onPort: (port: number) => void = () => undefined,
): OpenNftables {
  const socket = openSocket('open a netfilter socket', netnsFd);
  const lists = new Lists(socket);
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
      onPort(ownPort);
    },
    read: (family, table, layer) => lists.whole({ family, table, layer }),
    counts: (family, table) => lists.counts({ family, table }),
    dropsAtForward: () => lists.dropsAtForward(),
    watch: (table, onForeignChange) => lists.inside((fd) => watch(fd, table, () => ownPort, onForeignChange)),
    close: () => native.closeInBackground(socket),
  };
}

/**
 * The kernel has answered when send returns: one message for each request that it refused, and one for the last. Errors that show
 * only when all is put together come for the first message of the batch, before the others: where the last one is the first to be answered,
 * and well, there is nothing else to read. Returns the number of our socket.
 */
function exchange(
  socket: NetlinkSocket,
  batch: MessageBatch,
  positions: readonly (number | null)[],
  requests: readonly NftRequest[],
): number {
  const what = `change ${requests.length} things in nftables`;
  asKernelErrors(what, () => native.send(socket, batch.bytes()));
  const last = positions.length - 2;
  let port: number | null = null;
  let failure: KernelError | null = null;
  for (let bytes = receive(socket); bytes !== null; bytes = receive(socket)) {
    for (const message of readMessages(bytes)) {
      const index = message.sequence - batch.firstSequence;
      if (message.type !== NLMSG_ERROR || index < 0 || index >= positions.length) continue;
      port = message.port;
      const { errno, text } = readAnswer(message);
      if (errno === 0 && failure === null && index === last) return port;
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

/** What the namespace of a socket holds, each list by a socket of its own there. */
class Lists {
  readonly #socket: NetlinkSocket;

  constructor(socket: NetlinkSocket) {
    this.#socket = socket;
  }

  async counts(place: NftPlace): Promise<Map<string, (NftCount | null)[]>> {
    const counts = new Map<string, (NftCount | null)[]>();
    const rules = await this.#list('counters', nftDump(place, 'rules'), (message) =>
      readRuleCount(message, place.table),
    );
    for (const { chain, count } of rules) counts.set(chain, [...(counts.get(chain) ?? []), count]);
    return counts;
  }

  async dropsAtForward(): Promise<NftBaseChain[]> {
    const drops: NftBaseChain[] = [];
    for (const found of await this.#list('chains', nftDumpAll('chains'), readForwardChain)) {
      const { family, familyNumber, table, chain, dropsByPolicy } = found;
      const rules = dropsByPolicy
        ? []
        : await this.#list('rules', nftDumpAll('rules', familyNumber, table), readRuleEnd);
      const last = rules.findLast((rule) => rule.chain === chain);
      if (dropsByPolicy || last?.dropsAll) drops.push({ family, table, chain });
    }
    return drops;
  }

  async whole(place: NftPlace): Promise<NftTable | null> {
    const { family, table } = place;
    try {
      const [flags] = await this.#list('tables', nftDump(place, 'tables'), (m) => readTable(m, table));
      if (flags === undefined) return null;
      const [chains, sets] = await Promise.all([
        this.#list('chains', nftDump(place, 'chains'), (m) => readChain(m, place)),
        this.#list('sets', nftDump(place, 'sets'), (m) => readSet(m, place)),
      ]);
      // Chain by chain: the kernel goes on with a list by counting from its beginning, which with many rules takes seconds.
      const [rules, elements] = await Promise.all([
        this.#listEach(
          'rules',
          chains.map(({ name }) => nftDump(place, 'rules', name)),
          (m) => readRule(m, table),
        ),
        this.#listEach(
          'elements',
          sets.map(({ name }) => nftElementDump(place, name)),
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

  /** @param work is to take what it needs of the descriptor before it returns */
  inside<T>(work: (netnsFd: number) => T): T {
    const fd = asKernelErrors('find the namespace', () => native.netnsOf(this.#socket));
    try {
      return work(fd);
    } finally {
      closeSync(fd);
    }
  }

  #list<T>(what: string, request: Buffer, read: Reader<T>): Promise<T[]> {
    return this.inside((fd) => dump(`list ${what} of nftables`, fd, NETLINK_NETFILTER, request, read));
  }

  #listEach<T>(what: string, requests: readonly Buffer[], read: Reader<T>): Promise<T[][]> {
    return this.inside((fd) => dumpEach(`list ${what} of nftables`, fd, NETLINK_NETFILTER, requests, read));
  }
}

type Reader<T> = Parameters<typeof dump<T>>[4];

/**
 * A notification names the socket whose request it tells of. Programs that write thousands of rules have thousands of messages sent: what does
 * not even contain the name of the table is not read.
 */
function watch(
  netnsFd: number,
  table: string,
  ownPort: () => number,
  onForeignChange: () => void,
): () => void {
  const socket = openSocket('watch nftables', netnsFd);
  asKernelErrors('watch nftables', () => native.joinGroup(socket, NFTABLES_GROUP));
  const name = Buffer.from(`${table}\0`);
  native.onReadable(socket, (bytes, error) => {
    const isForeign =
      bytes === null
        ? error?.code === 'ENOBUFS'
        : bytes.includes(name) &&
          hasMessage(bytes, (m) => m.port !== ownPort() && readNotifiedTable(m) === table);
    if (isForeign) onForeignChange();
  });
  native.unref(socket);
  return () => native.close(socket);
}

function openSocket(what: string, netnsFd: number): NetlinkSocket {
  return asKernelErrors(what, () => native.openNetlink(netnsFd, NETLINK_NETFILTER, RECEIVE_BYTES));
}
