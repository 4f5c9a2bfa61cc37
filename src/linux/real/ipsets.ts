/**
 * The port IpSets over nfnetlink, in the agent's namespace.
 *
 * In: requests of ports.ts. Out: done, or a KernelError naming the member; the sets. Never: a program executed, other people's
 * sets read member by member.
 */
import { describeIpSet } from '../describe.ts';
import {
  ipSetError,
  readFailedLine,
  readSetPart,
  setDump,
  setNamesDump,
  splitIpSetRequests,
  writeIpSet,
} from '../netlink/ipset.ts';
import { type IpSetInfo, type IpSets, KernelError } from '../ports.ts';
import { dump } from './dump.ts';
import { asKernelErrors, type Failure, RequestSocket } from './exchange.ts';
import { NETLINK_NETFILTER, OWN_NETNS } from './native.ts';

const ENOENT = 2;

export function openIpSets(): IpSets & { close(): void } {
  const socket = asKernelErrors(
    'open a netfilter socket',
    () => new RequestSocket(OWN_NETNS, NETLINK_NETFILTER),
  );
  return {
    batch(requests) {
      const parts = splitIpSetRequests(requests);
      const { failures } = socket.exchange(parts, writeIpSet);
      for (const failure of failures) {
        const { request, position } = parts[failure.item]!;
        if (request.kind === 'destroy' && failure.errno === ENOENT) continue;
        throw ipSetFailure(
          describeIpSet(requests[position]!, readFailedLine(failure.message)),
          failure,
          position,
        );
      }
    },
    async list(namePrefix) {
      const names = await dump(
        'list ipsets',
        OWN_NETNS,
        NETLINK_NETFILTER,
        setNamesDump(),
        (m) => readSetPart(m)?.name ?? null,
      );
      const sets = await Promise.all(names.filter((name) => name.startsWith(namePrefix)).map(listOne));
      return sets.filter((set) => set !== null);
    },
    close: () => socket.close(),
  };
}

/** Null for a set that went away meanwhile. */
async function listOne(name: string): Promise<IpSetInfo | null> {
  try {
    const parts = await dump(`list ipset ${name}`, OWN_NETNS, NETLINK_NETFILTER, setDump(name), readSetPart);
    const [first] = parts;
    if (first === undefined) return null;
    return {
      name,
      type: first.type ?? 'other',
      family: first.family,
      members: parts.flatMap((part) => part.members),
    };
  } catch (error) {
    if (error instanceof KernelError && error.errno === 'ENOENT') return null;
    throw error;
  }
}

function ipSetFailure(what: string, failure: Failure, position: number): KernelError {
  const { name, text } = ipSetError(failure.errno);
  return new KernelError(what, name, failure.text ?? text, position);
}
