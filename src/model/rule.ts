/**
 * One rule of a profile or policy: its value, and its form as JSON (the language of calicoctl v0.4, extended by negation, log,
 * selectors, address sets and comments).
 *
 * In: JSON from a file, the API or the store. Out: a Rule whose every part is checked and canonical, and back. Never: a rule that
 * means something for packets of one family and something wider for the other (see ruleFamily).
 */
import { z } from 'zod';
import { checkJson, exactObject, textOf } from './check.ts';
import { icmpTypeNames, icmpTypeNumber, icmpTypeSchema } from './icmp-type.ts';
import { type Cidr, type Family, familyOf, parseAddressOrCidr } from './ip.ts';
import { parseName } from './names.ts';
import { type PortRange, parsePorts, portJson, portsSchema } from './port-range.ts';
import { carriesPorts, ICMP, ICMPV6, parseProtocol, protocolName, protocolSchema } from './protocol.ts';
import { canonicalSelector } from './selector.ts';

/** `pass` only in policies: the profiles decide. */
export type Action = 'allow' | 'deny' | 'log' | 'pass';
export type Side = 'src' | 'dst';

/** What a packet must be (or, negated, must not be) for the rule to apply. All matches of a rule must hold. */
export type Match =
  | { readonly kind: 'protocol'; readonly protocol: number; readonly negated: boolean }
  | { readonly kind: 'net'; readonly side: Side; readonly net: Cidr; readonly negated: boolean }
  | { readonly kind: 'tag'; readonly side: Side; readonly tag: string; readonly negated: boolean }
  /** Addresses of the endpoints that the selector picks; `selector` in its canonical text. */
  | { readonly kind: 'selector'; readonly side: Side; readonly selector: string; readonly negated: boolean }
  /** Members of the address set with this name. */
  | { readonly kind: 'set'; readonly side: Side; readonly set: string; readonly negated: boolean }
  /** Any of the ranges; negated: none of them. */
  | {
      readonly kind: 'ports';
      readonly side: Side;
      readonly ports: readonly PortRange[];
      readonly negated: boolean;
    }
  /** Negated with a code: not this type with this code. */
  | { readonly kind: 'icmp'; readonly type: number; readonly code: number | null; readonly negated: boolean };

export interface Rule {
  readonly action: Action;
  readonly ipVersion: Family | null;
  readonly comment: string | null;
  /** In the order of ruleJson's keys. */
  readonly matches: readonly Match[];
}

const name = textOf<string>(parseName, 'web');
const selector = textOf<string>(canonicalSelector, 'role == "db"');
const net = textOf<Cidr>(parseAddressOrCidr, '10.0.0.0/8');
const icmpCode = z.int('0 to 255').min(0, '0 to 255').max(255, '0 to 255');
const COMMENT = '1 to 256 printable characters without " \' ` \\, words separated by single spaces';
const comment = z
  .string(COMMENT)
  .max(256, COMMENT)
  .regex(/^[^\p{C}\p{Z}"'`\\]+( [^\p{C}\p{Z}"'`\\]+)*$/u, COMMENT);

/** All keys but `action`; one with null counts as absent. */
const shape = {
  ip_version: z.union([z.literal(4), z.literal(6)], '4 or 6').nullish(),
  protocol: protocolSchema.nullish(),
  '!protocol': protocolSchema.nullish(),
  src_net: net.nullish(),
  '!src_net': net.nullish(),
  src_tag: name.nullish(),
  '!src_tag': name.nullish(),
  src_selector: selector.nullish(),
  '!src_selector': selector.nullish(),
  src_set: name.nullish(),
  '!src_set': name.nullish(),
  src_ports: portsSchema.nullish(),
  '!src_ports': portsSchema.nullish(),
  dst_net: net.nullish(),
  '!dst_net': net.nullish(),
  dst_tag: name.nullish(),
  '!dst_tag': name.nullish(),
  dst_selector: selector.nullish(),
  '!dst_selector': selector.nullish(),
  dst_set: name.nullish(),
  '!dst_set': name.nullish(),
  dst_ports: portsSchema.nullish(),
  '!dst_ports': portsSchema.nullish(),
  icmp_type: icmpTypeSchema.nullish(),
  '!icmp_type': icmpTypeSchema.nullish(),
  icmp_code: icmpCode.nullish(),
  '!icmp_code': icmpCode.nullish(),
  comment: comment.nullish(),
};
type RuleShape = z.infer<z.ZodObject<typeof shape>>;
type Key = keyof RuleShape;

/** A rule in JSON with the checks across its keys; no action is allow. */
function schemaWith<A extends Action>(actions: readonly A[], accepted: string) {
  return exactObject({ action: z.enum(actions, accepted).nullish(), ...shape }).superRefine(
    (rule, context) => {
      if (context.issues.length > 0) return;
      const fault = crossFault(rule as RuleShape);
      if (fault !== null) context.addIssue({ code: 'custom', path: [fault.key], message: fault.accepted });
    },
  );
}

/** A rule of a profile: for API schemas, and inside profileSchema. */
export const ruleSchema = schemaWith(['allow', 'deny', 'log'], '"allow", "deny" or "log"');
/** A rule of a policy. */
export const policyRuleSchema = schemaWith(
  ['allow', 'deny', 'log', 'pass'],
  '"allow", "deny", "log" or "pass"',
);
export type RuleJson<More extends Action = never> = Partial<RuleShape> & {
  action?: 'allow' | 'deny' | 'log' | More | null | undefined;
};

/** @param path where the rule stands, for errors @throws INVALID */
export function ruleFromJson(json: unknown, path = 'rule'): Rule {
  return ruleOf(checkJson(ruleSchema, json, path));
}

/** The value of JSON that ruleSchema or policyRuleSchema has passed. */
export function ruleOf(json: RuleJson<'pass'>): Rule {
  const matches: Match[] = [];
  for (const mark of ['', '!'] as const) {
    const negated = mark === '!';
    const protocol = json[`${mark}protocol`];
    if (protocol != null) matches.push({ kind: 'protocol', protocol: parseProtocol(protocol), negated });
  }
  for (const side of ['src', 'dst'] as const) {
    for (const mark of ['', '!'] as const) {
      const negated = mark === '!';
      const net = json[`${mark}${side}_net`];
      const tag = json[`${mark}${side}_tag`];
      const selector = json[`${mark}${side}_selector`];
      const set = json[`${mark}${side}_set`];
      const ports = json[`${mark}${side}_ports`];
      if (net != null) matches.push({ kind: 'net', side, net, negated });
      if (tag != null) matches.push({ kind: 'tag', side, tag, negated });
      if (selector != null) matches.push({ kind: 'selector', side, selector, negated });
      if (set != null) matches.push({ kind: 'set', side, set, negated });
      if (ports != null) matches.push({ kind: 'ports', side, ports: parsePorts(ports), negated });
    }
  }
  matches.push(...icmpMatches(json));
  return {
    action: json.action ?? 'allow',
    ipVersion: json.ip_version ?? null,
    comment: json.comment ?? null,
    matches,
  };
}

/** The canonical JSON of a rule: only keys that say something. */
export function ruleJson(rule: Rule): RuleJson {
  const json: Record<string, unknown> = { action: rule.action };
  if (rule.ipVersion !== null) json['ip_version'] = rule.ipVersion;
  for (const match of rule.matches) {
    const mark = match.negated ? '!' : '';
    if (match.kind === 'protocol') json[`${mark}protocol`] = protocolName(match.protocol);
    else if (match.kind === 'net') json[`${mark}${match.side}_net`] = match.net;
    else if (match.kind === 'tag') json[`${mark}${match.side}_tag`] = match.tag;
    else if (match.kind === 'selector') json[`${mark}${match.side}_selector`] = match.selector;
    else if (match.kind === 'set') json[`${mark}${match.side}_set`] = match.set;
    else if (match.kind === 'ports') json[`${mark}${match.side}_ports`] = match.ports.map(portJson);
    else {
      json[`${mark}icmp_type`] = match.type;
      if (match.code !== null) json[`${mark}icmp_code`] = match.code;
    }
  }
  if (rule.comment !== null) json['comment'] = rule.comment;
  return json as RuleJson<never>;
}

/**
 * The one family that the rule speaks of, or null for both: by ip_version, by its prefixes (negated ones too), or by icmp and
 * icmpv6. For packets of the other family the rule does not exist.
 */
export function ruleFamily(rule: Rule): Family | null {
  if (rule.ipVersion !== null) return rule.ipVersion;
  for (const match of rule.matches) {
    if (match.kind === 'net') return familyOf(match.net);
    if (match.kind === 'protocol' && !match.negated) {
      if (match.protocol === ICMP) return 4;
      if (match.protocol === ICMPV6) return 6;
    }
  }
  return null;
}

/** `"!icmp_code"` without `"!icmp_type"` excepts a code of the type that the rule asks for. */
function icmpMatches(json: RuleShape): Match[] {
  const matches: Match[] = [];
  const numberOf = (value: number | string): number => icmpTypeNumber(value, icmpFamily(json))!;
  if (json.icmp_type != null) {
    const type = numberOf(json.icmp_type);
    matches.push({ kind: 'icmp', type, code: json.icmp_code ?? null, negated: false });
  }
  const exceptType = json['!icmp_type'] ?? (json['!icmp_code'] != null ? json.icmp_type : null);
  if (exceptType != null) {
    const type = numberOf(exceptType);
    matches.push({ kind: 'icmp', type, code: json['!icmp_code'] ?? null, negated: true });
  }
  return matches;
}

/** Of a rule with an ICMP type, which has one of the two protocols. */
function icmpFamily(rule: RuleShape): Family {
  return rule.protocol != null && parseProtocol(rule.protocol) === ICMPV6 ? 6 : 4;
}

interface Fault {
  readonly key: Key;
  readonly accepted: string;
}

/** What one key says against another. */
function crossFault(rule: RuleShape): Fault | null {
  return protocolFault(rule) ?? icmpCodeFault(rule) ?? familyFault(rule);
}

function protocolFault(rule: RuleShape): Fault | null {
  const protocol = rule.protocol == null ? null : parseProtocol(rule.protocol);
  const ports = firstPresent(rule, ['src_ports', '!src_ports', 'dst_ports', '!dst_ports']);
  if (ports && !carriesPorts(protocol)) {
    return { key: ports, accepted: 'ports only together with "protocol": tcp, udp or sctp' };
  }
  const icmp = firstPresent(rule, ['icmp_type', '!icmp_type', 'icmp_code', '!icmp_code']);
  if (icmp && protocol !== ICMP && protocol !== ICMPV6) {
    return { key: icmp, accepted: `${icmp} only together with "protocol": icmp or icmpv6` };
  }
  return null;
}

function icmpCodeFault(rule: RuleShape): Fault | null {
  if (rule.icmp_code != null && rule.icmp_type == null) {
    return { key: 'icmp_code', accepted: 'icmp_code only together with icmp_type' };
  }
  for (const key of ['icmp_type', '!icmp_type'] as const) {
    const family = icmpFamily(rule);
    if (rule[key] != null && icmpTypeNumber(rule[key], family) === null)
      return { key, accepted: `a number, or one of ${icmpTypeNames(family)}` };
  }
  if (rule['!icmp_code'] != null && rule.icmp_type == null && rule['!icmp_type'] == null) {
    return { key: '!icmp_code', accepted: '"!icmp_code" only together with icmp_type or "!icmp_type"' };
  }
  return null;
}

/** Whatever fixes the family must fix the same one: ip_version, then icmp, then each prefix. */
function familyFault(rule: RuleShape): Fault | null {
  const protocol = rule.protocol == null ? null : parseProtocol(rule.protocol);
  const ofProtocol = protocol === ICMP ? 4 : protocol === ICMPV6 ? 6 : null;
  let fixed: { family: Family; by: string } | null = rule.ip_version
    ? { family: rule.ip_version, by: 'ip_version' }
    : null;
  if (ofProtocol !== null) {
    if (fixed && fixed.family !== ofProtocol) {
      return { key: 'protocol', accepted: `a protocol of IPv${fixed.family}, as ${fixed.by} says` };
    }
    fixed ??= { family: ofProtocol, by: 'protocol' };
  }
  for (const key of ['src_net', '!src_net', 'dst_net', '!dst_net'] as const) {
    const net = rule[key];
    if (net == null) continue;
    if (fixed && fixed.family !== familyOf(net)) {
      return { key, accepted: `a prefix of IPv${fixed.family}, as ${fixed.by} says` };
    }
    fixed ??= { family: familyOf(net), by: key };
  }
  return null;
}

function firstPresent(rule: RuleShape, keys: readonly Key[]): Key | undefined {
  return keys.find((key) => rule[key] != null);
}
