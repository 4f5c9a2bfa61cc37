/**
 * What this agent says of itself to the other hosts, as long as it lives: version, start, and whether it is healthy.
 *
 * In: its status, looked at every few seconds. Out: `status/<node>/agent`, rewritten when it has changed. Never: a decision from it.
 */
import { type AgentStatus, problemsOf } from '../api/status.ts';
import { statusKey } from '../model/keys.ts';
import type { AgentPresence } from '../model/records.ts';
import type { Json, Presence } from '../store/store.ts';

const lookMilliseconds = 2000;
const mostProblems = 5;

/** Returns what ends it, with the record. */
export function sayPresent(presence: Presence, node: string, status: () => AgentStatus): () => Promise<void> {
  const tell = (): void => presence.tell(statusKey(node, 'agent'), presenceOf(status()) as unknown as Json);
  tell();
  const timer = setInterval(tell, lookMilliseconds);
  return () => {
    clearInterval(timer);
    return presence.close();
  };
}

function presenceOf(status: AgentStatus): AgentPresence {
  const { agent, policy } = status;
  // Whoever reads it has reached the cluster, and numbers that change all the time would be written all the time.
  const problems = problemsOf({ ...status, store: { ...status.store, cluster: null } });
  return {
    version: agent.version,
    startedAt: agent.startedAt,
    problems: problems.slice(0, mostProblems).map((problem) => problem.slice(0, 200)),
    policy: { backend: policy.backend, inSync: policy.inSync },
  };
}
