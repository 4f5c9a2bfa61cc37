/**
 * What a change of policy would change, as a table.
 *
 * In: the API's answer to a dry run. Out: lines. Never: "nothing" where not all was looked at.
 */
import type { Applied } from '../api/schemas.ts';
import type { Output } from './output.ts';
import { type Column, formatTable } from './table.ts';

type Impact = NonNullable<Applied['impact']>;
type Change = Impact['changes'][number];

const columns: readonly Column<Change>[] = [
  { header: 'FROM', value: ({ source }) => partyText(source) },
  { header: 'TO', value: ({ destination }) => partyText(destination) },
  {
    header: 'TRAFFIC',
    value: ({ traffic, families }) =>
      `${traffic}${families.length === 1 && families[0] === 6 ? ' (IPv6)' : ''}`,
  },
  { header: 'NOW', value: ({ before }) => before },
  { header: 'THEN', value: ({ after }) => after },
];

export function impactLines({ changes, more, complete }: Impact, output: Output): string[] {
  const rest = complete ? [] : ['there is more than was looked at'];
  if (changes.length === 0)
    return [complete ? 'no pair of endpoints gets another answer' : '', ...rest].filter(Boolean);
  const table = formatTable(changes, columns, (text) => output.paint('bold', text));
  return ['', ...table, ...(more > 0 ? [`and ${more} more`] : []), ...rest];
}

function partyText({ name, endpoints, examples }: Change['source']): string {
  if (endpoints === 0) return name;
  return endpoints === 1
    ? `${name} (${examples[0]})`
    : `${name} (${endpoints} endpoints: ${examples.join(', ')}${endpoints > examples.length ? ', …' : ''})`;
}
