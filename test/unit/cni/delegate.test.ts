/** What another IPAM plugin's answer says of routes, for plugins whose routes are all there are (dhcp), and others. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseResult } from '../../../src/cni/delegate.ts';

const ips = [
  { address: '10.0.0.5/24', gateway: '10.0.0.1' },
  { address: 'fd00::5/64' },
  { address: '10.0.0.6/24' },
];
const parse = (type: string, routes?: object[]) =>
  parseResult(type, JSON.stringify({ cniVersion: '1.0.0', ips, routes })).map((given) => given.routes);
const via = (destination: string, gateway: string | null) => ({ destination, gateway });

test('without routes, nothing is said of them', () => {
  assert.deepEqual(parse('host-local'), [undefined, undefined, undefined]);
  assert.deepEqual(parse('dhcp', []), [undefined, undefined, undefined]);
});

test('routes are with the first address of their family, and by its gateway unless they name another', () => {
  const routes = [
    { dst: '10.9.0.0/16' },
    { dst: '10.8.0.0/16', gw: '10.0.0.8' },
    { dst: 'fd09::/64', gw: 'fd00::1' },
  ];
  const four = [via('10.9.0.0/16', '10.0.0.1'), via('10.8.0.0/16', '10.0.0.8')];
  assert.deepEqual(parse('dhcp', routes), [four, [via('fd09::/64', 'fd00::1')], undefined]);
  assert.deepEqual(parse('host-local', routes)[0], [...four, via('0.0.0.0/0', '10.0.0.1')]);
});

test('a default of their own is the only one; 0.0.0.0 means the wire itself', () => {
  const routes = [
    { dst: '0.0.0.0/0', gw: '10.0.0.9' },
    { dst: '10.7.0.0/16', gw: '0.0.0.0' },
  ];
  for (const type of ['dhcp', 'static'])
    assert.deepEqual(parse(type, routes)[0], [via('0.0.0.0/0', '10.0.0.9'), via('10.7.0.0/16', null)]);
});

test('only of DHCP, host bits behind the length of a class mean that host', () => {
  const routes = [
    { dst: '10.9.0.5/8', gw: '10.0.0.1' },
    { dst: '10.0.0.0/8', gw: '10.0.0.1' },
  ];
  assert.deepEqual(parse('dhcp', routes)[0], [via('10.9.0.5/32', '10.0.0.1'), via('10.0.0.0/8', '10.0.0.1')]);
  assert.throws(() => parse('static', routes), /routes\.dst: "10\.9\.0\.5\/8" is not valid/);
  assert.throws(() => parse('dhcp', [{ dst: '10.9.0.5/12' }]), /routes\.dst/);
  assert.throws(() => parse('dhcp', [{ dst: '10.9.0.0/16', gw: 'x' }]), /routes\.gw/);
});
