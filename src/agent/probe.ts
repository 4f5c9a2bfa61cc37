/**
 * A real packet to confirm what `why` says: sent from the container's namespace (or this host), followed through the kernel's rules.
 *
 * In: the answer of Why, the endpoint that sends. Out: the rules met and the verdict on this host, or why there was no probe. Never: a
 * packet from a namespace that is not the endpoint's any more; the answer of another host guessed.
 */
import { randomInt } from 'node:crypto';
import { asNetctlError } from '../lib/errors.ts';
import type { TraceStep } from '../linux/nftables-port.ts';
import { probePacket } from '../linux/packet.ts';
import { KernelError, type Linux, type Netns } from '../linux/ports.ts';
import type { Endpoint } from '../model/records.ts';
import { packetOf, type WhyAnswer, type WhyQuery } from './why.ts';

export interface ProbeAnswer {
  /** Why no packet was sent; null when one was. */
  readonly reason: string | null;
  /** What this host's kernel did with it (for a macvlan endpoint: in its container); `lost`: no rule has seen it. null without a probe. */
  readonly verdict: 'accept' | 'drop' | 'lost' | null;
  /** The kernel did what was said. null without a probe, and where it was lost. */
  readonly agrees: boolean | null;
  readonly steps: readonly TraceStep[];
}

export interface ProbeParts {
  readonly linux: Pick<Linux, 'openNetns' | 'tracePacket'>;
  readonly node: string;
  /** What enforces policy here. */
  readonly backend: string;
  readonly bootId: string;
}

/** @param endpoint the one that sends; null where the source is none */
export async function probe(
  { linux, node, backend, bootId }: ProbeParts,
  answer: WhyAnswer,
  endpoint: Endpoint | null,
  protocol: WhyQuery['protocol'],
  sourcePort: number,
): Promise<ProbeAnswer> {
  const { source, destination, hosts } = answer;
  if (source.node === null) return none('the source is outside: only it can send');
  if (source.node !== node) return none(`the source is on ${source.node}: ask there`);
  const isInside = endpoint?.kind === 'macvlan';
  if (backend === 'iptables-legacy' && !isInside)
    return none('the kernel traces no rules of iptables-legacy');
  let netns: Netns | null = null;
  try {
    if (endpoint !== null) {
      if (endpoint.bootId !== bootId) return none('the namespace of the source is gone');
      netns = linux.openNetns(endpoint.netns.path);
      const { device, inode } = netns.identity;
      if (device !== endpoint.netns.device || inode !== endpoint.netns.inode)
        return none('the namespace of the source is gone');
    }
    const id = randomInt(1, 0xffff);
    const packet = probePacket({
      ...packetOf(source.address, destination.address, protocol, sourcePort),
      id,
    });
    const where = isInside ? 'inside' : 'here';
    const container = isInside ? source.endpoint : null;
    const said = hosts.find((host) => host.node === node && host.container === container)?.verdict;
    const steps = await linux.tracePacket(packet, netns ?? undefined, where).catch((error: unknown) => {
      // What rules for the sender itself drop, the sender is told.
      if (error instanceof KernelError && error.errno === 'EPERM') return null;
      throw error;
    });
    if (steps === null) return { reason: null, verdict: 'drop', agrees: said === 'drop', steps: [] };
    const verdict = verdictOf(steps, endpoint === null);
    const agrees = verdict === 'lost' ? null : (verdict === 'drop') === (said === 'drop');
    return { reason: null, verdict, agrees, steps };
  } catch (error) {
    return none(asNetctlError(error).message);
  } finally {
    netns?.close();
  }
}

/** What this host sends itself may meet no rule at all. */
function verdictOf(steps: readonly TraceStep[], isOwn: boolean): 'accept' | 'drop' | 'lost' {
  if (steps.some(({ verdict }) => verdict === 'drop')) return 'drop';
  return steps.length > 0 || isOwn ? 'accept' : 'lost';
}

function none(reason: string): ProbeAnswer {
  return { reason, verdict: null, agrees: null, steps: [] };
}
