/**
 * What a host's network namespace holds, as the usual tools tell it.
 *
 * In: a host. Out: links, addresses, routes, rules and sets as lines, and the differences of two such readings. Never: a
 * counter or a time in what is compared as state (counters are read apart, to prove that a rule was not written anew).
 */
import type { Host } from './host.ts';
import { eventually } from './run.ts';

const readings: readonly (readonly string[])[] = [
  ['ip', '-o', 'link'],
  ['ip', '-o', 'address'],
  ['ip', '-4', 'route', 'show', 'table', 'all'],
  ['ip', '-6', 'route', 'show', 'table', 'all'],
  ['ip', 'rule'],
  ['ip', 'neighbour', 'show', 'nud', 'permanent'],
  ['iptables-save'],
  ['ip6tables-save'],
  ['ipset', 'save'],
  // Only ours: nft cannot read all that iptables-nft writes into its own tables.
  ['sh', '-c', 'for family in ip ip6; do nft -s list table $family netctl 2>/dev/null; done; true'],
];

/** Every line that a reading prints, with the reading's name in front. Interface indexes are part of it. */
export async function readState(host: Host): Promise<string[]> {
  // iptables-save reads in steps: it fails where a set goes between two of them.
  const texts = await Promise.all(
    readings.map((command) =>
      eventually(command.join(' '), 10_000, async () => {
        const { code, stdout } = await host.exec(command);
        return code === 0 && { stdout };
      }),
    ),
  );
  return texts.flatMap(({ stdout }, at) =>
    unwrapped(stdout)
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith('#'))
      // Chains carry a counter, and an address how long it stays.
      .map(
        (line) =>
          `${readings[at]!.join(' ')}: ${line
            .replace(/ \[\d+:\d+\]$/, '')
            .replace(/valid_lft.*/, '')
            .trimEnd()}`,
      )
      .sort(),
  );
}

/** nft breaks lists of elements into lines, and prints them in an order that is not ours. */
function unwrapped(text: string): string {
  return text.replace(/elements = \{([^}]*)\}/g, (_, elements: string) => {
    const each = elements.split(',').map((element) => element.trim());
    return `elements = { ${each.sort().join(', ')} }`;
  });
}

/** Empty when both are equal; else one line per difference, `+` for what is there now only. */
export function difference(before: readonly string[], now: readonly string[]): string {
  const old = new Set(before);
  const current = new Set(now);
  return [
    ...before.filter((line) => !current.has(line)).map((line) => `- ${line}`),
    ...now.filter((line) => !old.has(line)).map((line) => `+ ${line}`),
  ].join('\n');
}

/** Packets that each rule of the filter table, or of our tables in nftables, has seen, by the rule's text; equal rules are told apart by a number. */
export async function rulePackets(host: Host): Promise<Map<string, number>> {
  const packets = new Map<string, number>();
  for (const line of (await host.mustExec(['iptables-save', '-c', '-t', 'filter'])).split('\n')) {
    const found = /^\[(\d+):\d+\] (-A .*)$/.exec(line);
    if (!found) continue;
    let rule = found[2]!;
    for (let copy = 2; packets.has(rule); copy++) rule = `${found[2]} #${copy}`;
    packets.set(rule, Number(found[1]));
  }
  for (const family of ['ip', 'ip6']) {
    const { code, stdout } = await host.exec(['nft', 'list', 'table', family, 'netctl']);
    if (code !== 0) continue;
    let chain = '';
    for (const line of stdout.split('\n')) {
      chain = /^\tchain (\S+)/.exec(line)?.[1] ?? chain;
      const found = /^\t\t(.*)counter packets (\d+) bytes \d+ (.*)$/.exec(line);
      if (found !== null) packets.set(`${family} ${chain}: ${found[1]}${found[3]}`, Number(found[2]));
    }
  }
  return packets;
}
