/**
 * `netctl ipam collect`: frees addresses that leaked on this node.
 *
 * In: arguments. Out: what this agent found, with its evidence, and what became of it. Never: silence about a collection that is held.
 */
import type { CollectAnswer } from '../api/ipam-schemas.ts';
import type { Command } from './command.ts';
import { exitCodes } from './exit.ts';
import type { View } from './output.ts';

const leakView: View<CollectAnswer['items'][number]> = {
  kind: 'leak',
  name: ({ address }) => address,
  columns: [
    { header: 'ADDRESS', value: ({ address }) => address },
    { header: 'NODE', value: ({ node }) => node },
    { header: 'VERDICT', value: ({ verdict }) => verdict },
    { header: 'OUTCOME', value: ({ outcome }) => outcome },
    { header: 'EVIDENCE', value: ({ evidence }) => evidence },
  ],
};

export const collectCommand: Command = {
  words: 'ipam collect',
  options: {
    'dry-run': { type: 'flag', help: 'only look; nothing is freed' },
    confirm: { type: 'flag', help: 'many endpoints are really gone: free what they left all the same' },
  },
  help: 'Free leaked addresses of this node that were seen leaked a grace time ago (the agent does so by itself).',
  async run({ args, api, output }) {
    const { items, held } = await api().send<CollectAnswer>('POST', '/v1/ipam/collect', {
      dryRun: args.flag('dry-run') ?? false,
      confirmed: args.flag('confirm') ?? false,
    });
    await output.list(leakView, items);
    if (held === null) return exitCodes.done;
    output.warn(`nothing is freed: ${held} (\`netctl ipam collect --confirm\`)`);
    return exitCodes.unhealthy;
  },
};
