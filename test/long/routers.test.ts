/** FRR and GoBGP in the middle: what BIRD says to others is understood by those who were not written by the same people. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Lab } from '../../lab/lab.ts';
import { outside } from '../../lab/network.ts';
import { eventually, run } from '../../lab/run.ts';

describe('routers of others', () => {
  for (const router of ['frr', 'gobgp'] as const) {
    test(`${router} takes blocks and gives the way to the world outside`, { timeout: 120_000 }, async () => {
      const lab = await Lab.up({ name: `o${process.pid}`, nodes: 2, router });
      try {
        const { addresses } = await lab.node('node1').attach('web');
        for (const address of [outside.address4, outside.address6]) {
          await eventually(`the way to ${address}`, 10_000, async () =>
            / via /.test(await lab.node('node2').mustExec(['ip', 'route', 'get', address])),
          );
        }
        const family = (address: string) => (address.includes(':') ? 'ipv6' : 'ipv4');
        const asked = (address: string) =>
          router === 'frr'
            ? ['vtysh', '--vty_socket', '/run/lab', '-c', `show bgp ${family(address)} unicast ${address}`]
            : ['gobgp', 'global', 'rib', address, '-a', family(address)];
        for (const address of addresses) {
          const { address: next, address6 } = lab.node('node1');
          const nextHop = address.includes(':') ? address6 : next;
          let told = '';
          await eventually(`${router} knows ${address}`, 10_000, async () => {
            told = await tell(lab, asked(address));
            return told.includes(nextHop);
          }).catch((error: Error) => assert.fail(`${error.message}: ${told}`));
        }
        // GoBGP forwards nothing.
        if (router === 'gobgp') return;
        for (const address of [outside.address4, outside.address6]) {
          const { code, stdout } = await lab
            .node('node1')
            .container('web')
            .exec(['ping', '-c1', '-W2', address]);
          assert.equal(code, 0, stdout);
        }
      } finally {
        await lab.down();
      }
    });
  }
});

async function tell(lab: Lab, command: readonly string[]): Promise<string> {
  const { stdout, stderr } = await run(lab.router.command(command));
  return stdout + stderr;
}
