/**
 * Who is at the other end of a request, and what that lets them do.
 *
 * In: a client certificate, or the word that the connection came over the agent's own socket. Out: a Caller; refusals by scope. Never: a
 * right that the certificate does not name; a scope read out of a name that only looks like one.
 */
import { createHash, type X509Certificate } from 'node:crypto';
import type { FastifyRequest } from 'fastify';
import { invalid, NetctlError } from '../lib/errors.ts';

/** What a route may be asked for by others than operators; a route that does not say is the operators' alone. */
export type Audience = 'anyone' | 'tenant' | 'node' | 'tenant-or-node';

export interface Caller {
  /** For the log: `uid 0, process 4711`, `CN=shop-scheduler`. */
  readonly name: string;
  /** Whose idempotency keys it uses: a digest of its name, or null over the agent's own socket. */
  readonly realm: string | null;
  /** Everything, for every tenant and node. */
  readonly operator: boolean;
  /** Tenants whose addresses it may take, change and see. */
  readonly reserve: ReadonlySet<string>;
  /** Tenants whose addresses it may see. */
  readonly read: ReadonlySet<string>;
  /** Nodes for whose containers it may bind addresses. */
  readonly bind: ReadonlySet<string>;
}

declare module 'fastify' {
  interface FastifyRequest {
    caller: Caller;
  }
  interface FastifyContextConfig {
    audience?: Audience;
  }
}

const scopePrefix = 'netctl:scope:';

/** Who may do everything: root, over the agent's own socket. */
export function localCaller(name: string): Caller {
  return { name, realm: null, operator: true, reserve: new Set(), read: new Set(), bind: new Set() };
}

/**
 * The caller of a verified client certificate. Scopes are URIs among its alternative names: `netctl:scope:operator`,
 * `netctl:scope:reserve:TENANT`, `netctl:scope:read:TENANT`, `netctl:scope:bind:NODE`; each may be there several times.
 */
export function certificateCaller(certificate: Pick<X509Certificate, 'subject' | 'subjectAltName'>): Caller {
  const scopes = { reserve: new Set<string>(), read: new Set<string>(), bind: new Set<string>() };
  let operator = false;
  for (const uri of urisOf(certificate.subjectAltName ?? '')) {
    if (!uri.startsWith(scopePrefix)) continue;
    const [, verb = '', whose = ''] =
      /^(\w+)(?::([\w.:@-]{1,128}))?$/.exec(uri.slice(scopePrefix.length)) ?? [];
    if (verb === 'operator' && whose === '') operator = true;
    else if ((verb === 'reserve' || verb === 'read' || verb === 'bind') && whose !== '')
      scopes[verb].add(whose);
  }
  const name = certificate.subject.trim().replace(/\s*\n\s*/g, ', ') || 'a certificate without a subject';
  const realm = createHash('sha256').update(name).digest('hex').slice(0, 16);
  return { name, realm, operator, ...scopes };
}

/** @throws FORBIDDEN when the route is not for such a caller; whose addresses are meant is checked by the route itself */
export function admit({ caller, routeOptions }: FastifyRequest): void {
  const audience = routeOptions.config?.audience;
  const isTenant = caller.reserve.size + caller.read.size > 0;
  const isNode = caller.bind.size > 0;
  if (caller.operator || audience === 'anyone') return;
  if (isTenant && (audience === 'tenant' || audience === 'tenant-or-node')) return;
  if (isNode && (audience === 'node' || audience === 'tenant-or-node')) return;
  throw forbidden(
    audience === undefined
      ? 'operator'
      : audience === 'tenant'
        ? 'reserve:TENANT or read:TENANT'
        : audience === 'node'
          ? 'bind:NODE'
          : 'reserve:TENANT or bind:NODE',
  );
}

/** @throws FORBIDDEN */
export function operatorOnly(caller: Caller): void {
  if (!caller.operator) throw forbidden('operator');
}

/**
 * The tenant that the caller acts for; null for an operator who names none and so acts for all.
 * @throws FORBIDDEN, INVALID when it is not clear which
 */
export function actingFor(caller: Caller, tenant: string | undefined): string | null {
  if (caller.operator) return tenant ?? null;
  const own = tenant ?? sole(caller.reserve);
  if (!caller.reserve.has(own)) throw forbidden(`reserve:${own}`);
  return own;
}

/** As actingFor, for what always has a tenant. @throws FORBIDDEN, INVALID */
export function takingFor(caller: Caller, tenant: string | undefined): string {
  return namedTenant(actingFor(caller, tenant));
}

/** The tenant that an operator has to name. @throws INVALID */
export function namedTenant(tenant: string | null): string {
  if (tenant === null) throw invalid('tenant', undefined, 'the name of a tenant, as you may act for any');
  return tenant;
}

/** Whose addresses the caller is shown; null for an operator who asks for all. @throws FORBIDDEN, INVALID */
export function showingTo(caller: Caller, tenant: string | undefined): string | null {
  if (caller.operator) return tenant ?? null;
  const own = tenant ?? sole(new Set([...caller.reserve, ...caller.read]));
  if (!sees(caller, own)) throw forbidden(`read:${own}`);
  return own;
}

export function sees({ operator, reserve, read }: Caller, tenant: string): boolean {
  return operator || reserve.has(tenant) || read.has(tenant);
}

/** @throws FORBIDDEN */
export function bindingOn({ operator, bind }: Caller, node: string): void {
  if (!operator && !bind.has(node)) throw forbidden(`bind:${node}`);
}

function sole(tenants: ReadonlySet<string>): string {
  const [one] = tenants;
  if (one === undefined) throw forbidden('reserve:TENANT');
  if (tenants.size > 1) throw invalid('tenant', undefined, `one of ${[...tenants].sort().join(', ')}`);
  return one;
}

function forbidden(scope: string): NetctlError {
  return new NetctlError('FORBIDDEN', `the client certificate does not have the scope ${scope}`, { scope });
}

/** `URI:a, DNS:b, URI:"c, d"`: Node.js quotes what could be taken for another name. None when it is not all understood. */
function urisOf(alternativeNames: string): string[] {
  const entry = /([A-Za-z][\w ]*):("(?:[^"\\]|\\.)*"|[^,"]*)(?:, |$)/y;
  const uris: string[] = [];
  while (entry.lastIndex < alternativeNames.length) {
    const found = entry.exec(alternativeNames);
    if (found === null) return [];
    const [, kind, text = ''] = found;
    if (kind === 'URI' && !text.startsWith('"')) uris.push(text);
  }
  return uris;
}
