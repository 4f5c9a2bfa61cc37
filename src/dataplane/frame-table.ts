/**
 * Rules for frames in a table of the link layer.
 *
 * In: chains of src/macvlan/frame-rules.ts, devices. Out: chains for an NftReconciler. Never: a device's name in a chain's or table's that
 * the kernel would not take.
 */
import type { Nftables, NftHook, NftPlace } from '../linux/nftables-port.ts';
import { KernelError } from '../linux/ports.ts';
import type { FrameChain } from '../macvlan/frame-rules.ts';
import { withHashes } from '../policy/render-nftables.ts';
import type { NftReconciler } from './nft-reconciler.ts';

/** @param hook null for a chain that others lead to */
export function tellFrames(kernel: NftReconciler, { name, rules }: FrameChain, hook: NftHook | null): void {
  const bodies = rules.map(({ expressions, text }) => ({
    expressions,
    text: JSON.stringify(expressions),
    comment: text,
  }));
  kernel.chain(name, withHashes(name, hook, bodies));
}

/** Where frames come in or go out by the device. */
export function frameHook(hook: 'ingress' | 'egress', device: string): NftHook {
  return { type: 'filter', hook, device, priority: 0 };
}

/** The interface's name, or what stands for one with characters that names in nftables do not have. */
export function nameFor(device: string): string {
  return /^[\w.-]+$/.test(device) ? device : `x${Buffer.from(device).toString('hex')}`;
}

/** Whether the kernel lets frames be judged that leave (5.16 does): a table is made and removed in one transaction. */
export function hasEgress(nftables: Nftables): boolean {
  const place: NftPlace = { family: 4, table: 'netctl-trial', layer: 'link' };
  const hook = frameHook('egress', 'lo');
  try {
    nftables.transact([
      { ...place, kind: 'table-add' },
      { ...place, kind: 'chain-add', chain: 'egress', hook },
      { ...place, kind: 'table-delete' },
    ]);
    return true;
  } catch (error) {
    if (error instanceof KernelError) return false;
    throw error;
  }
}
