/**
 * Docker's NetworkDriver protocol (moby, libnetwork/drivers/remote/api): containers of Docker's networks as endpoints of netctl.
 *
 * In: checked JSON. Out: attachments, in Docker's words. The endpoint, its policy and the host's end of its pair are there when
 * CreateEndpoint answers; Docker then takes the container's end itself. Never: an endpoint whose policy comes after its link, an error
 * on removing what is not there.
 */
import { z } from 'zod';
import { invalid } from '../lib/errors.ts';
import {
  type Attacher,
  type AttachmentId,
  endpointId,
  handedInterfaceName,
  hostInterfaceName,
} from '../model/attachment.ts';
import { type Address, type Family, familyOf, hostCidr, parseAddress } from '../model/ip.ts';
import { parseMac } from '../model/mac.ts';
import type { IpamDriver } from './ipam-driver.ts';
import { type DockerNetworks, parseDockerId } from './networks.ts';
import { checkNetworkOptions, networkName, type Options, wanted } from './options.ts';

export interface NetworkDriverParts {
  readonly attacher: Attacher;
  readonly networks: DockerNetworks;
  readonly ipam: IpamDriver;
  /** The addresses that an endpoint has, or null where there is none. */
  addressesOf(id: AttachmentId): readonly Address[] | null;
}

const text = z.string().default('');
const options = z.record(z.string(), z.unknown()).nullish();
const network = z.object({ NetworkID: z.string(), Options: options });
const endpoint = z.object({ NetworkID: z.string(), EndpointID: z.string() });
const create = endpoint.extend({
  Interface: z.object({ Address: text, AddressIPv6: text, MacAddress: text }).nullish(),
  Options: options,
});

/** This process's own network namespace: the host's. */
const hostNamespace = '/proc/self/ns/net';
const gateways: Readonly<Record<Family, string>> = { 4: '169.254.1.1', 6: 'fe80::ecee:eeff:feee:eeee' };
const connected = 1;

export class NetworkDriver {
  readonly #parts: NetworkDriverParts;

  constructor(parts: NetworkDriverParts) {
    this.#parts = parts;
  }

  /** What of this driver answers to which method. Docker takes "not found" for the rest as "not supported". */
  readonly methods: Readonly<Record<string, (body: unknown) => Promise<object> | object>> = {
    // Docker creates each network on each host by itself; that its addresses are unique everywhere is the pools' doing.
    GetCapabilities: () => ({ Scope: 'local', ConnectivityScope: 'global' }),
    CreateNetwork: (body) => this.#createNetwork(network.parse(body)),
    DeleteNetwork: (body) => {
      this.#parts.networks.delete(network.parse(body).NetworkID);
      return {};
    },
    CreateEndpoint: (body) => this.#createEndpoint(create.parse(body)),
    DeleteEndpoint: async (body) => {
      await this.#parts.attacher.detach(this.#id(endpoint.parse(body)));
      return {};
    },
    EndpointOperInfo: (body) => ({
      Value: { 'netctl.endpoint': endpointId(this.#id(endpoint.parse(body))) },
    }),
    Join: (body) => this.#join(endpoint.parse(body)),
    // The link comes back to the host after this; DeleteEndpoint, which follows, ends it.
    Leave: () => ({}),
  };

  #createNetwork({ NetworkID, Options }: z.infer<typeof network>): object {
    if (Options?.['com.docker.network.internal'] === true)
      throw invalid('--internal', true, 'nothing: a profile says where containers may send');
    const generic = (Options?.['com.docker.network.generic'] ?? {}) as Options;
    checkNetworkOptions(generic);
    networkName(generic, NetworkID);
    this.#parts.networks.add(NetworkID, generic);
    return {};
  }

  async #createEndpoint(request: z.infer<typeof create>): Promise<object> {
    const given = request.Interface;
    const own = request.Options ?? {};
    const addresses = [given?.Address, given?.AddressIPv6]
      .filter((cidr) => cidr !== undefined && cidr !== '')
      .map((cidr) => parseAddress(cidr?.split('/')[0], 'Interface.Address'));
    // A reservation holds what Docker was given just now. One of each family are two, and an endpoint takes no more than one.
    const [first] = addresses;
    if (addresses.length > 1) for (const address of addresses) await this.#parts.ipam.unreserve(address);
    const reservation =
      addresses.length === 1 && first !== undefined ? this.#parts.ipam.reservationOf(first) : null;
    const asked = wanted(this.#parts.networks.options(request.NetworkID), own);
    const attachment = await this.#parts.attacher.attach({
      ...this.#id(request),
      netns: { open: hostNamespace, path: hostNamespace },
      ...asked,
      pools: [],
      addresses: reservation === null ? addresses : [],
      mac: given?.MacAddress ? parseMac(given.MacAddress) : null,
      reservation,
      extraSources: [],
      macvlan: null,
      foreignIpam: null,
      foreignLink: null,
      rateLimits: null,
      attachedBy: 'runtime',
      isHanded: true,
    });
    const added = (field: string, family: Family): Record<string, string> => {
      const address = attachment.addresses.find((candidate) => familyOf(candidate) === family);
      return addresses.length > 0 || address === undefined ? {} : { [field]: hostCidr(address) };
    };
    return {
      Interface: {
        ...(given?.MacAddress ? {} : { MacAddress: attachment.mac }),
        ...added('Address', 4),
        ...added('AddressIPv6', 6),
      },
    };
  }

  #join(request: z.infer<typeof endpoint>): object {
    const id = this.#id(request);
    const addresses = this.#parts.addressesOf(id);
    if (addresses === null) throw invalid('EndpointID', request.EndpointID, 'an endpoint that was created');
    const used = ([4, 6] as const).filter((family) =>
      addresses.some((address) => familyOf(address) === family),
    );
    return {
      InterfaceName: { SrcName: handedInterfaceName(hostInterfaceName(endpointId(id))), DstPrefix: 'eth' },
      ...(used.includes(4) ? { Gateway: gateways[4] } : {}),
      ...(used.includes(6) ? { GatewayIPv6: gateways[6] } : {}),
      StaticRoutes: used.map((family) => ({
        Destination: `${gateways[family]}/${family === 4 ? 32 : 128}`,
        RouteType: connected,
        NextHop: '',
      })),
      DisableGatewayService: true,
    };
  }

  /** Docker knows no interface's name before the container runs, and one endpoint is one interface. */
  #id({ NetworkID, EndpointID }: { NetworkID: string; EndpointID: string }): AttachmentId {
    return {
      network: this.#nameOf(NetworkID),
      containerId: parseDockerId(EndpointID, 'EndpointID'),
      interface: 'eth',
    };
  }

  #nameOf(networkId: string): string {
    return networkName(this.#parts.networks.options(networkId), networkId);
  }
}
