/**
 * `netctl ipam export` and `netctl ipam import`: records as lines, to another cluster or from another system.
 *
 * In: arguments, lines on standard input. Out: lines, or what became of them. Never: a refused line that is not shown.
 */
import type { ImportAnswer } from '../api/import-schemas.ts';
import type { Command } from './command.ts';
import { exitCodes } from './exit.ts';

export const transferCommands: readonly Command[] = [
  {
    words: 'ipam export',
    help: 'Write pools, tenants, profiles, policies, address sets and addresses, a JSON object a line.',
    async run({ api, output }) {
      output.line((await api().text('/v1/export')).trimEnd());
    },
  },
  {
    words: 'ipam import',
    options: {
      tenant: { type: 'text', value: 'TENANT', help: 'of owners that do not name one (default: default)' },
    },
    help: 'Read what export wrote, or lines of address, owner and perhaps MAC; what is there already stays. Exit code 1 when lines were refused.',
    async run({ args, api, output, readStdin }) {
      const lines = await readStdin('netctl ipam import < FILE');
      const tenant = args.optionalText('tenant');
      const query = tenant === undefined ? '' : `?tenant=${encodeURIComponent(tenant)}`;
      const answer = await api().sendText<ImportAnswer>('POST', `/v1/import${query}`, lines);
      const { imported, unchanged, skipped, refused, refusals } = answer;
      const sentence = `imported ${imported}, there already ${unchanged}, skipped ${skipped}, refused ${refused}`;
      await output.changed('import', 'lines', sentence, answer);
      for (const { line, reason } of refusals) output.warn(`line ${line}: ${reason}`);
      return refused === 0 ? exitCodes.done : exitCodes.refused;
    },
  },
];
