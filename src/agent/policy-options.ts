/**
 * What of the configuration policy is compiled with.
 *
 * In: the configuration. Out: options of a PolicyEngine. Never: a default of its own.
 */
import { type ProtocolPort, parseProtocolPort } from '../model/protocol-port.ts';
import type { EndpointToHost } from '../policy/compile-list.ts';
import type { Failsafe } from '../policy/host-endpoints.ts';
import type { Config } from './config.ts';

export function policyOptions({ dataplane }: Pick<Config, 'dataplane'>): {
  readonly endpointToHost: EndpointToHost;
  readonly failsafe: Failsafe;
} {
  const ports = (key: 'failsafeInbound' | 'failsafeOutbound'): ProtocolPort[] =>
    dataplane[key].map((text) => parseProtocolPort(text, `dataplane.${key}`));
  const failsafe = { inbound: ports('failsafeInbound'), outbound: ports('failsafeOutbound') };
  return { endpointToHost: dataplane.endpointToHost, failsafe };
}
