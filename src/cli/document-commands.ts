/**
 * `netctl apply`, `get`, `delete`: records as documents `{kind, name, …}` in files; and `policy show`, `address-set show`.
 *
 * In: YAML or JSON, one or more documents to a file. Out: requests to the API and what they answer. Never: a part of the documents
 * sent because a file of them could not be read; a judgement of a document here.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Applied, Broken, DocumentApply, DocumentItem, Removed } from '../api/schemas.ts';
import { printChange } from './change.ts';
import { type Command, type Context, UsageError } from './command.ts';
import { CliError } from './exit.ts';
import { impactLines } from './impact-lines.ts';
import type { View } from './output.ts';
import { readCounts, ruleLines } from './rule-lines.ts';
import { type Column, joined } from './table.ts';

const KINDS = {
  KIND: ['profile', 'policy', 'address-set', 'host-endpoint', 'pool', 'bgp-peer', 'bgp-filter'],
};

const base: readonly Column<DocumentItem>[] = [
  { header: 'NAME', value: ({ name }) => name },
  { header: 'REVISION', value: ({ revision }) => revision, wide: true, alignRight: true },
];
const rulesOf = (direction: 'inbound' | 'outbound'): Column<DocumentItem> => ({
  header: direction.toUpperCase(),
  // A policy that says nothing about a direction is not one with no rules.
  value: ({ text }) => text?.[direction]?.length ?? '-',
  alignRight: true,
});
const field = (header: string, key: string): Column<DocumentItem> => ({
  header,
  value: ({ document }) => shown(document[key]),
});

const columns: Readonly<Record<string, readonly Column<DocumentItem>[]>> = {
  profile: [...base, field('TAGS', 'tags'), rulesOf('inbound'), rulesOf('outbound')],
  policy: [
    ...base,
    field('ORDER', 'order'),
    rulesOf('inbound'),
    rulesOf('outbound'),
    field('SELECTOR', 'selector'),
  ],
  'address-set': [...base, field('NETS', 'nets')],
  'host-endpoint': [
    ...base,
    field('INTERFACE', 'interface'),
    field('PROFILES', 'profiles'),
    field('LABELS', 'labels'),
  ],
  'bgp-peer': [
    ...base,
    field('ADDRESS', 'address'),
    field('AS', 'asNumber'),
    field('NODE', 'node'),
    field('NODE-SELECTOR', 'nodeSelector'),
    field('PEER-SELECTOR', 'peerSelector'),
  ],
  'bgp-filter': [
    ...base,
    {
      header: 'RULES',
      value: ({ document }) => (document['rules'] as unknown[]).length,
      alignRight: true,
    },
  ],
  pool: [...base, field('CIDR', 'cidr'), field('KIND', 'poolKind'), field('NAT', 'natOutgoing')],
};

export const documentCommands: readonly Command[] = [
  {
    words: 'apply',
    options: {
      file: {
        type: 'list',
        value: 'FILE|DIR|-',
        help: 'YAML or JSON; a directory: all of it; - reads standard input',
      },
      'flush-connections': { type: 'flag', help: 'cut connections that this change denies, on every host' },
      'dry-run': { type: 'flag', help: 'say what would change, and change nothing' },
    },
    help: 'Make the records of the files what the files say, all at once.',
    run: apply,
  },
  {
    words: 'get KIND [NAME]',
    choices: KINDS,
    help: 'Show records; with -o yaml or json in the form that `apply` takes. A host endpoint is called NODE/NAME.',
    run: (context) => show(context, context.args.text('KIND'), context.args.optionalText('NAME')),
  },
  {
    words: 'delete KIND NAME',
    choices: KINDS,
    options: {
      force: { type: 'flag', help: 'also while it is in use: what needs it is then denied' },
      'flush-connections': { type: 'flag', help: 'cut connections that this change denies, on every host' },
    },
    help: 'Delete a record. A host endpoint is called NODE/NAME.',
    async run({ args, api, output }) {
      const kind = args.text('KIND');
      const name = args.text('NAME');
      const query = new URLSearchParams({ kind, name });
      if (args.flag('force')) query.set('force', 'true');
      if (args.flag('flush-connections')) query.set('flushConnections', 'true');
      const changed = await api().send<Removed>('DELETE', `/v1/documents?${query}`);
      await printChange(output, kind, name, `${kind} ${name} deleted`, changed);
    },
  },
  {
    words: 'policy show [NAME]',
    help: 'List the policies in the order in which they are tried, or show the rules of one.',
    async run(context) {
      const name = context.args.optionalText('NAME');
      if (name === undefined || !context.output.forPeople) return show(context, 'policy', name);
      const { items } = await read(context, 'policy', name);
      for (const item of items) await showRules(context, item);
    },
  },
  {
    words: 'address-set show [NAME]',
    help: 'List the address sets, or the members of one.',
    async run(context) {
      const name = context.args.optionalText('NAME');
      if (name === undefined || !context.output.forPeople) return show(context, 'address-set', name);
      const { items } = await read(context, 'address-set', name);
      for (const net of items.flatMap(({ document }) => document['nets'] as string[]))
        context.output.line(net);
    },
  },
];

async function apply(context: Context): Promise<void> {
  const { args, api, output } = context;
  const files = args.list('file');
  if (files === undefined) throw new UsageError('say which files: netctl apply --file FILE (or DIR, or -)');
  const documents = [];
  for (const file of files) documents.push(...(await readDocuments(context, file)));
  if (documents.length === 0) throw new CliError(`${files.join(', ')}: there is no document in it`);
  const dryRun = args.flag('dry-run') === true;
  const body: DocumentApply = {
    documents: documents as DocumentApply['documents'],
    dryRun,
    ...(args.flag('flush-connections') ? { flushConnections: true } : {}),
  };
  const result = await api().send<Applied>('POST', '/v1/documents', body);
  if (output.forPeople) {
    for (const { kind, name, action } of result.items)
      output.line(`${kind} ${name} ${action}${dryRun ? ' (dry run)' : ''}`);
    if (result.impact !== null) for (const line of impactLines(result.impact, output)) output.line(line);
  } else if (output.format === 'name') {
    for (const { kind, name } of result.items) output.line(`${kind}/${name}`);
  } else {
    await output.data(result);
  }
  for (const warning of result.warnings) output.warn(warning);
  if (!result.applied)
    output.warn(
      `stored at revision ${result.revision}, but not yet in force on this host: see \`netctl node status\``,
    );
}

async function readDocuments({ readStdin }: Context, file: string): Promise<unknown[]> {
  if (file === '-') return parseDocuments(await readStdin('netctl apply --file - < FILE'), 'standard input');
  const texts = filesOf(file).map((path) => ({ path, text: readText(path) }));
  const parsed = await Promise.all(texts.map(({ path, text }) => parseDocuments(text, path)));
  return parsed.flat();
}

function filesOf(path: string): string[] {
  try {
    if (!statSync(path).isDirectory()) return [path];
    return readdirSync(path)
      .filter((name) => /\.(ya?ml|json)$/.test(name))
      .sort()
      .map((name) => join(path, name));
  } catch (error) {
    throw unreadable(path, error);
  }
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw unreadable(path, error);
  }
}

function unreadable(path: string, error: unknown): CliError {
  return new CliError(`cannot read ${path}: ${(error as Error).message}`);
}

/** JSON is YAML. A document that is a list counts as its items: that is what `get -o yaml` prints. */
async function parseDocuments(text: string, where: string): Promise<unknown[]> {
  const { parseAllDocuments } = await import('yaml');
  return [parseAllDocuments(text)].flat().flatMap((document) => {
    const [error] = 'errors' in document ? document.errors : [];
    if (error !== undefined) throw new CliError(`${where} is not YAML: ${firstLine(error.message)}`);
    const value: unknown = document.toJS();
    return value === null ? [] : [value].flat();
  });
}

/** What follows it would be the text that it is about. */
function firstLine(message: string): string {
  return message.split('\n')[0]!.replace(/:$/, '');
}

async function show(context: Context, kind: string, name: string | undefined): Promise<void> {
  const { output } = context;
  const { items } = await read(context, kind, name);
  if (output.format === 'json' || output.format === 'yaml') {
    const documents = items.map(({ document }) => document);
    return output.data(name === undefined ? documents : documents[0]);
  }
  const plural = kind === 'policy' ? 'policies' : `${kind}s`;
  const view: View<DocumentItem> = {
    kind,
    plural,
    name: (item) => item.name,
    columns: columns[kind] ?? base,
  };
  await output.list(view, kind === 'policy' ? items.toSorted(byOrder) : items);
}

async function read({ api, output }: Context, kind: string, name: string | undefined) {
  const query = new URLSearchParams({ kind, ...(name === undefined ? {} : { name }) });
  const answer = await api().send<{ items: DocumentItem[]; broken: Broken }>('GET', `/v1/documents?${query}`);
  for (const { key, reason } of answer.broken) output.warn(`${key} in the store is not valid: ${reason}`);
  return answer;
}

async function showRules({ api, output }: Context, { name, document, text }: DocumentItem): Promise<void> {
  const counts = await readCounts(api, 'policy', name);
  output.line(`Policy ${name}, order ${shown(document['order'])}, for ${shown(document['selector'])}`);
  for (const direction of ['inbound', 'outbound'] as const) {
    const rules = text?.[direction];
    if (!rules) continue;
    output.line(output.paint('bold', direction === 'inbound' ? 'Inbound rules:' : 'Outbound rules:'));
    for (const line of ruleLines(rules, counts[direction])) output.line(line);
  }
}

function byOrder(a: DocumentItem, b: DocumentItem): number {
  return Number(a.document['order']) - Number(b.document['order']);
}

function shown(value: unknown): string | null {
  if (Array.isArray(value)) return joined(value.map(String));
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  if (typeof value === 'object' && value !== null)
    return joined(Object.entries(value).map(([key, text]) => `${key}=${text}`));
  return value === undefined || value === null ? null : String(value);
}
