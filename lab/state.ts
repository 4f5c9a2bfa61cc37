/**
 * How far the hosts of a lab are, by what their agents say.
 *
 * In: a host. Out: what its agent reports, in a line; whether it has converged. Never: an agent asked through a program of its own:
 * its socket is reached from here.
 */
import type { NodeItem, StatusItem } from '../src/api/schemas.ts';
import { type Client, openClient } from '../src/cli/client.ts';
import type { LabNode } from './node.ts';
import { eventually } from './run.ts';

export interface NodeState {
  readonly healthy: boolean;
  readonly problems: readonly string[];
  /** Nodes that its store knows. */
  readonly nodes: number;
  readonly sessions: { readonly established: number; readonly all: number } | null;
}

/** The API of a host's agent. */
export function apiOf(node: LabNode): Client {
  return openClient(`unix:${node.apiSocket}`, { ca: undefined, cert: undefined, key: undefined });
}

/** @throws when the agent does not answer */
export async function stateOf(node: LabNode): Promise<NodeState> {
  const client = apiOf(node);
  const { healthy, problems, bgp } = await client.send<StatusItem>('GET', '/v1/status');
  const { items } = await client.send<{ items: NodeItem[] }>('GET', '/v1/nodes');
  const established = bgp?.sessions.filter(({ state }) => state === 'Established');
  const sessions = bgp === null ? null : { established: established?.length ?? 0, all: bgp.sessions.length };
  return { healthy, problems, nodes: items.length, sessions };
}

/** Waits until the agent is healthy, knows all nodes and has its sessions. @throws after a minute and a second per node, with its problems */
export async function converged(
  node: LabNode,
  wanted: { readonly nodes: number; readonly sessions: number },
  signal: AbortSignal | undefined,
): Promise<void> {
  let last: NodeState | null = null;
  const check = async () => {
    signal?.throwIfAborted();
    last = await stateOf(node);
    // Healthy is also who knows nobody yet.
    return last.healthy && last.nodes === wanted.nodes && (last.sessions?.all ?? 0) >= wanted.sessions;
  };
  await eventually(`${node.name} has converged`, 60_000 + 1000 * wanted.nodes, check).catch(
    (error: unknown) => {
      const state = last === null ? 'it did not answer' : JSON.stringify(last);
      throw new Error(`${(error as Error).message}: ${state}`);
    },
  );
}
