/**
 * The table of netctl's commands, in the order in which help shows them.
 *
 * In: the tables of each area. Out: one list. Never: two commands of the same words.
 */
import { agentCommands } from './agent-commands.ts';
import { attachCommands } from './attach-commands.ts';
import { bgpCommands } from './bgp-commands.ts';
import type { Command } from './command.ts';
import { completionCommands } from './completion.ts';
import { diagsCommands } from './diags-command.ts';
import { documentCommands } from './document-commands.ts';
import { endpointCommands } from './endpoint-commands.ts';
import { ipamCommands } from './ipam-commands.ts';
import { labCommands } from './lab-commands.ts';
import { nodeCommands } from './node-commands.ts';
import { poolCommands } from './pool-commands.ts';
import { portCommands } from './port-commands.ts';
import { profileCommands } from './profile-commands.ts';
import { tenantCommands } from './tenant-commands.ts';
import { topCommands } from './top-command.ts';
import { transferCommands } from './transfer-commands.ts';
import { whyCommands } from './why-command.ts';

export const commands: readonly Command[] = [
  ...profileCommands,
  ...poolCommands,
  ...ipamCommands,
  ...portCommands,
  ...transferCommands,
  ...tenantCommands,
  ...endpointCommands,
  ...attachCommands,
  ...topCommands,
  ...documentCommands,
  ...whyCommands,
  ...agentCommands,
  ...diagsCommands,
  ...nodeCommands,
  ...bgpCommands,
  ...labCommands,
  ...completionCommands,
];
