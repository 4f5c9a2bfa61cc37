/** The interpreter of chains against the meaning of the rules themselves, on random profiles, policies and packets. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Address } from '../../../src/model/ip.ts';
import { PolicyEngine } from '../../../src/policy/engine.ts';
import { Explainer, type Packet } from '../../../src/policy/explain.ts';
import { Meaning, worldArbitrary } from './worlds.ts';

const addresses = [1, 2].map((i) => [`10.0.0.${i}`, `fd00::${i}`] as Address[]);
const worlds = worldArbitrary(addresses);
const port = fc.oneof(fc.constantFrom(0, 22, 80, 65535), fc.nat(65535));
const packets = fc.record({
  family: fc.constantFrom(0, 1),
  content: fc.oneof(
    fc.record({ protocol: fc.constantFrom(6, 17, 132), sourcePort: port, destinationPort: port }),
    fc.record({ icmp: fc.record({ type: fc.nat(254), code: fc.nat(3) }) }),
    fc.record({ protocol: fc.constantFrom(4, 47, 89) }),
  ),
});

test('chains do what the rules mean', () => {
  let allowed = 0;
  fc.assert(
    fc.property(worlds, fc.array(packets, { minLength: 1, maxLength: 8 }), (world, contents) => {
      const explainer = new Explainer();
      const engine = new PolicyEngine({ endpointToHost: 'drop' }, explainer);
      for (const [name, profile] of Object.entries(world.profiles)) engine.onProfile(name, profile);
      engine.onAddressSet('office', world.office);
      world.parties.forEach((party, i) => {
        engine.onEndpoint(`${i}`, { local: true, hostInterface: `nctl${i}`, ...party });
      });
      for (const [name, policy] of Object.entries(world.policies)) engine.onPolicy(name, policy);
      for (const { family, content } of contents) {
        const [source, destination] = world.parties.map(({ addresses }) => addresses[family]!);
        const packet: Packet = {
          source: source!,
          destination: destination!,
          inInterface: 'nctl0',
          outInterface: 'nctl1',
          protocol: family === 0 ? 1 : 58,
          sourcePort: null,
          destinationPort: null,
          icmp: null,
          ...content,
        };
        const expected = new Meaning(world, packet).isAllowed();
        if (expected) allowed++;
        assert.equal(explainer.judge('FORWARD', packet).verdict, expected ? 'accept' : 'drop');
        assert.equal(
          explainer.judge('FORWARD', { ...packet, inInterface: 'nctl1' }).verdict,
          'drop',
          'spoofed',
        );
      }
    }),
    { numRuns: 400 },
  );
  assert.ok(allowed > 50, `only ${allowed} packets were allowed: the rules or packets are not varied enough`);
});
