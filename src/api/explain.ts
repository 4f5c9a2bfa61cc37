/**
 * Policy explained over HTTP: which rule decides between two parties, and how often each rule applied.
 *
 * In: parties, a protocol; a profile or policy. Out: rules and verdicts, counters. Never: an answer worked out here: the agent has
 * the chains.
 */
import type { FastifyInstance } from 'fastify';
import { parseProtocolPort } from '../model/protocol-port.ts';
import type { ApiDeps, WhyQuery } from './deps.ts';
import { ruleCounts, ruleCountsQuery, whyAnswer, whyQuery } from './explain-schemas.ts';
import { typed } from './http.ts';

export function explainRoutes(instance: FastifyInstance, deps: ApiDeps): void {
  const api = typed(instance);

  api.get('/v1/why', { schema: { querystring: whyQuery, response: { 200: whyAnswer } } }, (request) => {
    const { source, destination, protocol, probe } = request.query;
    return deps.why({ source, destination, protocol: protocolOf(protocol) }, probe === 'true');
  });

  const countsSchema = { querystring: ruleCountsQuery, response: { 200: ruleCounts } };
  api.get('/v1/rule-counts', { schema: countsSchema }, (request) => {
    const { kind, name } = request.query;
    return deps.ruleCounts(kind, name);
  });
}

function protocolOf(text: string): WhyQuery['protocol'] {
  if (text === 'icmp') return text;
  const { protocol, port } = parseProtocolPort(text, 'protocol');
  return { number: protocol, port };
}
