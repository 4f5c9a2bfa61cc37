/**
 * `netctl profile …`: profiles, their tags and their rules, in the words of calicoctl v0.4.
 *
 * In: arguments, standard input for `rule update`. Out: requests to the API and what they answer. Never: a judgement of a rule
 * here: the agent parses rules, so that there is one parser.
 */
import type { EndpointItem, ProfileItem, Removed, RuleAdd } from '../api/schemas.ts';
import { type Changed, printChange } from './change.ts';
import { segment } from './client.ts';
import { type Command, type Context, UsageError } from './command.ts';
import { CliError } from './exit.ts';
import type { View } from './output.ts';
import { readCounts, ruleLines } from './rule-lines.ts';
import { type Column, formatTable, joined } from './table.ts';

const DIRECTION = { DIRECTION: ['inbound', 'outbound'] };

/** Of commands that may deny what was allowed. */
const FLUSH = {
  'flush-connections': { type: 'flag', help: 'cut connections that this change denies, on every host' },
} as const;

function flushQuery({ args }: Pick<Context, 'args'>, more: Record<string, string> = {}): string {
  const query = new URLSearchParams({
    ...more,
    ...(args.flag('flush-connections') ? { flushConnections: 'true' } : {}),
  }).toString();
  return query === '' ? '' : `?${query}`;
}

const profileView: View<ProfileItem> = {
  kind: 'profile',
  name: ({ name }) => name,
  columns: [
    { header: 'NAME', value: ({ name }) => name },
    { header: 'TAGS', value: ({ tags }) => joined(tags) },
    { header: 'INBOUND', value: ({ inbound_rules }) => inbound_rules.length, alignRight: true },
    { header: 'OUTBOUND', value: ({ outbound_rules }) => outbound_rules.length, alignRight: true },
    { header: 'REVISION', value: ({ revision }) => revision, wide: true, alignRight: true },
  ],
};

interface DetailedRow {
  readonly name: string;
  readonly tags: string;
  readonly endpoint: Pick<EndpointItem, 'id' | 'node' | 'containerId' | 'addresses'> | null;
}

const detailedColumns: readonly Column<DetailedRow>[] = [
  { header: 'NAME', value: ({ name }) => name },
  { header: 'TAGS', value: ({ tags }) => tags },
  { header: 'NODE', value: ({ endpoint }) => endpoint?.node ?? null },
  { header: 'ENDPOINT', value: ({ endpoint }) => endpoint?.id ?? null },
  { header: 'CONTAINER', value: ({ endpoint }) => endpoint?.containerId ?? null },
  { header: 'ADDRESSES', value: ({ endpoint }) => joined(endpoint?.addresses ?? []) },
];

export const profileCommands: readonly Command[] = [
  {
    words: 'profile add NAME',
    help: 'Make a profile: one tag (its name), inbound allowed from that tag, outbound anything.',
    async run({ args, api, output }) {
      const changed = await api().send<Changed<ProfileItem>>('POST', '/v1/profiles', {
        name: args.text('NAME'),
      });
      await printChange(output, 'profile', changed.item.name, `profile ${changed.item.name} added`, changed);
    },
  },
  {
    words: 'profile remove NAME',
    options: {
      force: {
        type: 'flag',
        help: 'also while endpoints use it: what only this profile allows them is then denied',
      },
    },
    help: 'Remove a profile.',
    async run({ args, api, output }) {
      const name = args.text('NAME');
      const path = `/v1/profiles/${segment(name)}${args.flag('force') ? '?force=true' : ''}`;
      const changed = await api().send<Removed>('DELETE', path);
      await printChange(output, 'profile', name, `profile ${name} removed`, changed);
    },
  },
  {
    words: 'profile show',
    options: { detailed: { type: 'flag', help: 'with the endpoints that use each' } },
    help: 'List the profiles.',
    async run({ args, api, output }) {
      const { items } = await api().send<{ items: ProfileItem[] }>('GET', '/v1/profiles');
      if (args.flag('detailed')) await showDetailed(items, { api, output });
      else await output.list(profileView, items);
    },
  },
  {
    words: 'profile NAME tag show',
    help: 'List the tags of a profile.',
    async run({ args, api, output }) {
      const { tags } = await readProfile(api, args.text('NAME'));
      await output.list(
        { kind: 'tag', name: (tag: string) => tag, columns: [{ header: 'TAG', value: (tag) => tag }] },
        tags,
      );
    },
  },
  {
    words: 'profile NAME tag add TAG',
    help: 'Give the tag to all endpoints of the profile.',
    run: (context) => changeTag(context, 'PUT', 'carries'),
  },
  {
    words: 'profile NAME tag remove TAG',
    help: 'Take the tag from the profile.',
    run: (context) => changeTag(context, 'DELETE', 'no longer carries'),
  },
  {
    words: 'profile NAME rule show',
    help: 'Show the rules, numbered per direction, and how often each applied on this host.',
    async run({ args, api, output }) {
      const profile = await readProfile(api, args.text('NAME'));
      if (!output.forPeople) return output.data(languageOf(profile));
      const counts = await readCounts(api, 'profile', profile.name);
      output.line(output.paint('bold', 'Inbound rules:'));
      for (const line of ruleLines(profile.text.inbound, counts.inbound)) output.line(line);
      output.line(output.paint('bold', 'Outbound rules:'));
      for (const line of ruleLines(profile.text.outbound, counts.outbound)) output.line(line);
    },
  },
  {
    words: 'profile NAME rule json',
    help: 'Print the rules as JSON, as `rule update` reads them.',
    async run({ args, api, output }) {
      const rules = languageOf(await readProfile(api, args.text('NAME')));
      if (output.format === 'yaml') return output.data(rules);
      output.line(JSON.stringify(rules, null, 2));
    },
  },
  {
    words: 'profile NAME rule update',
    options: FLUSH,
    help: 'Replace all rules by the JSON on standard input: netctl profile NAME rule update < FILE',
    async run({ args, api, output, readStdin }) {
      const name = args.text('NAME');
      const text = await readStdin(`redirect a file: netctl profile ${name} rule update < FILE`);
      const changed = await api().send<Changed<ProfileItem>>(
        'PUT',
        `${profilePath(name)}/rules${flushQuery({ args })}`,
        parseJson(text),
      );
      const { inbound_rules, outbound_rules } = changed.item;
      const counts = `${inbound_rules.length} inbound, ${outbound_rules.length} outbound`;
      await printChange(output, 'profile', name, `profile ${name}: rules updated (${counts})`, changed);
    },
  },
  {
    words: 'profile NAME rule add DIRECTION RULE...',
    choices: DIRECTION,
    options: {
      at: { type: 'number', value: 'N', help: 'position that it is to have, from 1 (default: at the end)' },
      ...FLUSH,
    },
    help: 'Add a rule: (allow|deny|log) [PROTOCOL] [from [ports P] [tag T] [cidr C]] [to [ports P] [tag T] [cidr C]] [type N [code N]]',
    async run({ args, api, output }) {
      const name = args.text('NAME');
      const direction = args.text('DIRECTION') as RuleAdd['direction'];
      const body: RuleAdd = { direction, at: args.number('at'), text: ruleWords(args.list('RULE')) };
      const changed = await api().send<Changed<ProfileItem>>(
        'POST',
        `${profilePath(name)}/rules${flushQuery({ args })}`,
        body,
      );
      await printChange(output, 'profile', name, rulesNow(changed.item, direction), changed);
    },
  },
  {
    words: 'profile NAME rule remove DIRECTION [RULE...]',
    choices: DIRECTION,
    options: {
      at: { type: 'number', value: 'N', help: 'position of the rule, as `rule show` numbers them' },
      ...FLUSH,
    },
    help: 'Remove a rule, named by its position or by its words.',
    async run({ args, api, output }) {
      const name = args.text('NAME');
      const direction = args.text('DIRECTION') as RuleAdd['direction'];
      const at = args.number('at');
      const words = ruleWords(args.list('RULE'));
      if ((at === undefined) === (words === ''))
        throw new UsageError('name the rule by --at N or by its words, one of the two');
      const rule: Record<string, string> = at === undefined ? { text: words } : { at: String(at) };
      const path = `${profilePath(name)}/rules/${direction}${flushQuery({ args }, rule)}`;
      const changed = await api().send<Changed<ProfileItem>>('DELETE', path);
      await printChange(output, 'profile', name, rulesNow(changed.item, direction), changed);
    },
  },
];

async function changeTag(
  { args, api, output }: Context,
  method: 'PUT' | 'DELETE',
  verb: string,
): Promise<void> {
  const name = args.text('NAME');
  const tag = args.text('TAG');
  const changed = await api().send<Changed<ProfileItem>>(method, `${profilePath(name)}/tags/${segment(tag)}`);
  await printChange(output, 'profile', name, `profile ${name} ${verb} tag ${tag}`, changed);
}

async function showDetailed(
  profiles: readonly ProfileItem[],
  { api, output }: Pick<Context, 'api' | 'output'>,
): Promise<void> {
  const { items: endpoints } = await api().send<{ items: EndpointItem[] }>('GET', '/v1/endpoints');
  const detailed = profiles.map((profile) => ({
    ...profile,
    endpoints: endpoints
      .filter(({ profiles: used }) => used.includes(profile.name))
      .map(({ id, node, containerId, addresses }) => ({ id, node, containerId, addresses })),
  }));
  if (!output.forPeople) return output.list(profileView, detailed);
  const rows = detailed.flatMap(({ name, tags, endpoints }): DetailedRow[] =>
    (endpoints.length === 0 ? [null] : endpoints).map((endpoint) => ({ name, tags: joined(tags), endpoint })),
  );
  if (rows.length === 0) return output.note('no profiles');
  for (const line of formatTable(rows, detailedColumns, (text) => output.paint('bold', text)))
    output.line(line);
}

function readProfile(api: Context['api'], name: string): Promise<ProfileItem> {
  return api().send<ProfileItem>('GET', profilePath(name));
}

function profilePath(name: string): string {
  return `/v1/profiles/${segment(name)}`;
}

/** The language of INTERFACES.md: what `rule update` takes. */
function languageOf({ name, inbound_rules, outbound_rules }: ProfileItem) {
  return { id: name, inbound_rules, outbound_rules };
}

function rulesNow({ name, text }: ProfileItem, direction: RuleAdd['direction']): string {
  const count = text[direction].length;
  return `profile ${name} has ${count} ${direction} ${count === 1 ? 'rule' : 'rules'} now`;
}

function ruleWords(words: readonly string[] | undefined): string {
  return (words ?? []).join(' ');
}

function parseJson(text: string): unknown {
  if (text.trim() === '')
    throw new CliError('standard input is empty: expected a profile as JSON, as `rule json` prints it');
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new CliError(`standard input is not JSON: ${(error as Error).message}`);
  }
}
