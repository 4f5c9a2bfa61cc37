/**
 * docs/config.md, out of the one table of configuration keys.
 *
 * In: the table. Out: the page; run as a program, it writes it. Never: a key that the page lacks (test/unit/docs.test.ts).
 */
import { writeFileSync } from 'node:fs';
import { type Option, options } from '../src/agent/config-options.ts';

export const configDocPath = new URL('../docs/config.md', import.meta.url);

export function configDoc(): string {
  return `# Configuration of netctld

Made by \`node scripts/config-doc.ts\` from \`src/agent/config-options.ts\`. A flag wins over the environment, that over the file
(\`/etc/netctl/netctld.yaml\`, or \`--config\`), that over the default. \`netctl config show\` prints the effective values and where each
came from. An unknown key or a bad value ends the start with one line that names it.

| key in the file | flag | environment | default | what |
|---|---|---|---|---|
${options.map(row).join('\n')}
`;
}

function row({ key, flag, fallback, doc }: Option): string {
  const variable = `NETCTL_${flag.toUpperCase().replaceAll('-', '_')}`;
  const shown = key === 'node.name' ? 'the host name' : `\`${JSON.stringify(fallback)}\``;
  return `| \`${key}\` | \`--${flag}\` | \`${variable}\` | ${shown} | ${doc} |`;
}

if (import.meta.main) writeFileSync(configDocPath, configDoc());
