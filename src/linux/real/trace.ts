/**
 * A packet sent and followed through the rules of nftables.
 *
 * In: a packet whose header tells it from all others. Out: what it met. Never: another packet traced; the table that asks for the
 * trace left behind.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Family } from '../../model/ip.ts';
import { readMessages } from '../netlink/message.ts';
import { readTrace, TRACE_GROUP } from '../netlink/nft-trace.ts';
import type { Nftables, NftExpression, NftRequest, TraceStep } from '../nftables-port.ts';
import { asKernelErrors } from './exchange.ts';
import { NETLINK_NETFILTER, native, OWN_NETNS, RECEIVE_BYTES } from './native.ts';
import { openNftables } from './nftables.ts';

/** Begins as the names of all our tables do, so that nobody takes it for a foreign one. */
const TABLE = 'netctl-probe';
/** Before everything else, connection tracking included (raw is -300). */
const FIRST = -400;
const REGISTER = 1;
/** The kernel tells while the packet goes; a neighbour that has to be asked for first takes longer. */
const WAIT_MS = 300;

/** @param from the namespace that sends; `inside`: followed there, not in the agent's */
export async function tracePacket(
  packet: Uint8Array,
  { from, inside }: { readonly from: number; readonly inside: boolean },
): Promise<TraceStep[]> {
  const there = inside ? from : OWN_NETNS;
  const nftables = openNftables(there);
  try {
    return await trace(nftables, there, from, packet);
  } finally {
    nftables.close();
  }
}

async function trace(
  nftables: Pick<Nftables, 'transact'>,
  there: number,
  from: number,
  packet: Uint8Array,
): Promise<TraceStep[]> {
  const family: Family = packet[0]! >> 4 === 4 ? 4 : 6;
  const at = { family, table: TABLE } as const;
  const socket = asKernelErrors('trace a packet', () =>
    native.openNetlink(there, NETLINK_NETFILTER, RECEIVE_BYTES),
  );
  try {
    asKernelErrors('trace a packet', () => native.joinGroup(socket, TRACE_GROUP));
    const expressions = [...identify(family, packet), { kind: 'trace' } as const];
    const requests = (['prerouting', 'output'] as const).flatMap((hook): NftRequest[] => [
      { ...at, kind: 'chain-add', chain: hook, hook: { type: 'filter', hook, priority: FIRST } },
      { ...at, kind: 'rule-add', chain: hook, rule: { expressions, comment: 'netctl why --probe' } },
    ]);
    // One that a process killed in the middle has left goes with it.
    nftables.transact([
      { ...at, kind: 'table-add' },
      { ...at, kind: 'table-delete' },
      { ...at, kind: 'table-add' },
      ...requests,
    ]);
    try {
      asKernelErrors('send a packet', () => native.sendPacket(from, packet));
      await sleep(WAIT_MS);
    } finally {
      nftables.transact([{ ...at, kind: 'table-delete' }]);
    }
    return stepsOf(socket);
  } finally {
    native.close(socket);
  }
}

function stepsOf(socket: Parameters<typeof native.receive>[0]): TraceStep[] {
  const found = [];
  for (let bytes = native.receive(socket); bytes !== null; bytes = native.receive(socket))
    found.push(
      ...readMessages(bytes)
        .map(readTrace)
        .filter((each) => each !== null),
    );
  const ours = new Set(found.filter(({ step }) => step.table === TABLE).map(({ id }) => id));
  return found.filter(({ id, step }) => ours.has(id) && step.table !== TABLE).map(({ step }) => step);
}

/** By addresses and what the sender chose at random: identification in IPv4 (RFC 791), flow label in IPv6 (RFC 8200). */
function identify(family: Family, packet: Uint8Array): NftExpression[] {
  const fields: [offsetBytes: number, lengthBytes: number][] =
    family === 4
      ? [
          [4, 2],
          [12, 8],
        ]
      : [
          [0, 4],
          [8, 16],
          [24, 16],
        ];
  return fields.flatMap(([offsetBytes, lengthBytes]): NftExpression[] => [
    { kind: 'payload', base: 'network', offsetBytes, lengthBytes, to: REGISTER },
    {
      kind: 'compare',
      from: REGISTER,
      negated: false,
      value: packet.subarray(offsetBytes, offsetBytes + lengthBytes),
    },
  ]);
}
