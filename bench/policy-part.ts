/** The agent's policy alone: engine and dataplane on the kernel of the caller's namespace, without store, links and API. */
import { IptablesBackend } from '../src/dataplane/iptables-backend.ts';
import { NftBackend } from '../src/dataplane/nft-backend.ts';
import { PolicyDataplane } from '../src/dataplane/policy-dataplane.ts';
import type { Logger } from '../src/lib/logger.ts';
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

/** The dataplane is to be started when the engine has been told. */
export async function startPolicy(name: BackendName) {
  const linux = await createLinux({ iptablesBackend: name === 'iptables-legacy' ? 'legacy' : 'nft' });
  const backend = name === 'nftables' ? new NftBackend(linux) : new IptablesBackend(linux, logger);
  const dataplane = new PolicyDataplane({ backend, other: null }, logger);
  return { linux, backend, dataplane, engine: new PolicyEngine({ endpointToHost: 'drop' }, dataplane) };
}
