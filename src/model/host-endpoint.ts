/**
 * A host endpoint: policy for an interface of a host itself, for what comes to the host and what it sends (not for what it forwards).
 *
 * In: the JSON of a host endpoint from a file, the API or the store. Out: checked values. Never: an interface of a container, whose
 * policy is its own, or the loopback.
 */
import { z } from 'zod';
import { invalid } from '../lib/errors.ts';
import { hostInterfacePrefix } from './attachment.ts';
import { checkJson, exactObject, textOf } from './check.ts';
import { parseName } from './names.ts';

export interface HostEndpoint {
  /** A name, or `*`: all that no other host endpoint of the node names. */
  readonly interface: string;
  readonly labels: Readonly<Record<string, string>>;
  /** In the order in which they are tried, after the policies that pick the labels. */
  readonly profiles: readonly string[];
  /** Its record cannot be read in full: nothing passes by the interface, whatever policies say. */
  readonly isBroken?: true;
}

export const labelsSchema = z.record(
  z.string().regex(/^[\w./-]{1,253}$/, 'a label of letters, digits, _ . / or -'),
  z.string('a text').max(1024, 'at most 1024 characters'),
  'labels such as {"role": "db"}',
);

/** What users write, without node and name, and the value under `host-endpoints/<node>/<name>` in the store. */
export const hostEndpointSchema = exactObject({
  interface: textOf<string>(parseHostInterface, 'eth0'),
  labels: labelsSchema.nullish(),
  profiles: z
    .array(textOf<string>(parseName, 'web'), 'a list of profiles')
    .max(64, 'at most 64 profiles')
    .nullish(),
});

/** @throws INVALID with the path of the fault */
export function hostEndpointFromJson(json: unknown): HostEndpoint {
  const { interface: name, labels, profiles } = checkJson(hostEndpointSchema, json);
  return { interface: name, labels: labels ?? {}, profiles: [...new Set(profiles ?? [])] };
}

/** What is left of a record that `hostEndpointFromJson` refused; null when its interface cannot be read either. */
export function salvageHostEndpoint(json: unknown): HostEndpoint | null {
  const { interface: name } = (json ?? {}) as Record<string, unknown>;
  try {
    return { interface: parseHostInterface(name, 'interface'), labels: {}, profiles: [], isBroken: true };
  } catch {
    return null;
  }
}

/** Nothing that iptables would read as a pattern (`eth+`). */
function parseHostInterface(text: unknown, field: string): string {
  const isName = typeof text === 'string' && /^[\w.@-]{1,15}$/.test(text);
  if (text !== '*' && (!isName || text === 'lo' || text.startsWith(hostInterfacePrefix))) {
    throw invalid(
      field,
      text,
      '* or the name of an interface of the host, not lo and not one of a container',
    );
  }
  return text as string;
}
