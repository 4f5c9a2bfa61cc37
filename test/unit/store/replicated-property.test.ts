/**
 * Several nodes, anything that can happen, in any order: at no moment has one address two endpoints; in the end the cluster and
 * every picture agree, nothing that was acknowledged is missing, and each node's changes came in the order in which it decided them.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import { MemoryStore } from '../../../src/store/memory.ts';
import type { Compare, Entry, Json, Store, Write } from '../../../src/store/store.ts';
import { ManualClock } from './manual-clock.ts';
import { agrees, claim, eventually, TestNode, visible } from './replicated-fixture.ts';
import { absent, aWhile, commit, hasCode, modified, put, remove } from './support.ts';

/** Four blocks of four addresses: three nodes fight for them. */
const blocks = ['10.0.0.0', '10.0.0.4', '10.0.0.8', '10.0.0.12'];
const addressesOf = (base: string): string[] =>
  [0, 1, 2, 3].map((offset) => `10.0.0.${Number(base.split('.')[3]) + offset}`);
const blockKeyOf = (base: string): string => `blocks/${base}-30`;

const isShared = (block: Entry | null): boolean =>
  (block?.value as { shared?: boolean } | undefined)?.shared === true;

type Known = 'present' | 'absent' | 'unknown';

/** What an agent does, on the picture that its store gives it. */
class Agent {
  readonly node: TestNode;
  readonly known = new Map<string, Known>();
  #busy = new Set<string>();
  #generation = 0;
  #sequence = 0;
  /** The numbers in the order in which the local store has them: of two requests under way at once, either may be the first. */
  readonly decided: number[] = [];
  readonly acknowledged = new Set<number>();
  /** Of each endpoint that it made. */
  readonly addresses = new Map<string, string>();
  /** Addresses of its blocks that an operator made shared without asking it: what it wrote there meanwhile may be lost. */
  readonly forced = new Set<string>();
  /** It was killed while the outcome of a decision was not known, so the cluster may hold an address that no endpoint names. */
  mayLeak = false;

  constructor(node: TestNode) {
    this.node = node;
  }

  /** Starts it; the outcome is noted when it comes, and not if the process is killed before. */
  attach(endpoint: string): void {
    this.#start(endpoint, 'present', async () => {
      const { entries } = await this.node.store.list('');
      const byKey = new Map(entries.map((entry) => [entry.key, entry]));
      const place = this.#place(byKey);
      if (place === null) return null;
      const key = `endpoints/${this.node.name}/${endpoint}`;
      const { name } = this.node;
      const writes: Write[] = [
        put(`addresses/${place.address}`, { node: name, endpoint }),
        put(key, { addresses: [place.address] }),
        ...(place.claim === null ? this.#number(place.isShared) : [place.claim]),
      ];
      const compares = [place.compare, absent(`addresses/${place.address}`), absent(key)];
      return { compares, writes, address: place.address };
    });
  }

  detach(endpoint: string): void {
    this.#start(endpoint, 'absent', async () => {
      const { name, store } = this.node;
      const entry = await store.get(`endpoints/${name}/${endpoint}`);
      if (entry === null) return null;
      const [address] = (entry.value as { addresses: string[] }).addresses;
      const record = await store.get(`addresses/${address}`);
      const block = await store.get(blockKeyOf(blocks.find((base) => addressesOf(base).includes(address!))!));
      return {
        compares: [modified(entry.key, entry.modified)],
        writes: [
          remove(entry.key),
          ...((record?.value as { endpoint?: string } | undefined)?.endpoint === endpoint
            ? [remove(`addresses/${address}`)]
            : []),
          ...this.#number(isShared(block)),
        ],
      };
    });
  }

  /** What the cluster decides about may be there before the local store shows it, or what was before it. */
  #number(inShared: boolean): Write[] {
    return inShared ? [] : [put(`endpoints/${this.node.name}/sequence`, ++this.#sequence)];
  }

  /** As an agent does that sees an address of an endpoint become somebody else's. */
  async giveWay(): Promise<void> {
    const { name, store } = this.node;
    for (const { key, value } of (await store.list(`endpoints/${name}/`)).entries) {
      for (const address of (value as { addresses?: string[] }).addresses ?? []) {
        const record = (await store.get(`addresses/${address}`))?.value ?? null;
        const isOurs = isDeepStrictEqual(record, { node: name, endpoint: key.split('/')[2] });
        if (!this.forced.has(address) || isOurs) continue;
        let state: 'there' | 'asked' | 'gone' = 'there';
        const ask = (): void => {
          state = 'asked';
          commit(store, remove(key)).then(
            () => (state = 'gone'),
            () => (state = 'there'),
          );
        };
        const isGone = (): boolean => {
          if (state === 'there') ask();
          return state === 'gone';
        };
        await eventually(this.node.clock, isGone, `${key} to give way`);
      }
    }
  }

  giveBack(): void {
    if (this.#busy.size > 0) return;
    this.#start('', 'absent', async () => {
      const { entries } = await this.node.store.list('');
      const taken = new Set(entries.map(({ key }) => key));
      const empty = entries.find(
        ({ key, value }) =>
          key.startsWith('blocks/') &&
          (value as { node: string }).node === this.node.name &&
          !addressesOf(key.slice('blocks/'.length, -3)).some((address) => taken.has(`addresses/${address}`)),
      );
      if (empty === undefined) return null;
      return { compares: [modified(empty.key, empty.modified)], writes: [remove(empty.key)] };
    });
  }

  kill(): void {
    this.node.kill();
    this.#generation += 1;
    for (const endpoint of this.#busy) this.known.set(endpoint, 'unknown');
    if ([...this.known.values()].includes('unknown')) this.mayLeak = true;
    this.#busy = new Set();
  }

  #start(
    endpoint: string,
    then: Known,
    plan: () => Promise<{ compares: Compare[]; writes: Write[]; address?: string } | null>,
  ): void {
    if (this.#busy.has(endpoint)) return;
    this.#busy.add(endpoint);
    const generation = this.#generation;
    void (async () => {
      let outcome: Known | undefined;
      try {
        const made = await plan();
        if (made === null) return;
        outcome = 'unknown';
        this.known.set(endpoint, 'unknown');
        const sequence = made.writes.find(({ key }) => key.endsWith('/sequence'));
        const result = await this.node.store.transact(made.compares, made.writes);
        outcome = result.committed ? then : undefined;
        if (result.committed && made.address !== undefined) this.addresses.set(endpoint, made.address);
        if (result.committed && sequence?.kind === 'put') this.acknowledged.add(sequence.value as number);
      } catch (error) {
        assert.ok(hasCode('STORE_UNAVAILABLE')(error), String(error));
      } finally {
        if (generation === this.#generation) {
          this.#busy.delete(endpoint);
          if (outcome !== undefined) this.known.set(endpoint, outcome);
          else if (this.known.get(endpoint) === 'unknown') this.known.delete(endpoint);
        }
      }
    })();
  }

  #place(byKey: ReadonlyMap<string, Entry>) {
    for (const base of blocks) {
      const known = byKey.get(blockKeyOf(base));
      if ((known?.value as { node?: string } | undefined)?.node !== this.node.name) continue;
      const address = addressesOf(base).find((candidate) => !byKey.has(`addresses/${candidate}`));
      if (address !== undefined)
        return {
          address,
          compare: modified(known!.key, known!.modified),
          claim: null,
          isShared: isShared(known!),
        };
    }
    const free = blocks.find((base) => !byKey.has(blockKeyOf(base)));
    if (free === undefined) return null;
    const key = blockKeyOf(free);
    return { address: free, compare: absent(key), claim: put(key, claim(this.node.name)), isShared: false };
  }
}

/**
 * As a transfer does that an operator forces while the block's node is not heard: an address is somebody else's, and about the block the
 * cluster decides from now on. True if it was done.
 */
async function force(cluster: MemoryStore, agents: readonly Agent[], base: string): Promise<boolean> {
  const key = blockKeyOf(base);
  const block = await cluster.get(key);
  const { node: holder, shared } = (block?.value ?? {}) as { node?: string; shared?: boolean };
  const agent = agents.find(({ node }) => node.name === holder && node.wire.state !== 'up');
  if (block === null || agent === undefined || shared) return false;
  const taken = (await cluster.list('addresses/')).entries.find((entry) =>
    addressesOf(base).includes(entry.key.slice('addresses/'.length)),
  );
  const moved = { node: 'elsewhere', endpoint: null };
  const { committed } = await cluster.transact(
    [modified(key, block.modified)],
    [
      put(key, { ...(block.value as object), shared: true } as Json),
      ...(taken === undefined ? [] : [put(taken.key, moved)]),
    ],
  );
  if (committed) for (const address of addressesOf(base)) agent.forced.add(address);
  return committed;
}

const command = fc.record({
  node: fc.nat(2),
  kind: fc.constantFrom(
    ...(['attach', 'attach', 'attach', 'attach', 'attach', 'attach', 'detach', 'detach', 'detach'] as const),
    ...(['giveBack', 'giveBack', 'mend', 'mend', 'mend', 'wait', 'wait', 'profile', 'profile'] as const),
    ...(['cut', 'silence', 'lose', 'kill', 'killCut', 'compact', 'endWatches', 'force'] as const),
  ),
  endpoint: fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f'),
  turns: fc.nat(12),
});

const runs = Number(process.env['NETCTL_PROPERTY_RUNS'] ?? 40);

test('property: several nodes, cuts, kills, lost answers, addresses taken by force', {
  timeout: 120_000 + runs * 1000,
}, async () => {
  const seen = { attached: 0, committed: 0, forced: 0 };
  await fc.assert(
    fc.asyncProperty(fc.array(command, { minLength: 60, maxLength: 120, size: 'max' }), async (commands) => {
      const cluster = new MemoryStore();
      const clock = new ManualClock();
      await commit(cluster, put('pools/p', {}), ...['n0', 'n1', 'n2'].map((name) => put(`nodes/${name}`)));
      const order = new Map<string, number[]>();
      const agents: Agent[] = [];
      const first = { waits: true };
      follow(cluster, first, (node, number) => order.set(node, [...(order.get(node) ?? []), number]));
      for (const name of ['n0', 'n1', 'n2']) {
        const agent = new Agent(await new TestNode(name, cluster, clock, { mostWaiting: 12 }).open());
        agents.push(agent);
        follow(agent.node.localStore, first, (node, number) => {
          if (node === name) agent.decided.push(number);
        });
      }
      for (const { node: which, kind, endpoint, turns } of commands) {
        const agent = agents[which]!;
        const { node } = agent;
        if (kind === 'attach') agent.attach(endpoint);
        if (kind === 'detach') agent.detach(endpoint);
        if (kind === 'giveBack') agent.giveBack();
        if (kind === 'cut') node.wire.cut();
        if (kind === 'silence') node.wire.cut('silent');
        if (kind === 'mend') node.wire.mend();
        if (kind === 'lose') node.wire.loseAnswers += 1;
        if (kind === 'compact') (node.localStore as MemoryStore).compact();
        if (kind === 'endWatches') cluster.endWatches();
        if (kind === 'force' && (await force(cluster, agents, blocks[turns % blocks.length]!))) seen.forced++;
        if (kind === 'profile') node.put(`profiles/${endpoint}`, turns).catch(() => undefined);
        if (kind === 'kill' || kind === 'killCut') {
          agent.kill();
          await node.open({}, kind === 'killCut');
        }
        if (kind === 'wait') clock.advance(turns * 200);
        for (let turn = 0; turn < turns; turn++) await nextTurn();
        clock.advance(10);
        await isUnique(agents);
      }
      for (const { node } of agents) {
        node.wire.loseAnswers = 0;
        node.wire.mend();
      }
      for (const { node } of agents) await agrees(node);
      for (const agent of agents) await agent.giveWay();
      for (const { node } of agents) await agrees(node);
      for (const { node } of agents) await agrees(node);
      await isUnique(agents);
      await aWhile();
      const records = visible(await cluster.list(''));
      for (const agent of agents) hasAll(agent, records);
      for (const agent of agents) {
        const sequence = order.get(agent.node.name) ?? [];
        const places = sequence.map((number) => agent.decided.indexOf(number));
        const ascending = [...new Set(places)].sort((a, b) => a - b);
        assert.deepEqual(places, ascending, `arrived ${sequence}, decided ${agent.decided}`);
        assert.equal(
          sequence.at(-1),
          agent.decided.at(-1),
          'the last that was decided is the last that arrived',
        );
        for (const number of agent.acknowledged)
          assert.ok(agent.decided.includes(number), `${number} was acknowledged, not decided`);
        seen.attached += [...agent.known.values()].filter((known) => known === 'present').length;
      }
      seen.committed += (await cluster.list('')).revision;
      first.waits = false;
      for (const { node } of agents) await node.store.close();
    }),
    { numRuns: runs, endOnFailure: true },
  );
  // Else the nodes did nothing, and all of the above held for that reason.
  assert.ok(seen.attached > 40 && seen.committed > 400 && seen.forced > 0, JSON.stringify(seen));
});

/** Tells each number that a node writes, in the order of the store, until nobody waits for it any more. */
function follow(
  store: Store,
  until: { readonly waits: boolean },
  tell: (node: string, number: number) => void,
): void {
  let last = 0;
  const told = new Map<string, number>();
  const look = ({ key, value }: Pick<Entry, 'key' | 'value'>): void => {
    const [, node, name] = key.split('/');
    if (name !== 'sequence' || told.get(node!) === value) return;
    told.set(node!, value as number);
    tell(node!, value as number);
  };
  const again = (): void => {
    store.watch('endpoints/', last, {
      onChanges: ({ revision, changes }) => {
        last = revision;
        for (const { entry } of changes) if (entry !== null) look(entry);
      },
      onEnd: async () => {
        if (!until.waits) return;
        // The log is gone as far as this: what the store has now is all that is left of it.
        const { entries, revision } = await store.list('endpoints/');
        for (const entry of entries) look(entry);
        last = revision;
        again();
      },
    });
  };
  again();
}

/** By each node's own word about its own endpoints. Who takes an address by force from a node that is not heard has to know that it is off. */
async function isUnique(agents: readonly Agent[]): Promise<void> {
  const holders = new Map<string, string>();
  for (const { node } of agents) {
    for (const { key, value } of (await node.localStore.list(`endpoints/${node.name}/`)).entries) {
      for (const address of (value as { addresses?: string[] }).addresses ?? []) {
        if (agents.some(({ forced }) => forced.has(address))) continue;
        assert.equal(
          holders.get(address),
          undefined,
          `${address} is given to ${holders.get(address)} and ${key}`,
        );
        holders.set(address, key);
      }
    }
  }
}

function hasAll(agent: Agent, records: Record<string, Json>): void {
  const { name } = agent.node;
  for (const [endpoint, known] of agent.known) {
    if (endpoint === '' || known === 'unknown') continue;
    const isThere = `endpoints/${name}/${endpoint}` in records;
    if (!isThere && agent.forced.has(agent.addresses.get(endpoint)!)) continue;
    assert.equal(isThere, known === 'present', `${name}/${endpoint} is ${known}`);
  }
  const named = new Set<string>();
  for (const [key, value] of Object.entries(records)) {
    if (!key.startsWith(`endpoints/${name}/`)) continue;
    for (const address of (value as { addresses?: string[] }).addresses ?? []) {
      named.add(address);
      const record = records[`addresses/${address}`] as { node: string; endpoint: string } | undefined;
      assert.deepEqual(record, { node: name, endpoint: key.split('/')[2] }, `${key} has ${address}`);
    }
  }
  for (const [key, value] of Object.entries(records)) {
    if (!key.startsWith('addresses/') || (value as { node: string }).node !== name) continue;
    const address = key.split('/')[1]!;
    assert.ok(agent.mayLeak || agent.forced.has(address) || named.has(address), `${key} leaked`);
  }
}
