/**
 * WEB → APP → DB by real connections, IPv4 and IPv6: between macvlan siblings, between hosts, and between macvlan and routed endpoints
 * of one host and of two, the same answers as `make demo` shows of routed ones.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Expected, tryMatrix } from '../../lab/matrix.ts';
import { eventually } from '../../lab/run.ts';
import { enterSandbox } from './linux-contract-sandbox.ts';
import { routed, WiredHosts, type WiredMember, wire } from './wired-hosts.ts';

// The addresses of the hosts are the same in every file that has some.
enterSandbox(import.meta.url);

const ports = [22, 80, 443, 3306, 8080];
const roles = ['web', 'app', 'db'] as const;
const open: Readonly<Record<string, readonly number[]>> = {
  'web app': ports,
  'web db': [],
  'app web': [80, 443],
  'app db': [3306],
  'db web': [80, 443],
  'db app': [],
};

for (const [what, words, isHostOnWire] of [
  ['by way of the router on the wire', {}, false],
  ['with a pair to the host', { hostAccess: 'veth' }, false],
  ['with a pair to the host, which has an address on the wire, too', { hostAccess: 'veth' }, true],
] as const)
  test(`web → app → db, macvlan and routed on two hosts, ${what}`, { timeout: 240_000 }, async (t) => {
    const wired = await WiredHosts.create('mm', 2);
    try {
      if (isHostOnWire) await wired.putHostsOnWire();
      await wired.addExamples();
      const members: (WiredMember & { readonly role: string })[] = [];
      for (const [i, host] of wired.hosts.entries())
        for (const role of roles) {
          const one = await wired.join(host, `wire${i + 1}-${role}`, wire(role, words));
          const other = await wired.join(host, `routed${i + 1}-${role}`, routed(role));
          members.push({ ...one, role }, { ...other, role });
        }
      await Promise.all(members.map(({ container }) => container.serve(ports)));
      for (const { name, address4 } of members) await wired.everywhere(name, ['endpoint', 'show'], address4);
      const expected: Record<string, Expected[string]> = {};
      for (const from of members)
        for (const to of members)
          if (from.role !== to.role) expected[`${from.name} → ${to.name}`] = open[`${from.role} ${to.role}`]!;
      for (const family of [4, 6] as const) {
        const peers = members.map(({ name, container, address4, address6 }) => ({
          name,
          address: family === 4 ? address4 : address6,
          connect: container.connect.bind(container),
        }));
        // What a host knows is in its kernel a moment later.
        let tried = await tryMatrix(peers, ports, expected);
        await eventually('all is as expected', 20_000, async () => {
          if (tried.wrong.length > 0) tried = await tryMatrix(peers, ports, expected);
          return tried.wrong.length === 0;
        }).catch(() => assert.fail(`IPv${family}: ${tried.wrong.join(', ')}\n${tried.text}`));
        assert.equal(tried.cells, 12 * 8 * ports.length);
        t.diagnostic(`IPv${family}: ${tried.cells} connections tried`);
      }
    } finally {
      await wired.close();
    }
  });
