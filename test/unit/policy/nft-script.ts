/**
 * What an engine has told, as text for `nft -f` and as a transaction: for golden files, and to ask nft whether both say the same.
 */
import { NftTableOutput, nothingToHost } from '../../../src/dataplane/nft-table-output.ts';
import { MAX_PAIRS } from '../../../src/linux/netlink/nftables.ts';
import type { NftData, NftRequest, NftSetSpec } from '../../../src/linux/nftables-port.ts';
import { type Family, families } from '../../../src/model/ip.ts';
import { renderBaseChains, renderNftChain } from '../../../src/policy/render-nftables.ts';
import type { Recorder } from './recorder.ts';

/** What makes both tables from nothing. */
export function nftRequests(told: Recorder): NftRequest[] {
  return families.flatMap((family) => tableRequests(told, family));
}

/** The same for `nft -f`. */
export function nftScript(told: Recorder): string {
  return families.map((family) => tableScript(told, family)).join('');
}

function tableRequests(told: Recorder, family: Family): NftRequest[] {
  const output = new NftTableOutput(family);
  for (const [name, set] of told.sets) {
    if (set.family !== family) continue;
    output.set(name, set);
    for (const member of set.members) output.member(name, member, true);
  }
  for (const [key, chain] of told.chains) if (key.startsWith(`${family} `)) output.chain(chain.name, chain);
  output.settle();
  const requests: NftRequest[] = [];
  output.kernel.requests(requests);
  return requests;
}

function tableScript(told: Recorder, family: Family): string {
  const requests = tableRequests(told, family);
  const texts = textsOf(told, family);
  const lines = [`table ${family === 4 ? 'ip' : 'ip6'} netctl {`];
  for (const request of requests) {
    if (request.kind === 'set-add') {
      const elements = requests.flatMap((each) =>
        each.kind === 'elements-add' && each.set === request.set ? each.elements : [],
      );
      const { set, spec } = request;
      lines.push(`\t${spec.data === null ? 'set' : 'map'} ${set} {`, `\t\ttype ${typeText(spec, family)}`);
      if (spec.prefixes) lines.push('\t\tflags interval');
      else if (spec.key === 'pair' || spec.key === 'index-pair') lines.push(`\t\tsize ${MAX_PAIRS}`);
      const shown = elements.map(([key, data]) => elementText(key, data, spec)).sort();
      if (shown.length > 0) lines.push(`\t\telements = { ${shown.join(', ')} }`);
      lines.push('\t}');
    }
  }
  for (const request of requests) {
    if (request.kind !== 'chain-add') continue;
    const { chain, hook } = request;
    lines.push(`\tchain ${chain} {`);
    if (hook !== null) {
      lines.push(`\t\ttype ${hook.type} hook ${hook.hook} priority ${hook.priority}; policy accept;`);
    }
    const rules = requests.flatMap((each) =>
      each.kind === 'rule-add' && each.chain === chain ? [each.rule] : [],
    );
    for (const [i, { comment }] of rules.entries()) {
      lines.push(`\t\t${texts.get(chain)![i]} comment "${comment}"`);
    }
    lines.push('\t}');
  }
  return `${[...lines, '}'].join('\n')}\n`;
}

function textsOf(told: Recorder, family: Family): Map<string, readonly string[]> {
  const chains = [...told.chains].filter(([key]) => key.startsWith(`${family} `)).map(([, chain]) => chain);
  const base = renderBaseChains(family, (name) => chains.find((chain) => chain.name === name));
  const written = [...chains, nothingToHost];
  return new Map(
    [...base, ...written.map((chain) => renderNftChain(family, chain))].map(({ name, texts }) => [
      name,
      texts,
    ]),
  );
}

function typeText({ key, data }: NftSetSpec, family: Family): string {
  const address = family === 4 ? 'ipv4_addr' : 'ipv6_addr';
  const keyText = {
    address,
    pair: `ifname . ${address}`,
    'index-pair': `iface_index . ${address}`,
    id: 'mark',
    mac: 'ether_addr',
    'mac-pair': `ether_addr . ${address}`,
  }[key];
  return data === null ? keyText : `${keyText} : ${data === 'id' ? 'mark' : 'verdict'}`;
}

function elementText(key: string, data: NftData | null, spec: NftSetSpec): string {
  const [address, name] = key.split(',');
  const pair = { pair: `"${name}" . ${address}`, 'index-pair': `${name} . ${address}` };
  const text = spec.key in pair ? pair[spec.key as keyof typeof pair] : key;
  if (data === null) return text;
  if (typeof data === 'number') return `${text} : ${data}`;
  return `${text} : ${'chain' in data ? `${data.kind} ${data.chain}` : data.kind}`;
}
