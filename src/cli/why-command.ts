/**
 * `netctl why SOURCE DESTINATION [tcp:PORT|udp:PORT|icmp]`: allowed or dropped, by which rule, on which host.
 *
 * In: two parties and a protocol. Out: a sentence and the rules on the way. Never: a judgement of its own.
 */
import type { WhyAnswer } from '../api/explain-schemas.ts';
import type { Command, Context } from './command.ts';
import type { Output } from './output.ts';

export const whyCommands: readonly Command[] = [
  {
    words: 'why SOURCE DESTINATION [PROTOCOL]',
    options: { probe: { type: 'flag', help: 'confirm it by a real packet from the source, on its host' } },
    help: 'Say which rule decides: parties are endpoints, nodes, addresses or `host`; PROTOCOL is tcp:PORT, udp:PORT, sctp:PORT or icmp (default).',
    run: why,
  },
];

async function why({ args, api, output }: Context): Promise<void> {
  const protocol = args.optionalText('PROTOCOL') ?? 'icmp';
  const query = new URLSearchParams({
    source: args.text('SOURCE'),
    destination: args.text('DESTINATION'),
    protocol,
    ...(args.flag('probe') ? { probe: 'true' } : {}),
  });
  const answer = await api().send<WhyAnswer>('GET', `/v1/why?${query}`);
  if (!output.forPeople) return output.data(answer);
  const { allowed, source, destination, hosts } = answer;
  const verdict = allowed ? output.paint('green', 'allowed') : output.paint('red', 'dropped');
  output.line(`${partyText(source)} → ${partyText(destination)} ${protocol}: ${verdict}${decidedBy(answer)}`);
  for (const { node, container, verdict, rules } of hosts) {
    output.line('');
    const inside = container === null ? '' : `, in the container of endpoint ${container}`;
    output.line(output.paint('bold', `on ${node}${inside}`));
    for (const { chain, position, text, verdict } of rules)
      output.line(`  ${chain} rule ${position}: ${text} (${verdict})`);
    if (verdict === 'left') output.line("  netctl does not decide here: the host's own rules do");
  }
  if (answer.probe !== null) printProbe(answer.probe, output);
}

function printProbe(
  { reason, verdict, agrees, steps }: NonNullable<WhyAnswer['probe']>,
  output: Output,
): void {
  output.line('');
  output.line(output.paint('bold', 'a real packet'));
  for (const { family, table, chain, at, verdict } of steps)
    output.line(`  ${family} ${table} ${chain} ${at}: ${verdict}`);
  if (reason !== null) output.line(`  not sent: ${reason}`);
  else if (verdict === 'lost') output.line('  no rule has seen it: it went astray before');
  else if (agrees) output.line(`  ${output.paint('green', 'confirmed')}: ${verdict}`);
  else
    output.line(`  ${output.paint('red', 'not confirmed')}: the kernel did ${verdict}; see \`netctl check\``);
}

function partyText({ address, endpoint, node }: WhyAnswer['source']): string {
  const who = [endpoint === null ? null : `endpoint ${endpoint}`, node].filter((part) => part !== null);
  return who.length === 0 ? address : `${address} (${who.join(' on ')})`;
}

/** The rule that a user wrote and that decided last; where none did, what the chain says of itself. */
function decidedBy({ hosts }: WhyAnswer): string {
  const last = hosts.at(-1)?.rules.at(-1);
  if (last === undefined) return '';
  if (last.origin === null) return `: ${last.text} in ${last.chain} on ${hosts.at(-1)?.node}`;
  const { kind, name, direction, position } = last.origin;
  return ` by ${direction} rule ${position} of ${kind} ${name} on ${hosts.at(-1)?.node}`;
}
