/**
 * The port Routing: rtnetlink in one namespace.
 *
 * In: requests of ports.ts. Out: done, or a KernelError with position and the kernel's words; what the kernel holds. Never: an
 * asynchronous step on the way of a batch.
 */
import { closeSync } from 'node:fs';
import { families } from '../../model/ip.ts';
import { describeRouting } from '../describe.ts';
import {
  addressDump,
  RTM_NEWADDR,
  readAddress,
  writeAddressAdd,
  writeAddressDelete,
} from '../netlink/address.ts';
import {
  counterDump,
  linkDump,
  RTM_NEWLINK,
  readCounters,
  readLink,
  writeIfbAdd,
  writeLinkDelete,
  writeLinkGet,
  writeLinkSet,
  writeMacvlanAdd,
  writeVethAdd,
  writeVlanAdd,
} from '../netlink/link.ts';
import type { Message, MessageBatch } from '../netlink/message.ts';
import { neighbourDump, RTM_NEWNEIGH, readNeighbour, writeNeighbourReplace } from '../netlink/neighbour.ts';
import { mainTable, RTM_NEWROUTE, readRoute, routeDump, writeRoute } from '../netlink/route.ts';
import { RTM_NEWRULE, readMarkRule, ruleDump, writeMarkRule, writeSourceRule } from '../netlink/rule.ts';
import {
  qdiscDump,
  RTM_NEWQDISC,
  readQdisc,
  writeRedirect,
  writeShape,
  writeUnredirect,
  writeUnshape,
} from '../netlink/traffic-control.ts';
import { KernelError, type Netns, type Routing, type RoutingRequest } from '../ports.ts';
import { dump } from './dump.ts';
import { asKernelErrors, kernelError, RequestSocket } from './exchange.ts';
import { NETLINK_ROUTE, OWN_NETNS } from './native.ts';

export function openRouting(netns?: Netns): Routing {
  const socket = asKernelErrors(
    'open a routing socket',
    () => new RequestSocket(netns?.fd ?? OWN_NETNS, NETLINK_ROUTE),
  );

  /** The namespace's file may be closed by now: a list has its own socket, opened where ours lives. */
  async function list<T>(
    what: string,
    request: Buffer,
    type: number,
    read: (message: Message) => T | null,
    absent: string | null,
  ): Promise<T[]> {
    const fd = netns === undefined ? OWN_NETNS : asKernelErrors(what, () => socket.netnsFd());
    try {
      return await dump(what, fd, NETLINK_ROUTE, request, (message) =>
        message.type === type ? read(message) : null,
      );
    } catch (error) {
      if (error instanceof KernelError && error.errno === absent) return [];
      throw error;
    } finally {
      if (fd !== OWN_NETNS) closeSync(fd);
    }
  }

  return {
    batch(requests) {
      const [failure] = socket.exchange(requests, writeRequest).failures;
      if (failure !== undefined)
        throw kernelError(describeRouting(requests[failure.item]!), failure, failure.item);
    },
    link(by) {
      const { failures, replies } = socket.exchange([by], writeLinkGet);
      const [failure] = failures;
      if (failure?.errno === ENODEV) return null;
      if (failure !== undefined) throw kernelError('read a link', failure);
      return replies.map(readLink).find((link) => link !== null) ?? null;
    },
    links: () => list('list links', linkDump(), RTM_NEWLINK, readLink, null),
    addresses: (index = 0) => list('list addresses', addressDump(index), RTM_NEWADDR, readAddress, 'ENODEV'),
    async routes({ protocol = 0, everyTable = false, table = mainTable } = {}) {
      const tables = everyTable ? 'all' : table;
      // A namespace without any route yet has no main table.
      const lists = families.map((family) =>
        list(
          'list routes',
          routeDump(family, protocol, tables),
          RTM_NEWROUTE,
          (message) => readRoute(message, tables),
          'ENOENT',
        ),
      );
      const routes = (await Promise.all(lists)).flat();
      return protocol === 0 ? routes : routes.filter((route) => route.protocol === protocol);
    },
    async markRules() {
      const lists = families.map((family) =>
        list('list policy rules', ruleDump(family), RTM_NEWRULE, readMarkRule, 'EAFNOSUPPORT'),
      );
      return (await Promise.all(lists)).flat();
    },
    async neighbours(index = 0) {
      const neighbours = await list(
        'list neighbours',
        neighbourDump(index),
        RTM_NEWNEIGH,
        readNeighbour,
        'ENODEV',
      );
      return index === 0 ? neighbours : neighbours.filter((neighbour) => neighbour.linkIndex === index);
    },
    async qdiscs(index) {
      const qdiscs = await list('list queueing disciplines', qdiscDump(), RTM_NEWQDISC, readQdisc, null);
      return index === undefined ? qdiscs : qdiscs.filter(({ linkIndex }) => linkIndex === index);
    },
    counters: async () =>
      new Map(await list('read link counters', counterDump(), RTM_NEWLINK, readCounters, null)),
    close: () => socket.close(),
  };
}

const ENODEV = 19;

/** One or two messages for each request. */
export function writeRequest(batch: MessageBatch, request: RoutingRequest): void {
  switch (request.kind) {
    case 'veth-add':
      writeVethAdd(batch, request);
      break;
    case 'macvlan-add':
      writeMacvlanAdd(batch, request);
      break;
    case 'vlan-add':
      writeVlanAdd(batch, request);
      break;
    case 'ifb-add':
      writeIfbAdd(batch, request);
      break;
    case 'link-set':
      writeLinkSet(batch, request);
      break;
    case 'link-settle':
      writeLinkGet(batch, request);
      break;
    case 'link-delete':
      writeLinkDelete(batch, request);
      break;
    case 'address-add':
      writeAddressAdd(batch, request);
      break;
    case 'address-delete':
      writeAddressDelete(batch, request);
      break;
    case 'shape':
      writeShape(batch, request);
      break;
    case 'unshape':
      writeUnshape(batch, request.index);
      break;
    case 'redirect-ingress':
      writeRedirect(batch, request);
      break;
    case 'unredirect-ingress':
      writeUnredirect(batch, request.index);
      break;
    case 'neighbour-replace':
      writeNeighbourReplace(batch, request);
      break;
    case 'source-rule-add':
      writeSourceRule(batch, request, 'add');
      break;
    case 'source-rule-delete':
      writeSourceRule(batch, request, 'delete');
      break;
    case 'mark-rule-add':
      writeMarkRule(batch, request, 'add');
      break;
    case 'mark-rule-delete':
      writeMarkRule(batch, request, 'delete');
      break;
    case 'route-add':
    case 'route-replace':
    case 'route-delete':
      writeRoute(batch, request.kind, request.route);
      break;
  }
}
