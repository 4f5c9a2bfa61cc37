/** BGP in the agent, on a BIRD and a kernel in memory: when BIRD is told what. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Bgp } from '../../../src/agent/bgp.ts';
import { loadConfig } from '../../../src/agent/config.ts';
import { FakeBird } from '../../../src/linux/fake/bird.ts';
import { FakeLinux } from '../../../src/linux/fake/linux.ts';
import { bgpPeerSchema } from '../../../src/model/bgp.ts';
import { type Node, nodeSchema, poolSchema } from '../../../src/model/records.ts';
import { ManualClock } from '../store/manual-clock.ts';

const silent = { debug() {}, info() {}, warn() {}, error() {} };
const startedAt = '2026-01-02T03:04:05.000Z';
const nodeAt = (i: number, more: object = {}): Node =>
  nodeSchema.parse({
    address4: `192.0.2.${i}`,
    address6: null,
    version: '0',
    startedAt,
    bgpPort: 179,
    ...more,
  });

class Rig {
  readonly bird = new FakeBird();
  readonly clock = new ManualClock();
  readonly bgp: Bgp;

  constructor(flags: readonly string[] = []) {
    const argv = ['--node', 'n1', '--address', '192.0.2.1', ...flags];
    const { config } = loadConfig({ argv, env: {}, readFile: () => null });
    this.bgp = new Bgp({
      config,
      bird: this.bird,
      linux: new FakeLinux(),
      clock: this.clock,
      logger: silent,
    });
    this.bgp.onPool('four', poolSchema.parse({ cidr: '10.65.0.0/16', blockSize: 26 }));
  }

  /** What was gathered is carried out. */
  async settle(): Promise<void> {
    this.clock.advance(20);
    await this.bgp.settled();
  }

  get peers(): string[] {
    return Array.from((this.bird.process?.text ?? '').matchAll(/neighbor (\S+)/g), ([, peer]) => peer!);
  }
}

describe('what BIRD is told', () => {
  test('nothing before the picture is complete; then many records at once are one configuration', async () => {
    const rig = new Rig();
    for (let i = 1; i <= 10; i++) rig.bgp.onNode(`n${i}`, nodeAt(i));
    await rig.settle();
    assert.equal(rig.bird.process, null);
    await rig.bgp.start();
    await rig.bgp.settled();
    assert.equal(rig.peers.length, 9);
    for (let i = 11; i <= 20; i++) rig.bgp.onNode(`n${i}`, nodeAt(i));
    await rig.settle();
    assert.equal(rig.peers.length, 19);
    assert.equal(rig.bird.commands.filter((command) => command === 'configure').length, 1);
  });

  test('a node whose record is not there yet leaves a BIRD alone that runs', async () => {
    const before = new Rig();
    before.bgp.onNode('n1', nodeAt(1));
    before.bgp.onNode('n2', nodeAt(2));
    await before.bgp.start();
    await before.bgp.settled();
    const text = before.bird.process?.text ?? '';
    assert.match(text, /neighbor 192\.0\.2\.2/);
    await before.bgp.stop();
    assert.notEqual(before.bird.process, null, 'BIRD goes on without the agent');

    const rig = new Rig();
    await rig.bird.install(text);
    rig.bird.runsWith(text);
    await rig.bgp.start();
    await rig.bgp.settled();
    assert.equal(rig.bird.process?.text, text);
    assert.deepEqual(rig.bird.commands, []);
  });

  test('a node that was removed has no peers any more', async () => {
    const rig = new Rig();
    for (const i of [1, 2]) rig.bgp.onNode(`n${i}`, nodeAt(i));
    await rig.bgp.start();
    await rig.bgp.settled();
    assert.equal(rig.peers.length, 1);
    rig.bgp.onNode('n1', null);
    await rig.settle();
    assert.equal(rig.peers.length, 0);
  });

  test('flags of this start hold before the record of the node says so', async () => {
    const rig = new Rig(['--bgp-port', '1790', '--as-number', '64999']);
    rig.bgp.onNode('n1', nodeAt(1, { bgpPort: null }));
    rig.bgp.onNode('n2', nodeAt(2));
    await rig.bgp.start();
    await rig.bgp.settled();
    assert.match(rig.bird.process?.text ?? '', /local 192\.0\.2\.1 port 1790 as 64999;/);
  });

  test('a filter that cannot be read passes nothing; other BIRDs are a problem', async () => {
    const rig = new Rig();
    rig.bird.foreign = [123];
    rig.bgp.onNode('n1', nodeAt(1));
    rig.bgp.onFilter('broken', 'broken');
    rig.bgp.onPeer('tor', {
      ...bgpPeerSchema.parse({ address: '192.0.2.9', asNumber: 65000 }),
      importFilters: ['broken'],
    });
    await rig.bgp.start();
    await rig.bgp.settled();
    const status = await rig.bgp.status();
    assert.match(
      status?.problems.join() ?? '',
      /broken cannot be read.*another BIRD runs here \(process 123\)/,
    );
    assert.deepEqual(
      status?.sessions.map(({ peer, name, state }) => [peer, name, state]),
      [['192.0.2.9', 'tor', 'Established']],
    );
  });

  test('switched off: what runs is ended, and the status has nothing', async () => {
    const rig = new Rig(['--no-bgp']);
    rig.bird.runsWith('define netctl_stamp = "x";');
    rig.bgp.onNode('n1', nodeAt(1));
    await rig.bgp.start();
    await rig.bgp.settled();
    assert.equal(rig.bird.process, null);
    assert.equal(await rig.bgp.status(), null);
  });
});
