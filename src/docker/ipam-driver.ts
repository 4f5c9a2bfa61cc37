/**
 * Docker's IpamDriver protocol (moby, libnetwork/ipams/remote/api): netctl's pools give the addresses of Docker's networks.
 *
 * In: checked JSON. Out: answers in Docker's words. An address that is requested is reserved for a minute; the endpoint that Docker then
 * makes takes it, so that a Docker that dies in between loses none. Never: an address released that an endpoint has by now (Docker names
 * no owner when it gives one back).
 */
import { randomUUID } from 'node:crypto';
import { z } from 'zod';
import type { Ipam } from '../ipam/ipam.ts';
import { invalid, NetctlError } from '../lib/errors.ts';
import { type Address, everything, type Family, hostCidr, parseAddress } from '../model/ip.ts';
import { poolNames } from './options.ts';

/** Docker asks for the address, then at once for the endpoint. */
const reservationSeconds = 60;
const reservationPrefix = 'docker-';
const addressSpace = 'netctl';
/** The container's next hop, which no pool has. */
const gateway4 = '169.254.1.1/32';

const text = z.string().default('');
const options = z.record(z.string(), z.unknown()).nullish();
const requestPool = z.object({ Pool: text, SubPool: text, Options: options, V6: z.boolean().default(false) });
const requestAddress = z.object({ PoolID: z.string(), Address: text, Options: options });
const releaseAddress = z.object({ PoolID: z.string(), Address: text });

export class IpamDriver {
  readonly #ipam: Ipam;
  readonly #node: string;

  constructor(ipam: Ipam, node: string) {
    this.#ipam = ipam;
    this.#node = node;
  }

  /** What of this driver answers to which method. */
  readonly methods: Readonly<Record<string, (body: unknown) => Promise<object> | object>> = {
    GetCapabilities: () => ({ RequiresMACAddress: false, RequiresRequestReplay: false }),
    GetDefaultAddressSpaces: () => ({
      LocalDefaultAddressSpace: addressSpace,
      GlobalDefaultAddressSpace: addressSpace,
    }),
    RequestPool: (body) => this.#requestPool(requestPool.parse(body)),
    // Pools are netctl's: Docker neither makes nor ends them.
    ReleasePool: () => ({}),
    RequestAddress: (body) => this.#requestAddress(requestAddress.parse(body)),
    ReleaseAddress: (body) => this.#releaseAddress(releaseAddress.parse(body)),
  };

  /** The reservation under which Docker was given the address, if it still runs. */
  reservationOf(address: Address): string | null {
    const record = this.#ipam.book.address(address)?.value;
    const id = record?.state === 'reserved' ? record.reservation : null;
    return id?.startsWith(reservationPrefix) ? id : null;
  }

  async unreserve(address: Address): Promise<void> {
    const id = this.reservationOf(address);
    if (id !== null) await this.#ipam.cancel({ id, tenant: null });
  }

  #requestPool({ Pool, SubPool, Options, V6 }: z.infer<typeof requestPool>): object {
    if (SubPool !== '') throw invalid('--ip-range', SubPool, 'nothing: make a pool of netctl of that range');
    const names = poolNames(Options ?? {});
    const family: Family = V6 || Pool.includes(':') ? 6 : 4;
    const pools = this.#ipam.book
      .pools()
      .filter(([, { kind, cidr }]) => kind === 'routed' && cidr.includes(':') === (family === 6));
    for (const name of names)
      if (!pools.some(([known]) => known === name))
        throw new NetctlError(
          'POOL_NOT_FOUND',
          `there is no routed IPv${family} pool ${name}: see \`netctl pool show\``,
        );
    if (Pool === '') {
      // Docker checks everything but this for overlaps with the routes of the host, where every container has one.
      return { PoolID: poolId(family, names), Pool: everything[family], Data: gatewayData(family) };
    }
    const found = pools.find(([, { cidr }]) => cidr === Pool);
    if (found === undefined || (names.length > 0 && !names.includes(found[0])))
      throw new NetctlError(
        'POOL_NOT_FOUND',
        `--subnet ${Pool}: netctl has no such pool: \`netctl pool add ${Pool}\``,
      );
    return { PoolID: poolId(family, [found[0]]), Pool, Data: gatewayData(family) };
  }

  async #requestAddress({ PoolID, Address, Options }: z.infer<typeof requestAddress>): Promise<object> {
    const { family, pools } = parsePoolId(PoolID);
    if (Options?.['RequestAddressType'] === 'com.docker.network.gateway') {
      if (Address !== '')
        throw invalid('--gateway', Address, 'nothing: the next hop of containers is 169.254.1.1');
      return { Address: gateway4, Data: {} };
    }
    const id = `${reservationPrefix}${randomUUID()}`;
    const { addresses } = await this.#ipam.reserve({
      id,
      tenant: 'default',
      app: 'docker',
      instances: [id],
      ipv4: family === 4 ? 1 : 0,
      ipv6: family === 6 ? 1 : 0,
      addresses: Address === '' ? [] : [parseAddress(Address, '--ip')],
      macs: [],
      kind: 'routed',
      pools,
      ranges: [],
      skip: [],
      node: this.#node,
      onRelease: 'delete',
      retainSeconds: null,
      ttlSeconds: reservationSeconds,
      mode: 'all',
    });
    return { Address: hostCidr(addresses[0]!.address), Data: {} };
  }

  async #releaseAddress({ Address }: z.infer<typeof releaseAddress>): Promise<object> {
    if (Address === '' || gateway4.startsWith(Address)) return {};
    await this.unreserve(parseAddress(Address.split('/')[0], 'Address'));
    return {};
  }
}

const poolId = (family: Family, names: readonly string[]): string => `${family}/${names.join(',')}`;

function parsePoolId(id: string): { family: Family; pools: string[] } {
  const [, family, names = ''] = /^([46])\/([\w.,-]*)$/.exec(id) ?? [];
  if (family === undefined) throw invalid('PoolID', id, 'one that this driver has given');
  return { family: family === '4' ? 4 : 6, pools: names.split(',').filter((name) => name !== '') };
}

/** Spares Docker the request for one. */
function gatewayData(family: Family): Record<string, string> {
  return family === 4 ? { 'com.docker.network.gateway': gateway4 } : {};
}
