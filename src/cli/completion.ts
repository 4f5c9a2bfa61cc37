/**
 * Completion for bash, zsh and fish: a short script for the shell, which asks netctl itself at each TAB.
 *
 * In: the words typed so far. Out: what may come next: words of the table, options, names that the agent knows. Never: an error
 * message in the middle of somebody's command line.
 */
import type { Client } from './client.ts';
import type { Command } from './command.ts';
import { bareName, globalOptions, isLiteral, wordsOf } from './dispatch.ts';
import { formats } from './output.ts';

const BASH = `# netctl completion: source <(netctl completion bash)
_netctl() {
  local IFS=$'\\n'
  COMPREPLY=($(netctl __complete -- "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _netctl netctl
`;

const ZSH = `#compdef netctl
# netctl completion: source <(netctl completion zsh)
_netctl() {
  local -a candidates
  candidates=("\${(@f)$(netctl __complete -- "\${(@)words[2,CURRENT]}" 2>/dev/null)}")
  compadd -a candidates
}
compdef _netctl netctl
`;

const FISH = `# netctl completion: netctl completion fish > ~/.config/fish/completions/netctl.fish
# There it stands before the one that fish has for another program of this name.
function __netctl_complete
  set -l words (commandline -opc)
  set -e words[1]
  set -l current (commandline -ct)
  set -l candidates (netctl __complete -- $words "$current" 2>/dev/null)
  if set -q candidates[1]
    printf '%s\\n' $candidates
  else
    __fish_complete_path "$current"
  end
end
complete -c netctl -f -a '(__netctl_complete)'
`;

const scripts = { bash: BASH, zsh: ZSH, fish: FISH } as const;

export const completionCommands: readonly Command[] = [
  {
    words: 'completion SHELL',
    choices: { SHELL: Object.keys(scripts) },
    help: 'Print the completion script of a shell: source <(netctl completion bash)',
    async run({ args, output }) {
      output.write(scripts[args.text('SHELL') as keyof typeof scripts]);
    },
  },
  {
    words: '__complete [WORD...]',
    hidden: true,
    help: 'What may come next, one a line; for the completion scripts.',
    async run({ args, api, commands, output }) {
      for (const candidate of await candidates(args.list('WORD') ?? [], commands, api))
        output.line(candidate);
    },
  },
];

/** @param typed the words after `netctl`; the last is the one being typed, perhaps empty */
async function candidates(
  typed: readonly string[],
  commands: readonly Command[],
  api: () => Client,
): Promise<string[]> {
  const current = typed.at(-1) ?? '';
  const before = typed.slice(0, -1);
  if (['-o', '--output'].includes(before.at(-1) ?? ''))
    return formats.filter((format) => format.startsWith(current));
  const words = wordsOf(before, commands);
  const fitting = fittingCommands(words, commands);
  const next = current.startsWith('-') ? optionNames(fitting) : await nextWords(words.length, fitting, api);
  return [...new Set(next)].filter((word) => word.startsWith(current)).sort();
}

/** As dispatch reads them: where a literal word fits, it is not a name. */
function fittingCommands(words: readonly string[], commands: readonly Command[]): readonly Command[] {
  let fitting = commands.filter(({ hidden }) => hidden !== true);
  for (const [i, word] of words.entries()) {
    const literal = fitting.filter(({ words: pattern }) => pattern.split(' ')[i] === word);
    fitting =
      literal.length > 0
        ? literal
        : fitting.filter(({ words: pattern }) => takesNameAt(pattern.split(' '), i));
  }
  return fitting;
}

function takesNameAt(tokens: readonly string[], position: number): boolean {
  const token = tokens[position] ?? (tokens.at(-1)?.includes('...') ? 'MORE' : null);
  return token !== null && !isLiteral(token);
}

function optionNames(commands: readonly Command[]): string[] {
  return [globalOptions, ...commands.map(({ options }) => options ?? {})]
    .flatMap((options) => Object.entries(options))
    .filter(([, { hidden }]) => hidden !== true)
    .map(([name]) => `--${name}`);
}

async function nextWords(
  position: number,
  commands: readonly Command[],
  api: () => Client,
): Promise<string[]> {
  const lists = commands.map(({ words, choices }) => {
    const tokens = words.split(' ');
    const token = tokens[position] ?? (tokens.at(-1)?.includes('...') ? (tokens.at(-1) ?? '') : '');
    if (token === '') return [];
    return isLiteral(token)
      ? [token]
      : (choices?.[bareName(token)] ?? namesFor(bareName(token), tokens, api));
  });
  return (await Promise.all(lists)).flat();
}

/** Names that the agent knows, for positionals that are such names; none when it cannot be asked. */
async function namesFor(positional: string, tokens: readonly string[], api: () => Client): Promise<string[]> {
  const isProfile =
    positional === 'NAME' && (tokens[0] === 'profile' || tokens[1] === 'profile') && tokens[1] !== 'add';
  const isPool = positional === 'NAME' && tokens[0] === 'pool';
  const isDocument = positional === 'NAME' && (tokens[0] === 'policy' || tokens[0] === 'address-set');
  const path = isProfile
    ? '/v1/profiles'
    : isPool
      ? '/v1/pools'
      : isDocument
        ? `/v1/documents?kind=${tokens[0]}`
        : positional === 'ENDPOINT'
          ? '/v1/endpoints'
          : null;
  if (path === null) return [];
  try {
    const { items } = await api().send<{ items: { name?: string; id?: string }[] }>('GET', path);
    return items.map(({ name, id }) => name ?? id ?? '');
  } catch {
    return [];
  }
}
