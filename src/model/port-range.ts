/**
 * Ports and ranges of ports: numbers or `"8000:8100"`, both ends included.
 *
 * In: a JSON list. Out: ranges, and each back as JSON or text. Never: an empty list (it would match nothing, or all).
 */
import { z } from 'zod';

export interface PortRange {
  readonly from: number;
  readonly to: number;
}

const ACCEPTED = '0 to 65535, or a range such as "8000:8100" whose first port is not the higher one';
const MOST = 256;

const portSchema = z
  .union([z.number(), z.string()], ACCEPTED)
  .refine((port) => parsePort(port) !== null, ACCEPTED);

/** 1 to 256 ports or ranges. */
export const portsSchema = z
  .array(portSchema, 'a list of ports')
  .min(1, `1 to ${MOST} ports or ranges`)
  .max(MOST, `1 to ${MOST} ports or ranges`);

/** Of a list that portsSchema has passed. */
export function parsePorts(ports: readonly (string | number)[]): PortRange[] {
  return ports.map((port) => parsePort(port)!);
}

export function portJson(range: PortRange): string | number {
  return range.from === range.to ? range.from : portText(range);
}

/** `80` or `8000:8100`. */
export function portText(range: PortRange): string {
  return range.from === range.to ? `${range.from}` : `${range.from}:${range.to}`;
}

function parsePort(port: string | number): PortRange | null {
  const [, first, last] = /^(\d{1,5})(?::(\d{1,5}))?$/.exec(String(port)) ?? [];
  if (first === undefined) return null;
  const range = { from: Number(first), to: Number(last ?? first) };
  return range.from <= range.to && range.to <= 65535 ? range : null;
}
