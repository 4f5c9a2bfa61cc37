/**
 * Checks JSON from outside against a schema and turns the first fault into the one error form of the project.
 *
 * In: a zod schema whose messages say what is accepted, a JSON value. Out: the checked value. Never: an error without the path
 * and the value that was given.
 */
import { z } from 'zod';
import { invalid, NetctlError } from '../lib/errors.ts';

/** @param root the name that paths begin with, or '' @throws INVALID naming path, value and what is accepted */
export function checkJson<T>(schema: z.ZodType<T>, json: unknown, root = ''): T {
  const result = schema.safeParse(json, { error: withoutWords });
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  if (issue.code === 'invalid_key')
    throw invalid(pathText(root, issue.path.slice(0, -1)), issue.path.at(-1), issue.issues[0]!.message);
  const path = issue.code === 'unrecognized_keys' ? [...issue.path, issue.keys[0]!] : issue.path;
  throw invalid(pathText(root, path), isSecret(path) ? '(not shown)' : valueAt(json, path), issue.message);
}

/** What is accepted where a schema has no words of its own for it. */
function withoutWords(issue: z.core.$ZodRawIssue): string | undefined {
  if (issue.code === 'invalid_value') return issue.values.map(String).join(' or ');
  if (issue.code === 'unrecognized_keys') return 'no such key';
  if (issue.code === 'invalid_type') return `a value of type ${issue.expected}`;
  const [limit, way] =
    issue.code === 'too_small'
      ? [issue.minimum, 'on']
      : issue.code === 'too_big'
        ? [issue.maximum, 'down']
        : [];
  if (limit === undefined || !['number', 'int'].includes(String(issue['origin']))) return undefined;
  return `a number from ${limit} ${way}`;
}

/** A text that one of the model's parsers turns into its canonical form; its error says what is accepted. */
export function textOf<T extends string>(
  parse: (text: unknown, field: string) => T,
  example: string,
): z.ZodType<T> {
  const schema = z.string(`a text such as ${example}`).transform((text, context) => {
    try {
      return parse(text, 'value');
    } catch (error) {
      context.addIssue({ code: 'custom', message: acceptedBy(error) });
      return z.NEVER;
    }
  });
  return schema as unknown as z.ZodType<T>;
}

/** An object that takes these keys and no other, and says so. */
export function exactObject<S extends z.ZodRawShape>(shape: S): z.ZodObject<S, z.core.$strict> {
  const keys = Object.keys(shape);
  return z.strictObject(shape, {
    error: (issue) =>
      issue.code === 'unrecognized_keys'
        ? `no such key; accepted are ${keys.join(', ')}`
        : `an object with the keys ${keys.join(', ')}`,
  });
}

/** Errors are logged and printed. */
function isSecret(path: readonly PropertyKey[]): boolean {
  return /password$/i.test(String(path.at(-1)));
}

function acceptedBy(error: unknown): string {
  if (error instanceof NetctlError && typeof error.details['accepted'] === 'string')
    return error.details['accepted'];
  throw error;
}

/** `inbound_rules[2].dst_ports[0]`, `inbound_rules[0]["!src_net"]` */
function pathText(root: string, path: readonly PropertyKey[]): string {
  let text = root;
  for (const step of path) {
    if (typeof step === 'number') text += `[${step}]`;
    else if (/^[A-Za-z_]\w*$/.test(String(step))) text += text === '' ? String(step) : `.${String(step)}`;
    else text += `[${JSON.stringify(String(step))}]`;
  }
  return text === '' ? 'value' : text;
}

function valueAt(json: unknown, path: readonly PropertyKey[]): unknown {
  let value: unknown = json;
  for (const step of path) {
    if (typeof value !== 'object' || value === null) return undefined;
    value = (value as Record<PropertyKey, unknown>)[step];
  }
  return value;
}
