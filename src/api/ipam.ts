/**
 * Address management over HTTP, reading only: how full the pools are, which node has which block, who has an address.
 *
 * In: pool, block and address records. Out: `/v1/ipam/usage`, `/v1/ipam/blocks`, `/v1/ipam/addresses[/ADDRESS]`. Never: a
 * pool enumerated (sizes are computed; only what is allocated has records).
 */
import type { FastifyInstance } from 'fastify';
import { NetctlError } from '../lib/errors.ts';
import { type Address, type Cidr, cidrContains, cidrSize } from '../model/ip.ts';
import { addressKey } from '../model/keys.ts';
import { type AddressRecord, addressSchema, blockSchema, poolSchema } from '../model/records.ts';
import { type Caller, sees } from './caller.ts';
import type { ApiDeps } from './deps.ts';
import { byAddress, byName, setRevision, typed } from './http.ts';
import { addressItem, addressList, addressParams, blockList, nodeQuery, usageList } from './schemas.ts';
import { parserOf, readAll, readOne } from './store-access.ts';

const parseAddressRecord = parserOf(addressSchema);
const parseBlock = parserOf(blockSchema);

export function ipamRoutes(instance: FastifyInstance, { store }: ApiDeps): void {
  const api = typed(instance);

  api.get('/v1/ipam/usage', { schema: { response: { 200: usageList } } }, async () => {
    const { revision, found: pools } = await readAll(store, 'pool', parserOf(poolSchema));
    const { found: addresses } = await readAll(store, 'address', parseAddressRecord);
    const { found: blocks } = await readAll(store, 'block', parseBlock);
    const items = pools.map(({ key: { pool }, value: { cidr } }) => {
      const mine = addresses.filter(({ value }) => value.pool === pool);
      const claims = blocks.filter(({ value }) => value.pool === pool);
      return {
        pool,
        cidr,
        size: String(cidrSize(cidr)),
        used: mine.length,
        cooldown: mine.filter(({ value }) => value.state === 'cooldown').length,
        blocks: claims.length,
        nodes: new Set(claims.map(({ value }) => value.node)).size,
      };
    });
    return { revision, items: items.sort((a, b) => byName(a.pool, b.pool)) };
  });

  api.get(
    '/v1/ipam/blocks',
    { schema: { querystring: nodeQuery, response: { 200: blockList } } },
    async (request) => {
      const { node } = request.query;
      const { found: addresses } = await readAll(store, 'address', parseAddressRecord);
      const { revision, found } = await readAll(store, 'block', parseBlock);
      const items = found
        .filter(({ value }) => node === undefined || value.node === node)
        .map(({ key: { cidr }, value, revision }) => {
          const used = addresses.filter(({ key }) =>
            cidrContains(cidr as Cidr, key.address as Address),
          ).length;
          return { cidr, ...value, size: String(cidrSize(cidr)), used, revision };
        });
      return { revision, items: items.sort((a, b) => byAddress(a.cidr, b.cidr)) };
    },
  );

  api.get(
    '/v1/ipam/addresses',
    { schema: { querystring: nodeQuery, response: { 200: addressList } } },
    async (request) => {
      const { node } = request.query;
      const { revision, found } = await readAll(store, 'address', parseAddressRecord);
      const items = found
        .filter(({ value }) => node === undefined || value.node === node)
        .map(({ key: { address }, value, revision }) => ({ address, ...value, revision }));
      return { revision, items: items.sort((a, b) => byAddress(a.address, b.address)) };
    },
  );

  const config = { audience: 'tenant' } as const;
  const oneSchema = { params: addressParams, response: { 200: addressItem } };
  api.get('/v1/ipam/addresses/:address', { config, schema: oneSchema }, async (request, reply) => {
    const { address } = request.params;
    const found = await readOne(store, addressKey(address), parseAddressRecord);
    if (found === null || !showsTo(request.caller, found.value)) {
      throw new NetctlError('NOT_FOUND', `address ${address} is not allocated: see \`netctl ipam show\``, {
        address,
      });
    }
    setRevision(reply, found.revision);
    return { address, ...found.value, revision: found.revision };
  });
}

/** A cooling address is nobody's, whoever had it last. */
function showsTo(caller: Caller, { owner, state }: AddressRecord): boolean {
  return caller.operator || (sees(caller, owner.tenant) && state !== 'cooldown');
}
