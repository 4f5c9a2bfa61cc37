/**
 * The fake's IP sets.
 *
 * In: requests of ports.ts. Out: sets, or a KernelError as the kernel's. Never: a set destroyed that a rule names, a member
 * that does not fit its set.
 */
import { type Family, familyOf } from '../../model/ip.ts';
import { describeIpSet } from '../describe.ts';
import { checkSetName, parseMember } from '../netlink/ipset.ts';
import type { IpSetMember, IpSetRequest, IpSets, IpSetType } from '../ports.ts';
import { type Failures, Refusal } from './refusal.ts';

interface FakeSet {
  readonly type: IpSetType;
  readonly family: Family;
  readonly members: Set<IpSetMember>;
}

export class FakeIpSets implements IpSets {
  readonly sets = new Map<string, FakeSet>();
  readonly #failures: Failures;
  readonly #isReferenced: (name: string) => boolean;

  constructor(failures: Failures, isReferenced: (name: string) => boolean) {
    this.#failures = failures;
    this.#isReferenced = isReferenced;
  }

  batch(requests: readonly IpSetRequest[]): void {
    for (const request of requests) {
      checkSetName(request.name);
      if ('members' in request) request.members.forEach(parseMember);
    }
    this.#failures.runBatch('ipsets', requests, describeIpSet, (request) => this.#carryOut(request));
  }

  async list(namePrefix: string) {
    this.#failures.check('ipsets.list', 'list ipsets');
    return [...this.sets]
      .filter(([name]) => name.startsWith(namePrefix))
      .map(([name, { type, family, members }]) => ({ name, type, family, members: [...members] }));
  }

  #carryOut(request: IpSetRequest): void {
    const set = this.sets.get(request.name);
    if (request.kind === 'create') {
      if (set !== undefined && (set.type !== request.type || set.family !== request.family))
        throw new Refusal('EEXIST');
      if (set === undefined)
        this.sets.set(request.name, { type: request.type, family: request.family, members: new Set() });
      return;
    }
    if (request.kind === 'destroy') {
      if (set !== undefined && this.#isReferenced(request.name)) {
        throw new Refusal('IPSET_ERR_BUSY', 'the set is in use by a rule');
      }
      this.sets.delete(request.name);
      return;
    }
    if (set === undefined) throw new Refusal('ENOENT');
    if (request.kind === 'flush') {
      set.members.clear();
      return;
    }
    for (const member of request.members) {
      checkFits(set, member);
      if (request.kind === 'add') set.members.add(member);
      else set.members.delete(member);
    }
  }
}

function checkFits(set: FakeSet, member: IpSetMember): void {
  const { cidr, iface } = parseMember(member);
  if (familyOf(cidr) !== set.family || (iface !== null) !== (set.type === 'net,iface')) {
    throw new Refusal(
      'IPSET_ERR_PROTOCOL',
      'the message does not fit the set: another address family or kind of member',
    );
  }
}
