/** The agent's policy alone: engine and dataplane on the kernel of the caller's namespace, without store, links and API. */
import { IptablesBackend } from '../src/dataplane/iptables-backend.ts';
import { NftBackend } from '../src/dataplane/nft-backend.ts';
import { PolicyDataplane } from '../src/dataplane/policy-dataplane.ts';
import type { Logger } from '../src/lib/logger.ts';
import type { Nftables, NftRequest } from '../src/linux/nftables-port.ts';
import { createLinux } from '../src/linux/real/linux.ts';
import { PolicyEngine } from '../src/policy/engine.ts';

export type BackendName = 'nftables' | 'iptables-nft' | 'iptables-legacy';

/** Tells complaints only. */
export const logger: Logger = {
  debug() {},
  info() {},
  warn: (fields, text) => console.error(text, fields),
  error: (fields, text) => console.error(text, fields),
};

/** The dataplane is to be started when the engine has been told. @param onTransaction hears of each of nftables, before it is written */
export async function startPolicy(
  name: BackendName,
  onTransaction: (requests: readonly NftRequest[]) => void = () => {},
) {
  const linux = await createLinux({ iptablesBackend: name === 'iptables-legacy' ? 'legacy' : 'nft' });
  const nftables: Nftables = {
    ...linux.nftables,
    transact(requests) {
      onTransaction(requests);
      linux.nftables.transact(requests);
    },
  };
  const { families } = linux;
  const backend =
    name === 'nftables' ? new NftBackend({ families, nftables }) : new IptablesBackend(linux, logger);
  const dataplane = new PolicyDataplane({ backend, other: null }, logger);
  return { linux, backend, dataplane, engine: new PolicyEngine({ endpointToHost: 'drop' }, dataplane) };
}
