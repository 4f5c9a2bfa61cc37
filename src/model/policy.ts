/**
 * A policy: rules for all endpoints that a selector picks by their labels, tried before the endpoints' profiles.
 *
 * In: the JSON of a policy (`order`, `selector`, rules) from a file, the API or the store. Out: a Policy, and back. Never: a policy
 * with one rule left out because it was not understood: it becomes one that denies.
 */
import { z } from 'zod';
import { checkJson, exactObject, textOf } from './check.ts';
import { policyRuleSchema, type Rule, type RuleJson, ruleJson, ruleOf } from './rule.ts';
import { canonicalSelector, parseSelector, type Selector, selectorText } from './selector.ts';

export interface Policy {
  /** Lower is tried first; equal ones by name. */
  readonly order: number;
  readonly selector: Selector;
  /**
   * null: says nothing about this direction. Otherwise what no rule of any policy decides is dropped, an empty list drops all;
   * `pass` goes on with the profiles.
   */
  readonly inbound: readonly Rule[] | null;
  readonly outbound: readonly Rule[] | null;
}

/** A policy of the store that cannot be read in full, but whom it applies to can: it denies them, in its place. */
export interface BrokenPolicy {
  readonly order: number;
  readonly selector: Selector;
  readonly broken: string;
}

export const defaultOrder = 1000;

const ORDER = 'a number from 0 to 1000000';
const order = z.number(ORDER).min(0, ORDER).max(1_000_000, ORDER);
export const selectorSchema = textOf<string>(canonicalSelector, 'role == "db" && has(zone)');
const rules = z.array(policyRuleSchema, 'a list of rules');

/** What users write, without the name, and the value under `policies/<name>` in the store. */
export const policySchema = exactObject({
  order: order.nullish(),
  selector: selectorSchema,
  inbound_rules: rules.nullish(),
  outbound_rules: rules.nullish(),
}).superRefine((policy, context) => {
  if (policy.inbound_rules || policy.outbound_rules) return;
  context.addIssue({
    code: 'custom',
    path: ['inbound_rules'],
    message: 'inbound_rules, outbound_rules or both',
  });
});
export type PolicyRecord = {
  order: number;
  selector: string;
  inbound_rules?: RuleJson<'pass'>[];
  outbound_rules?: RuleJson<'pass'>[];
};

/** @throws INVALID with the path of the fault */
export function policyFromJson(json: unknown): Policy {
  const checked = checkJson(policySchema, json);
  return {
    order: checked.order ?? defaultOrder,
    selector: parseSelector(checked.selector),
    inbound: checked.inbound_rules?.map(ruleOf) ?? null,
    outbound: checked.outbound_rules?.map(ruleOf) ?? null,
  };
}

export function policyRecord({ order, selector, inbound, outbound }: Policy): PolicyRecord {
  return {
    order,
    selector: selectorText(selector),
    ...(inbound === null ? {} : { inbound_rules: inbound.map(ruleJson) }),
    ...(outbound === null ? {} : { outbound_rules: outbound.map(ruleJson) }),
  };
}

/**
 * What is left of a record that `policyFromJson` refused.
 * @param reason why it did
 * @returns null when its selector cannot be read either: then nobody can be said to be meant
 */
export function salvagePolicy(json: unknown, reason: string): BrokenPolicy | null {
  const { order: orderJson, selector } = (json ?? {}) as Record<string, unknown>;
  try {
    const parsed = parseSelector(selector);
    const checked = order.safeParse(orderJson);
    return { order: checked.success ? checked.data : defaultOrder, selector: parsed, broken: reason };
  } catch {
    return null;
  }
}
