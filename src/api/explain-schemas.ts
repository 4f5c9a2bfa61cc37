/**
 * Schemas of policy explained: who reaches whom, what a change would change, how often rules applied.
 *
 * In: nothing. Out: schemas for src/api and types for src/cli. Never: a check that the model has already.
 */
import { z } from 'zod';
import { exactObject, textOf } from '../model/check.ts';
import { parseName } from '../model/names.ts';
import { address } from '../model/records.ts';

const count = z.int().min(0);

const party = z.object({
  name: z.string().meta({ description: 'Its profiles, or the prefix or address set that it is in' }),
  endpoints: count.meta({ description: 'How many endpoints it stands for; 0: addresses outside' }),
  examples: z.array(z.string()).readonly(),
});
const answer = z.enum(['allowed', 'denied']);
export const impact = z.object({
  changes: z
    .array(
      z.object({
        source: party,
        destination: party,
        families: z.array(z.union([z.literal(4), z.literal(6)])),
        traffic: z.string().meta({ example: 'tcp 22,80' }),
        before: answer,
        after: answer,
      }),
    )
    .readonly(),
  more: count.meta({ description: 'Changes beyond those that are listed' }),
  complete: z.boolean().meta({ description: 'false: there was too much to look at all' }),
});
export type Impact = z.output<typeof impact>;

const whyParty = z.object({ address, node: z.string().nullable(), endpoint: z.string().nullable() });
const ruleOrigin = z.object({ kind: z.string(), name: z.string(), direction: z.string(), position: z.int() });
export const whyAnswer = z.object({
  allowed: z.boolean(),
  source: whyParty,
  destination: whyParty,
  hosts: z.array(
    z.object({
      node: z.string(),
      container: z
        .string()
        .nullable()
        .meta({ description: 'The macvlan endpoint in whose container the rules are; null: on the host' }),
      verdict: z.enum(['accept', 'drop', 'left']).meta({ description: 'left: to the own rules of the host' }),
      rules: z.array(
        z.object({
          chain: z.string(),
          position: z.int(),
          text: z.string(),
          verdict: z.string(),
          origin: ruleOrigin.nullable(),
        }),
      ),
    }),
  ),
  probe: z
    .object({
      reason: z.string().nullable().meta({ description: 'Why no packet was sent' }),
      verdict: z
        .enum(['accept', 'drop', 'lost'])
        .nullable()
        .meta({ description: 'lost: no rule has seen it' }),
      agrees: z.boolean().nullable(),
      steps: z
        .array(
          z.object({
            family: z.enum(['ip', 'ip6', 'inet']),
            table: z.string(),
            chain: z.string(),
            at: z.enum(['rule', 'end', 'policy']),
            verdict: z.string(),
          }),
        )
        .readonly(),
    })
    .nullable(),
});
export type WhyAnswer = z.output<typeof whyAnswer>;
const PARTY = 'an endpoint, a node, an address, or host';
const partyText = z.string(PARTY).min(1, PARTY).max(1024, PARTY);
export const whyQuery = exactObject({
  source: partyText,
  destination: partyText,
  protocol: z.string('icmp, tcp:PORT, udp:PORT or sctp:PORT').default('icmp'),
  probe: z
    .enum(['true', 'false'], 'true or false')
    .optional()
    .meta({ description: 'Confirm the answer by a real packet from the source, where that is on this host' }),
});
const ruleCount = z.object({ packets: count, bytes: count });
/** One for each rule that has been compiled for this host; a rule beyond the end has not applied. */
export const ruleCounts = z.object({ inbound: z.array(ruleCount), outbound: z.array(ruleCount) });
export type RuleCounts = z.output<typeof ruleCounts>;

export const ruleCountsQuery = exactObject({
  kind: z.enum(['profile', 'policy'], 'profile or policy'),
  name: textOf<string>(parseName, 'web'),
});
