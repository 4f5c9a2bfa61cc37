/**
 * Help, made of the table of commands.
 *
 * In: commands. Out: lines. Never: a command or option that the table does not have.
 */
import type { Command, Option } from './command.ts';
import { globalOptions, shortForms, usageLine } from './dispatch.ts';

/** One command in full, or several as a list. */
export function helpText(commands: readonly Command[]): string[] {
  const [only] = commands;
  if (commands.length === 1 && only !== undefined) {
    const own = Object.entries(only.options ?? {}).filter(([, { hidden }]) => hidden !== true);
    return [
      `Usage: ${usageLine(only)}`,
      '',
      only.help,
      ...section('Options', own),
      ...section('Options of every command', Object.entries(globalOptions)),
    ];
  }
  const visible = commands.filter(({ hidden }) => hidden !== true);
  return [
    'Usage: netctl COMMAND [OPTIONS]',
    '',
    ...visible.flatMap((command) => [`  ${usageLine(command)}`, `      ${command.help}`]),
    ...section('Options of every command', Object.entries(globalOptions)),
    '',
    'Exit codes: 0 done, 1 refused or not found, 2 wrong usage, 3 agent or store out of reach, 4 not healthy (node status).',
  ];
}

function section(title: string, options: readonly (readonly [string, Option])[]): string[] {
  if (options.length === 0) return [];
  const rows = options.map(([name, { type, value, help }]) => {
    const short = name in shortForms ? `-${shortForms[name]}, ` : '';
    return [`  ${short}--${name}${type === 'flag' ? '' : ` ${value ?? 'VALUE'}`}`, help] as const;
  });
  const width = Math.max(...rows.map(([left]) => left.length));
  return ['', `${title}:`, ...rows.map(([left, help]) => `${left.padEnd(width)}   ${help}`)];
}
