/**
 * Random policy and random packets: what the words of the language say, and what the kernel does with each back end, and in the containers
 * of macvlan endpoints, is the same.
 *
 * `NETCTL_TEST_WORLDS` (default 40) worlds of up to 150 packets each, and the answers to them; a failure prints seed and path.
 */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { type Address, familyOf } from '../../src/model/ip.ts';
import type { Packet } from '../../src/policy/explain.ts';
import { Meaning, type World, worldArbitrary } from '../unit/policy/worlds.ts';
import { icmp, other, SYN, SYN_ACK, type Transport, tcp, udp } from './frames.ts';
import { type BackendName, PolicyWire } from './policy-wire.ts';
import { endpointAddresses, foreignAddresses, type WirePacket } from './policy-wire-ends.ts';

const WORLDS = Number(process.env['NETCTL_TEST_WORLDS'] ?? 40);
const backends: readonly BackendName[] = ['nftables', 'iptables-nft', 'iptables-legacy', 'macvlan'];
/** What can begin a connection, as the kernel's connection tracking sees it; anything else of ICMP belongs to one or is dropped. */
const BEGINS = { 4: [8, 13, 15, 17], 6: [128, 139] } as const;

type Content =
  | { readonly kind: 'tcp' | 'udp'; readonly ports: readonly [source: number, destination: number] }
  | { readonly kind: 'icmp'; readonly type: number; readonly code: number }
  | { readonly kind: 'other'; readonly protocol: number };

/** One way, and perhaps back. */
interface Flow {
  readonly from: number;
  readonly to: number;
  readonly isV6: boolean;
  /** Which of the addresses behind a foreign interface. */
  readonly which: number;
  /** null: it comes by the right interface. */
  readonly forgedVia: number | null;
  readonly isCut: boolean;
  readonly content: Content;
  readonly isAnswered: boolean;
}

/** Mostly where a range of worlds.ts begins or ends, and beside it. */
const port = fc.oneof(
  { weight: 5, arbitrary: fc.constantFrom(22, 23, 53, 79, 80, 90, 91, 1023, 1024, 2999, 3000, 3001, 40000) },
  fc.nat(65535),
);
const ports = fc.tuple(port, port);
const content: fc.Arbitrary<Content> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('tcp' as const), ports }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('udp' as const), ports }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('icmp' as const),
      type: fc.constantFrom(8, 8, 13, 128, 128, 0, 3, 129),
      code: fc.constantFrom(0, 0, 1),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('other' as const), protocol: fc.constantFrom(89, 253) }),
  },
);
const flows: fc.Arbitrary<Flow> = fc
  .record({
    from: fc.nat(5),
    to: fc.nat(5),
    isV6: fc.boolean(),
    which: fc.nat(5),
    forgedVia: fc.oneof({ weight: 9, arbitrary: fc.constant(null) }, fc.nat(3)),
    isCut: fc.oneof({ weight: 3, arbitrary: fc.constant(false) }, fc.constant(true)),
    content,
    isAnswered: fc.boolean(),
  })
  // One of both is an endpoint; a forged source comes by the interface of another endpoint.
  .filter(({ from, to, forgedVia }) => from !== to && (from < 4 || to < 4) && forgedVia !== from);
const worlds = worldArbitrary(endpointAddresses, [foreignAddresses[0]![0]!, foreignAddresses[0]![1]!]);

let wires: PolicyWire[] = [];
before(() => {
  wires = backends.map((backend) => new PolicyWire(backend));
});
after(() => {
  for (const wire of wires) wire.close();
});

test('the kernel does what the rules mean', { timeout: 3_600_000 }, async (t) => {
  const seen = { allowed: 0, dropped: 0, answers: 0 };
  await fc.assert(
    fc.asyncProperty(
      worlds,
      fc.array(flows, { minLength: 1, maxLength: 150, size: 'max' }),
      async (world, all) => {
        const chosen = withoutRepeats(all);
        const answered = chosen.filter((flow) => flow.isAnswered && flow.forgedVia === null);
        // All to their end: the next run is on the same wires.
        const results = await Promise.allSettled(
          wires.map(async (wire) => {
            const isMacvlan = wire.backend === 'macvlan';
            const expected = chosen.map((flow) => isAllowed(world, flow) || (isMacvlan && staysInside(flow)));
            await wire.load(world);
            expect(wire, chosen, await wire.send(chosen.map((flow) => packetOf(flow))), expected);
            const answers = answered.map((flow) => packetOf(reversed(flow), true));
            const arrives = isMacvlan ? isAnswerAllowedByTwo : isAnswerAllowed;
            const expectedAnswers = answered.map((flow) => arrives(world, flow));
            expect(wire, answered.map(reversed), await wire.send(answers), expectedAnswers);
            const riders = answered.flatMap((flow) => [riderOn(flow), riderOn(reversed(flow))]);
            const expectedRiders = riders.map((flow) => isMacvlan && staysInside(flow));
            expect(wire, riders, await wire.send(riders.map((flow) => packetOf(flow))), expectedRiders);
          }),
        );
        for (const result of results) if (result.status === 'rejected') throw result.reason;
        for (const flow of chosen) seen[isAllowed(world, flow) ? 'allowed' : 'dropped']++;
        seen.answers += answered.length;
      },
    ),
    { numRuns: WORLDS },
  );
  t.diagnostic(`${WORLDS} worlds, ${backends.length} back ends each: ${JSON.stringify(seen)}`);
  assert(seen.allowed > WORLDS && seen.dropped > WORLDS && seen.answers > WORLDS, JSON.stringify(seen));
});

function expect(
  { backend }: PolicyWire,
  flows: readonly Flow[],
  actual: readonly boolean[],
  expected: readonly boolean[],
): void {
  const told = (verdicts: readonly boolean[]): string[] =>
    flows.map((flow, i) => `${backend}: ${textOf(flow)} ${verdicts[i] ? 'arrives' : 'is dropped'}`);
  assert.deepEqual(told(actual), told(expected));
}

/** Each flow a connection of its own, also the other way round. */
function withoutRepeats(flows: readonly Flow[]): Flow[] {
  const seen = new Set<string>();
  return flows.filter((flow) => {
    const { source, destination } = endsOf(flow);
    const ends = [`${source}`, `${destination}`];
    const { content } = flow;
    if ('ports' in content) for (const i of [0, 1] as const) ends[i] += `:${content.ports[i]}`;
    const key = `${ends.sort()} ${content.kind} ${'protocol' in content ? content.protocol : ''}`;
    const isNew = !seen.has(key);
    seen.add(key);
    return isNew;
  });
}

function isAllowed(world: World, flow: Flow): boolean {
  return flow.forgedVia === null && begins(flow) && meaningOf(world, flow).isAllowed();
}

function begins(flow: Flow): boolean {
  const { content } = flow;
  const family = familyOf(endsOf(flow).source);
  return content.kind !== 'icmp' || (BEGINS[family] as readonly number[]).includes(content.type);
}

function meaningOf(world: World, flow: Flow): Meaning {
  const { content } = flow;
  const { source, destination } = endsOf(flow);
  const packet: Packet = {
    source,
    destination,
    inInterface: '',
    outInterface: '',
    protocol: packetOf(flow).transport(Buffer.alloc(8)).protocol,
    sourcePort: 'ports' in content ? content.ports[0] : null,
    destinationPort: 'ports' in content ? content.ports[1] : null,
    icmp: 'type' in content ? content : null,
  };
  return new Meaning(world, packet);
}

/** What a container sends itself, whatever it says: it does not come to the wire. */
function staysInside({ forgedVia, to }: Flow): boolean {
  return forgedVia === to;
}

/** Where one host sees both ends. */
function isAnswerAllowed(world: World, flow: Flow): boolean {
  return isAllowed(world, flow) || (canStandAlone(flow) && isAllowed(world, reversed(flow)));
}

/** Where each end knows of its own connections only, as routed endpoints of two hosts do: what left is known where it came from. */
function isAnswerAllowedByTwo(world: World, flow: Flow): boolean {
  if (isAllowed(world, flow)) return true;
  const [there, back] = [meaningOf(world, flow), meaningOf(world, reversed(flow))];
  const isKnownAtSource = begins(flow) && there.maySend();
  return canStandAlone(flow) && back.maySend() && (isKnownAtSource || back.mayReceive());
}

/** The answer to what did not arrive begins a connection, or belongs to none. */
function canStandAlone({ content: { kind } }: Flow): boolean {
  return kind === 'udp' || kind === 'other';
}

function reversed(flow: Flow): Flow {
  const { content } = flow;
  let back = content;
  if ('type' in content) back = { ...content, type: answerOf(content.type) };
  else if ('ports' in content) back = { ...content, ports: [content.ports[1], content.ports[0]] };
  return { ...flow, from: flow.to, to: flow.from, content: back };
}

/** Into a connection that is known by now, by the interface of another endpoint. */
function riderOn(flow: Flow): Flow {
  return { ...flow, forgedVia: flow.from < 4 ? (flow.from + 1) % 4 : 0 };
}

/** To echo and timestamp; what is no question gets itself back. */
function answerOf(type: number): number {
  return { 8: 0, 13: 14, 128: 129 }[type] ?? type;
}

function packetOf(flow: Flow, isAnswer = false): WirePacket {
  const { source, destination } = endsOf(flow);
  const transport = (payload: Buffer): Transport => {
    const { content } = flow;
    if ('ports' in content)
      return content.kind === 'udp'
        ? udp(content.ports, payload)
        : tcp(content.ports, isAnswer ? SYN_ACK : SYN, payload);
    if (content.kind === 'other') return other(content.protocol, payload);
    return icmp(familyOf(source), content.type, content.code, 7, payload);
  };
  return { via: flow.forgedVia ?? flow.from, source, destination, isCut: flow.isCut, transport };
}

function endsOf({ from, to, isV6, which }: Flow): { source: Address; destination: Address } {
  const behind = (i: number): Address => {
    const addresses = i < 4 ? endpointAddresses[i]! : foreignAddresses[i - 4]!;
    const ofFamily = addresses.filter((address) => (familyOf(address) === 6) === isV6);
    return ofFamily[which % ofFamily.length]!;
  };
  return { source: behind(from), destination: behind(to) };
}

function textOf(flow: Flow): string {
  const { source, destination } = endsOf(flow);
  const { content, forgedVia, isCut } = flow;
  const forged = forgedVia === null ? '' : ` forged, by nctl${forgedVia}`;
  return `${source} → ${destination} ${JSON.stringify(content)}${isCut ? ' in two fragments' : ''}${forged}`;
}
