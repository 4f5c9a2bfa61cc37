/** The reconciler of BGP on a BIRD in memory: every way in which the real one can be found, and fail. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { compileBgp } from '../../../src/bgp/compile.ts';
import type { BgpConfig, BgpNode } from '../../../src/bgp/config.ts';
import { renderBird, stampOf } from '../../../src/bgp/render.ts';
import { BgpReconciler } from '../../../src/dataplane/bgp-reconciler.ts';
import { FakeBird } from '../../../src/linux/fake/bird.ts';
import type { RouteInfo } from '../../../src/linux/ports.ts';
import { bgpSettingsSchema } from '../../../src/model/bgp.ts';
import type { Address, Cidr } from '../../../src/model/ip.ts';
import { ManualClock } from '../store/manual-clock.ts';

/** This node with as many others in the mesh. */
function configOf(others: number, settings: { asNumber?: number } = {}): BgpConfig {
  const node = (i: number): BgpNode => ({
    address4: `192.0.2.${i}` as Address,
    address6: null,
    asNumber: null,
    labels: {},
    routeReflectorClusterId: null,
    bgpPort: 179,
  });
  return compileBgp({
    node: 'n1',
    nodes: new Map(Array.from({ length: others + 1 }, (_, i) => [`n${i + 1}`, node(i + 1)])),
    peers: new Map(),
    filters: new Map(),
    settings: bgpSettingsSchema.parse(settings),
    pools: ['10.65.0.0/16' as Cidr],
    isOnLink: () => true,
  });
}

class Rig {
  readonly bird = new FakeBird();
  readonly clock = new ManualClock();
  readonly logged: string[] = [];
  /** What BIRD has in the kernel. */
  birdRoutes: RouteInfo[] = [];
  readonly reconciler: BgpReconciler;

  constructor() {
    const log = (_: object, message: string) => void this.logged.push(message);
    this.reconciler = new BgpReconciler({
      bird: this.bird,
      host: { routes: async (filter) => (filter?.protocol === 12 ? this.birdRoutes : []) },
      clock: this.clock,
      logger: { debug: log, info: log, warn: log, error: log },
    });
  }

  async want(config: BgpConfig | null): Promise<void> {
    this.reconciler.want(config);
    await this.reconciler.idle();
  }

  async pass(milliseconds: number): Promise<void> {
    this.clock.advance(milliseconds);
    await this.reconciler.idle();
  }

  get text(): string {
    return this.bird.process?.text ?? '';
  }

  get recovers(): boolean | undefined {
    return this.bird.process?.recover;
  }

  get reloads(): number {
    return this.bird.commands.filter((command) => command === 'configure').length;
  }
}

const route = {
  destination: '10.65.1.0/26',
  type: 'unicast',
  linkIndex: 2,
  gateway: null,
  protocol: 12,
} as RouteInfo;

describe('a BIRD that does not run', () => {
  test('is started on the configuration, once there is a peer', async () => {
    const rig = new Rig();
    await rig.want(configOf(0));
    assert.equal(rig.bird.process, null);
    assert.equal(rig.reconciler.state.inSync, true);
    await rig.want(configOf(1));
    assert.equal(rig.text, renderBird(configOf(1)));
    assert.equal(rig.recovers, false);
    assert.deepEqual(
      { ...rig.reconciler.state, wanted: null },
      {
        wanted: null,
        version: '2.0.12',
        error: null,
        inSync: true,
        differences: [],
      },
    );
  });

  test('recovers where routes of a life before are in the kernel', async () => {
    const rig = new Rig();
    rig.birdRoutes = [route];
    await rig.want(configOf(1));
    assert.equal(rig.recovers, true);
  });

  test('is waited for where it is not installed, and the package is named', async () => {
    const rig = new Rig();
    rig.bird.programVersion = null;
    await rig.want(configOf(1));
    assert.match(rig.reconciler.state.error ?? '', /bird2/);
    assert.equal(rig.reconciler.state.inSync, false);
    rig.bird.programVersion = '2.0.12';
    await rig.pass(100);
    assert.equal(rig.reconciler.state.inSync, true);
  });

  test('is not started where it is of another age', async () => {
    const rig = new Rig();
    rig.bird.programVersion = '1.6.8';
    await rig.want(configOf(1));
    assert.match(rig.reconciler.state.error ?? '', /1\.6\.8 is too old/);
    assert.equal(rig.bird.process, null);
  });

  test('is not missed by a host alone', async () => {
    const rig = new Rig();
    rig.bird.programVersion = null;
    await rig.want(configOf(0));
    assert.equal(rig.reconciler.state.error, null);
  });
});

describe('a BIRD that runs', () => {
  test('is adopted as it is where it has the right configuration', async () => {
    const rig = new Rig();
    const text = renderBird(configOf(2));
    await rig.bird.install(text);
    rig.bird.runsWith(text);
    await rig.want(configOf(2));
    assert.equal(rig.reconciler.state.inSync, true);
    assert.deepEqual(rig.bird.commands, ['echo all']);
  });

  test('is told to read what it has missed', async () => {
    const rig = new Rig();
    await rig.bird.install(renderBird(configOf(2)));
    rig.bird.runsWith(renderBird(configOf(1)));
    await rig.want(configOf(2));
    assert.equal(rig.reloads, 1);
    assert.equal(stampOf(rig.text), stampOf(renderBird(configOf(2))));
  });

  test('gets each configuration once; the same again is nothing', async () => {
    const rig = new Rig();
    await rig.want(configOf(1));
    await rig.want(configOf(2));
    await rig.want(configOf(2));
    rig.reconciler.resync();
    await rig.reconciler.idle();
    assert.equal(rig.reloads, 1);
  });

  test('a reload that got lost is done again', async () => {
    const rig = new Rig();
    await rig.want(configOf(1));
    rig.bird.missesReload = true;
    await rig.want(configOf(2));
    assert.equal(rig.reconciler.state.inSync, false);
    assert.match(rig.reconciler.state.error ?? '', /does not have the configuration/);
    await rig.pass(100);
    assert.equal(rig.text, renderBird(configOf(2)));
    assert.equal(rig.reconciler.state.inSync, true);
  });

  test('a configuration that it refuses leaves the one before, and says why', async () => {
    const rig = new Rig();
    await rig.want(configOf(1));
    rig.bird.rejection = 'line 7, syntax error';
    await rig.want(configOf(2));
    assert.equal(rig.text, renderBird(configOf(1)));
    assert.match(rig.reconciler.state.error ?? '', /refuses.*line 7, syntax error/);
    assert.equal(rig.reconciler.state.inSync, false);
    await rig.want(configOf(3));
    assert.equal(rig.text, renderBird(configOf(3)));
    assert.equal(rig.reconciler.state.error, null);
  });

  test('sessions that do not agree are named, and looked at again until they do', async () => {
    const rig = new Rig();
    await rig.bird.install(renderBird(configOf(1)));
    // The right stamp, and yet a session less.
    rig.bird.runsWith(renderBird(configOf(1)).replace(/^protocol bgp .*$/m, ''));
    await rig.want(configOf(1));
    assert.match(rig.reconciler.state.differences.join(), /192\.0\.2\.2 .*does not have it/);
    assert.equal(rig.reconciler.state.inSync, false);
    rig.bird.crash();
    await rig.pass(30_000);
    assert.equal(rig.reconciler.state.inSync, true);
  });

  test('outlives the reconciler', async () => {
    const rig = new Rig();
    await rig.want(configOf(1));
    await rig.reconciler.close();
    assert.notEqual(rig.bird.process, null);
    rig.bird.crash();
    await rig.pass(60_000);
    assert.equal(rig.bird.process, null, 'nobody is there to start it');
  });

  test('ends in order when BGP is switched off: sessions, kernel, process', async () => {
    const rig = new Rig();
    await rig.want(configOf(1));
    await rig.want(null);
    assert.match(rig.bird.commands.join('; '), /^echo all; disable "mesh_\w+"; down$/);
    assert.equal(rig.bird.process, null);
    await rig.pass(60_000);
    assert.equal(rig.bird.process, null);
  });
});

describe('a BIRD that dies', () => {
  test('is back at once, and recovers', async () => {
    const rig = new Rig();
    await rig.want(configOf(1));
    await rig.pass(20_000);
    rig.birdRoutes = [route];
    rig.bird.crash();
    await rig.reconciler.idle();
    assert.equal(rig.recovers, true);
    assert.equal(rig.reconciler.state.inSync, true);
  });

  test('again and again is given more and more time', async () => {
    const rig = new Rig();
    await rig.want(configOf(1));
    const waits: number[] = [];
    for (let i = 0; i < 12; i++) {
      rig.bird.crash();
      assert.equal(rig.bird.process, null);
      const [wait = 0] = rig.clock.waiting();
      waits.push(wait);
      await rig.pass(wait);
      assert.notEqual(rig.bird.process, null);
    }
    assert.ok(
      waits.every((wait, i) => i === 0 || wait >= waits[i - 1]!),
      String(waits),
    );
    assert.equal(waits.at(-1), 30_000);
  });
});

describe('a peer', () => {
  async function withSession() {
    const rig = new Rig();
    await rig.want(configOf(1));
    const name = /^protocol bgp (\w+)/m.exec(rig.text)![1]!;
    return {
      rig,
      name,
      restarts: () => rig.bird.commands.filter((command) => command.startsWith('restart')),
    };
  }

  test('whose host dies loses its routes at once', async () => {
    const { rig, name, restarts } = await withSession();
    rig.bird.logs(`${name}: BFD session down`);
    await rig.reconciler.idle();
    assert.deepEqual(restarts(), [`restart "${name}"`]);
  });

  test('whose BIRD restarts keeps them, whether BFD notices before or after it is back', async () => {
    for (const isBack of [true, false]) {
      const { rig, name, restarts } = await withSession();
      rig.bird.logs(`${name}: Connection closed`);
      rig.bird.logs(`${name}: State changed to start`);
      rig.clock.advance(500);
      if (isBack) rig.bird.logs(`${name}: State changed to up`);
      rig.clock.advance(500);
      rig.bird.logs(`${name}: BFD session down`);
      assert.deepEqual(restarts(), []);
      if (!isBack) continue;
      rig.bird.logs(`${name}: State changed to start`);
      rig.bird.logs(`${name}: State changed to up`);
      rig.clock.advance(5000);
      rig.bird.logs(`${name}: BFD session down`);
      assert.deepEqual(restarts(), [`restart "${name}"`], 'later it means the host');
    }
  });
});
