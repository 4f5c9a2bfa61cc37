/**
 * Another IPAM plugin that an endpoint has its addresses from.
 *
 * In: JSON of the store. Out: a checked value. Never: a path in the name of the plugin.
 */
import { z } from 'zod';

/** An IPAM plugin, with all that it takes to call it again (CNI specification 1.1.0, section 4). */
export const delegateSchema = z.strictObject({
  type: z.string().regex(/^[^/]{1,255}$/, 'expected a name without a slash'),
  /** CNI_PATH: directories with colons between them. */
  path: z.string().max(4096),
  /** CNI_ARGS. */
  args: z.string().max(65536),
  /** The whole network configuration. */
  config: z.string().max(1 << 20),
});
export type Delegate = z.infer<typeof delegateSchema>;

/** A DHCP client asks on the wire, by the container's interface, and says goodbye there. */
export function needsLink(delegate: Pick<Delegate, 'type'> | null): boolean {
  return delegate?.type === 'dhcp';
}
