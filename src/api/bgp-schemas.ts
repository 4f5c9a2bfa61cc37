/**
 * The schema of the state of BGP on a host.
 *
 * In: nothing. Out: a zod schema and its types, as in schemas.ts. Never: a word of a session that only BIRD understands.
 */
import { z } from 'zod';

const routes = z.object({ in: z.int().min(0), out: z.int().min(0) });

export const bgpSessionItem = z.object({
  peer: z.string().meta({ description: 'Address of the peer' }),
  port: z.int(),
  name: z.string().meta({ description: 'The node at the other end, or the record of the peer' }),
  type: z.enum(['mesh', 'node', 'selector', 'global']),
  asNumber: z.int(),
  family: z.union([z.literal(4), z.literal(6)]).meta({ description: 'Of the session' }),
  state: z
    .string()
    .meta({ description: 'As BIRD says it: Established, Active, …; Missing where BIRD has no such session' }),
  since: z.string().nullable(),
  routes: z.object({ ipv4: routes.nullable(), ipv6: routes.nullable() }),
  bfd: z.enum(['up', 'down']).nullable().meta({ description: 'null where the session has none' }),
  lastError: z.string().nullable(),
});
export type BgpSessionItem = z.output<typeof bgpSessionItem>;

/** `bgp` of `GET /v1/status`; null in an agent without BGP. */
export const bgpStatus = z.object({
  bird: z
    .object({
      version: z.string(),
      pid: z.int().nullable(),
      startedAt: z.string(),
      configuredAt: z.string(),
      recovering: z
        .boolean()
        .meta({ description: 'After a restart, until the peers have sent what they had' }),
    })
    .nullable()
    .meta({ description: 'null while it does not run' }),
  error: z
    .string()
    .nullable()
    .meta({ description: 'Why it does not run or does not take its configuration' }),
  inSync: z.boolean().meta({ description: 'The running sessions are the configured ones' }),
  differences: z.array(z.string()).meta({ description: 'Where they are not, a sentence each' }),
  problems: z.array(z.string()).meta({ description: 'Records that cannot be carried out, a sentence each' }),
  announced: z.object({ ipv4: z.int().min(0), ipv6: z.int().min(0) }),
  sessions: z.array(bgpSessionItem),
});
export type BgpStatus = z.output<typeof bgpStatus>;
