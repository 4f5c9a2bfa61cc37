/**
 * The interfaces that macvlans sit on: those of the host as they are, VLANs on them made where they are missing.
 *
 * In: a wire as the network names it (`eth1`, `eth1` with VLAN 100, or `eth1.100`). Out: its link, up. Never: a VLAN taken away that
 * somebody else has made, or that an endpoint needs.
 */
import { NetctlError } from '../lib/errors.ts';
import { KernelError, type LinkInfo, type Routing } from '../linux/ports.ts';
import type { Address } from '../model/ip.ts';
import type { MacvlanRecord } from '../model/macvlan.ts';
import { twoIndexes } from './indexes.ts';

export type Wire = Pick<MacvlanRecord, 'parent' | 'vlan'>;

/** By which VLANs of ours are known again. */
const ownAlias = 'netctl: made for macvlan endpoints';

/** A VLAN of a parent is a link of its own, named as everybody names it. */
export function parentName({ parent, vlan }: Wire): string {
  return vlan === null ? parent : `${parent}.${vlan}`;
}

export class MacvlanParents {
  readonly #host: Routing;

  constructor(host: Routing) {
    this.#host = host;
  }

  /** Null where it is missing. */
  find(wire: Wire): LinkInfo | null {
    return this.#host.link({ name: parentName(wire) });
  }

  /** MTU that its endpoints get: the parent's, unless they ask for a smaller one (0: they do not). @throws LINK */
  mtuOf(wire: Wire, askedBytes: number): number {
    const link = this.find(wire);
    const on = (link === null ? vlanOf(wire)?.on : undefined) ?? parentName(wire);
    const parent = usable(on, link ?? this.#host.link({ name: on }));
    refuseLargeMtu(askedBytes, parent);
    return askedBytes || parent.mtuBytes;
  }

  /** The link, made if it is a VLAN that is missing. @throws LINK naming what is wrong with it */
  ready(wire: Wire): LinkInfo {
    const name = parentName(wire);
    const vlan = vlanOf(wire);
    const link = this.find(wire);
    if (link !== null || vlan === null) return usable(name, link);
    const below = this.#host.link({ name: vlan.on });
    if (below !== null) this.#makeVlan(name, vlan, below);
    return usable(name, this.find(wire));
  }

  /**
   * The wire's answer would not tell: a parent and its macvlans do not hear each other.
   * @throws DUPLICATE_ADDRESS for an address that the host itself has there
   */
  async refuseOwn(wire: Wire, addresses: readonly Address[]): Promise<void> {
    const { name, index, mac } = this.ready(wire);
    const own = (await this.#host.addresses(index)).find(({ address }) => addresses.includes(address));
    if (own === undefined) return;
    const { address } = own;
    throw new NetctlError('DUPLICATE_ADDRESS', `address ${address} is the host’s own on ${name}`, {
      address,
      mac,
    });
  }

  /** Removes VLANs of ours that none of the wires needs. Returns their names. @throws KernelError */
  async tidy(wires: Iterable<Wire>): Promise<string[]> {
    const needed = new Set(Array.from(wires, parentName));
    const idle = (await this.#host.links()).filter(
      ({ name, type, alias }) => type === 'vlan' && alias === ownAlias && !needed.has(name),
    );
    for (const { index } of idle) this.#host.batch([{ kind: 'link-delete', index }]);
    return idle.map(({ name }) => name);
  }

  #makeVlan(name: string, { on, id }: { on: string; id: number }, parent: LinkInfo): void {
    if (name.length > 15)
      throw new NetctlError('LINK', `VLAN ${id} of ${on} would be called ${name}, which is too long`, {
        parent: name,
      });
    const below = usable(on, parent);
    const [index] = twoIndexes();
    try {
      this.#host.batch([
        {
          kind: 'vlan-add',
          parentIndex: below.index,
          id,
          link: { name, index, mtuBytes: below.mtuBytes },
          alias: ownAlias,
        },
        { kind: 'link-set', index, up: true },
      ]);
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
      const why =
        error.errno === 'EOPNOTSUPP'
          ? 'this kernel has no VLANs (module 8021q): load it, or name an interface that is there'
          : error.message;
      throw new NetctlError('LINK', `cannot make VLAN ${id} on ${on}: ${why}`, { parent: name }, error);
    }
  }
}

/** @throws LINK naming what is wrong with it */
function usable(name: string, link: LinkInfo | null): LinkInfo {
  const refuse = (why: string): NetctlError =>
    new NetctlError('LINK', `parent ${name} ${why}`, { parent: name });
  if (link === null) throw refuse('does not exist on this host');
  if (!link.up) throw refuse('is down');
  if (link.masterIndex !== null) throw refuse('is a port of a bridge or bond: take that one as the parent');
  return link;
}

/** `eth1.100`, unless there is an interface of that name, is VLAN 100 on eth1. */
function vlanOf({ parent, vlan }: Wire): { on: string; id: number } | null {
  if (vlan !== null) return { on: parent, id: vlan };
  const [, on, digits] = /^(.+)\.([1-9]\d{0,3})$/.exec(parent) ?? [];
  const id = Number(digits);
  return on === undefined || id > 4094 ? null : { on, id };
}

/** @throws LINK */
export function refuseLargeMtu(mtuBytes: number, parent: LinkInfo): void {
  if (mtuBytes <= parent.mtuBytes) return;
  throw new NetctlError(
    'LINK',
    `MTU ${mtuBytes} is more than the ${parent.mtuBytes} of parent ${parent.name}`,
    {
      parent: parent.name,
      mtuBytes: parent.mtuBytes,
    },
  );
}
