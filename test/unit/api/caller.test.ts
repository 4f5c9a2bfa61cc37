/** Scopes of client certificates: what is read out of alternative names, and that nothing else is. */
import assert from 'node:assert/strict';
import type { X509Certificate } from 'node:crypto';
import { test } from 'node:test';
import {
  actingFor,
  bindingOn,
  type Caller,
  certificateCaller,
  sees,
  showingTo,
} from '../../../src/api/caller.ts';

const of = (subjectAltName: string): Caller => certificateCaller({ subject: 'CN=x', subjectAltName });

const scopes = ({ operator, reserve, read, bind }: Caller) => ({
  operator,
  reserve: [...reserve],
  read: [...read],
  bind: [...bind],
});
const none = { operator: false, reserve: [], read: [], bind: [] };

test('scopes are URIs among the alternative names', () => {
  const names = ['operator', 'reserve:acme', 'reserve:a.b:c@d-e', 'read:shop', 'bind:node1'];
  const text = ['DNS:scheduler.example', ...names.map((name) => `URI:netctl:scope:${name}`)].join(', ');
  assert.deepEqual(scopes(of(text)), {
    operator: true,
    reserve: ['acme', 'a.b:c@d-e'],
    read: ['shop'],
    bind: ['node1'],
  });
});

for (const text of [
  '',
  'DNS:netctl:scope:operator',
  'URI:netctl:scope:Operator',
  'URI:netctl:scope:operator:x',
  'URI:netctl:scope:reserve',
  'URI:netctl:scope:reserve:',
  'URI:netctl:scope:reserve:a/b',
  'URI:netctl:scope:admin:acme',
  'URI:xnetctl:scope:operator',
  'DNS:"a, URI:netctl:scope:operator"',
  'DNS:"a\\", URI:netctl:scope:operator"',
  'DNS:a", URI:netctl:scope:operator',
  'URI:"netctl:scope:operator"',
  'othername:<unsupported>, nonsense, URI:netctl:scope:operator',
])
  test(`no scope in ${JSON.stringify(text)}`, () => assert.deepEqual(scopes(of(text)), none));

test('a name that looks like another one stays one name', () => {
  // openssl req -x509 -newkey ec … -addext 'subjectAltName=DNS:a\, URI:netctl:scope:operator'-like names come quoted from Node.js.
  const certificate = {
    subject: 'CN=a\nO=b',
    subjectAltName: 'DNS:"x, URI:netctl:scope:operator", URI:netctl:scope:read:t',
  };
  const caller = certificateCaller(certificate as X509Certificate);
  assert.deepEqual([scopes(caller), caller.name], [{ ...none, read: ['t'] }, 'CN=a, O=b']);
  assert.notEqual(caller.realm, of('').realm);
});

test('whom a caller acts for, sees and binds for', () => {
  const both = of('URI:netctl:scope:reserve:a, URI:netctl:scope:read:b, URI:netctl:scope:bind:n');
  assert.equal(actingFor(both, undefined), 'a');
  assert.equal(showingTo(both, 'b'), 'b');
  assert.deepEqual([sees(both, 'a'), sees(both, 'b'), sees(both, 'c')], [true, true, false]);
  assert.throws(() => actingFor(both, 'b'), { code: 'FORBIDDEN' });
  assert.throws(() => showingTo(both, undefined), { code: 'INVALID' });
  assert.throws(() => showingTo(both, 'c'), { code: 'FORBIDDEN' });
  bindingOn(both, 'n');
  assert.throws(() => bindingOn(both, 'm'), { code: 'FORBIDDEN' });
  const operator = of('URI:netctl:scope:operator');
  assert.deepEqual([actingFor(operator, undefined), showingTo(operator, 'z')], [null, 'z']);
});
