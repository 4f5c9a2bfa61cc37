/** What an engine has told, as input for the programs ipset and iptables-restore: for golden files and for the kernel. */
import type { Family } from '../../../src/model/ip.ts';
import { jumps } from '../../../src/policy/compile.ts';
import { renderChain } from '../../../src/policy/render-iptables.ts';
import type { Recorder } from './recorder.ts';

/** For `ipset restore`. */
export function ipsetScript(output: Recorder): string {
  const lines: string[] = [];
  for (const [name, { type, family, members }] of [...output.sets].sort()) {
    lines.push(`create ${name} hash:${type} family ${family === 4 ? 'inet' : 'inet6'}`);
    for (const member of [...members].sort()) lines.push(`add ${name} ${member}`);
  }
  return `${lines.join('\n')}\n`;
}

/** For `iptables-restore --noflush`. */
export function iptablesScript(output: Recorder, family: Family): string {
  const chains = [...output.chains]
    .filter(([key]) => key.startsWith(`${family} `))
    .map(([, chain]) => renderChain(chain));
  const jumpLines = jumps.map(({ builtin, rule }) => renderChain({ name: builtin, rules: [rule] }).lines[0]!);
  return [
    '*filter',
    ...chains.map(({ name }) => `:${name} - [0:0]`),
    ...jumpLines,
    ...chains.flatMap(({ lines }) => lines),
    'COMMIT\n',
  ].join('\n');
}
