/**
 * A port with its protocol as one word: `tcp:3306`.
 *
 * In: text. Out: numbers, and back. Never: a port of a protocol that has none.
 */
import { invalid } from '../lib/errors.ts';
import { parseProtocol, protocolName } from './protocol.ts';

export interface ProtocolPort {
  /** Number of the protocol. */
  readonly protocol: number;
  readonly port: number;
}

/** @throws INVALID naming `field` */
export function parseProtocolPort(text: unknown, field: string): ProtocolPort {
  const [, name = '', digits = ''] =
    typeof text === 'string' ? (/^([a-z]+):(\d{1,5})$/.exec(text) ?? []) : [];
  const port = Number(digits);
  if (!['tcp', 'udp', 'sctp'].includes(name) || port > 65535)
    throw invalid(field, text, 'tcp:PORT, udp:PORT or sctp:PORT');
  return { protocol: parseProtocol(name), port };
}

export function protocolPortText({ protocol, port }: ProtocolPort): string {
  return `${protocolName(protocol)}:${port}`;
}
