/** What an engine has told, as input for the programs ipset and iptables-restore: for golden files and for the kernel. */
import type { Family } from '../../../src/model/ip.ts';
import { jumps } from '../../../src/policy/compile.ts';
import { ListTree } from '../../../src/policy/list-tree.ts';
import { renderChain } from '../../../src/policy/render-iptables.ts';
import { Recorder } from './recorder.ts';

/** As the iptables back end has it. */
export function withTree(told: Recorder): Recorder {
  const recorder = new Recorder();
  const tree = new ListTree(recorder);
  for (const [name, { members, ...spec }] of told.sets) {
    tree.set(name, spec);
    for (const member of members) tree.member(name, member, true);
  }
  for (const [key, chain] of told.chains) tree.chain(Number(key[0]) as Family, chain.name, chain);
  return recorder;
}

/** For `ipset restore`. */
export function ipsetScript(told: Recorder): string {
  const output = withTree(told);
  const lines: string[] = [];
  for (const [name, { type, family, members }] of [...output.sets].sort()) {
    lines.push(`create ${name} hash:${type} family ${family === 4 ? 'inet' : 'inet6'}`);
    for (const member of [...members].sort()) lines.push(`add ${name} ${member}`);
  }
  return `${lines.join('\n')}\n`;
}

/** For `iptables-restore --noflush`. */
export function iptablesScript(recorder: Recorder, family: Family): string {
  const told = [...withTree(recorder).chains]
    .filter(([key]) => key.startsWith(`${family} `))
    .map(([, chain]) => chain);
  return (['filter', 'nat'] as const)
    .map((table) => ({ table, chains: told.filter((chain) => (chain.table ?? 'filter') === table) }))
    .filter(({ chains }) => chains.length > 0)
    .flatMap(({ table, chains }) => [
      `*${table}`,
      ...chains.map(({ name }) => `:${name} - [0:0]`),
      ...jumps
        .filter((jump) => jump.table === table && chains.some(({ name }) => name === jump.chain))
        .map(({ builtin, rule }) => renderChain({ name: builtin, rules: [rule] }).lines[0]!),
      ...chains.flatMap((chain) => renderChain(chain).lines),
      'COMMIT\n',
    ])
    .join('\n');
}
