/**
 * What every command that changes something does with the answer.
 *
 * In: the API's answer to a change. Out: a sentence or the item, and a warning when this host does not enforce it yet. Never:
 * silence about a change that is stored but not in force.
 */
import type { Output } from './output.ts';

export interface Changed<T> {
  readonly revision: number;
  readonly applied: boolean;
  readonly item: T;
}

export async function printChange(
  output: Output,
  kind: string,
  name: string,
  sentence: string,
  changed: Omit<Changed<unknown>, 'item'> & { item?: unknown },
): Promise<void> {
  await output.changed(
    kind,
    name,
    sentence,
    changed.item ?? { kind, name, revision: changed.revision, applied: changed.applied },
  );
  if (changed.applied) return;
  output.warn(
    `${kind} ${name}: stored at revision ${changed.revision}, but not yet in force on this host: see \`netctl node status\``,
  );
}
