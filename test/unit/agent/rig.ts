/**
 * An agent on the strict fakes, with two pools.
 *
 * In: ports with some of their functions replaced, the back end. Out: the agent, its kernel, store and clock. Never: real time.
 */

import { Agent } from '../../../src/agent/agent.ts';
import type { Attachments } from '../../../src/agent/attach.ts';
import { type Config, loadConfig } from '../../../src/agent/config.ts';
import type { FlushMark } from '../../../src/agent/connection-flush.ts';
import { FakeBird } from '../../../src/linux/fake/bird.ts';
import { FakeLinux } from '../../../src/linux/fake/linux.ts';
import type { Linux } from '../../../src/linux/ports.ts';
import type { AttachRequest } from '../../../src/model/attachment.ts';
import { poolSchema } from '../../../src/model/records.ts';
import { MemoryStore } from '../../../src/store/memory.ts';
import type { Json, Store } from '../../../src/store/store.ts';
import { ManualClock } from '../store/manual-clock.ts';

export const silent = { debug() {}, info() {}, warn() {}, error() {} };
export const configOf = (dataplane: string): Config =>
  loadConfig({ argv: ['--node', 'n1', '--dataplane', dataplane], env: {}, readFile: () => null }).config;
export const config = configOf('iptables');

/** A run directory that lives as long as it is kept. */
export class MemoryMark implements FlushMark {
  #request: string | null = null;

  read(): string | null {
    return this.#request;
  }

  write(request: string): void {
    this.#request = request;
  }
}

/** The ports with some of their functions replaced. */
export function override<T extends object>(target: T, replaced: Partial<T>): T {
  return new Proxy(target, {
    get(_, key) {
      const source = key in replaced ? replaced : target;
      const value = Reflect.get(source, key, source);
      return typeof value === 'function' ? value.bind(source) : value;
    },
  });
}

export class Rig {
  readonly linux = new FakeLinux();
  readonly store = new MemoryStore();
  readonly clock = new ManualClock();
  readonly agent: Agent;
  readonly #flushMark = new MemoryMark();
  readonly #make: () => Agent;

  constructor(
    wrap: (linux: FakeLinux, store: MemoryStore) => { linux: Linux; store: Store } = (linux, store) => ({
      linux,
      store,
    }),
    dataplane = 'iptables',
  ) {
    const ports = wrap(this.linux, this.store);
    this.linux.addNetns('/ns/a');
    this.#make = () =>
      new Agent({
        config: configOf(dataplane),
        version: '0',
        bootId: 'boot',
        clock: this.clock,
        logger: silent,
        bird: new FakeBird(),
        releaseDelegate: async () => undefined,
        clusterTrouble: () => null,
        diskRefusal: () => null,
        flushMark: this.#flushMark,
        ...ports,
      });
    this.agent = this.#make();
  }

  /** Another agent on the same store, kernel and run directory. */
  successor(): Agent {
    return this.#make();
  }

  async start(): Promise<Attachments> {
    const pools = {
      four: { cidr: '10.0.0.0/24', blockSize: 26 },
      six: { cidr: 'fd00::/64', blockSize: 122 },
    };
    for (const [name, pool] of Object.entries(pools)) {
      const value = poolSchema.parse({ ...pool, cooldownSeconds: 30 }) as unknown as Json;
      await this.store.transact([], [{ kind: 'put', key: `pools/${name}`, value }]);
    }
    return this.agent.start();
  }

  async keys(prefix: string): Promise<string[]> {
    return (await this.store.list(prefix)).entries.map(({ key }) => key);
  }
}

export const request = (containerId: string, netns = '/ns/a'): AttachRequest => ({
  network: 'edge',
  containerId,
  interface: 'eth0',
  netns: { open: netns, path: netns },
  profiles: ['web'],
  pools: [],
  addresses: [],
  mac: null,
  mtuBytes: 0,
  owner: null,
  reservation: null,
  onRelease: 'delete',
  retainSeconds: null,
  labels: {},
  extraSources: [],
  macvlan: null,
  foreignIpam: null,
  foreignLink: null,
  rateLimits: null,
  attachedBy: 'runtime',
});
