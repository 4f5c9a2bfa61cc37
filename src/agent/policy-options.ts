/**
 * What the configuration says about policy, as the engine takes it.
 *
 * In: the configuration. Out: options. Never: a port unchecked.
 */
import { type ProtocolPort, parseProtocolPort } from '../model/protocol-port.ts';
import type { Config } from './config.ts';

export function policyOptions({ dataplane }: Config) {
  const ports = (key: 'failsafeInbound' | 'failsafeOutbound'): ProtocolPort[] =>
    dataplane[key].map((text) => parseProtocolPort(text, `dataplane.${key}`));
  const failsafe = { inbound: ports('failsafeInbound'), outbound: ports('failsafeOutbound') };
  return { endpointToHost: dataplane.endpointToHost, failsafe };
}
