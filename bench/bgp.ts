/**
 * `make bench-bgp`: what routes between hosts cost.
 *
 * In: names of parts (all but `mesh` if none: that takes minutes); a finished build; runs in scripts/sandbox. Out: tables. Never: a
 * figure that was not measured in this run, a ratio whose two sides were not measured in turns.
 */
import { benchFirstPing } from './bgp-first-ping.ts';
import { benchMesh } from './bgp-mesh.ts';
import { benchRoutes } from './bgp-routes.ts';
import { benchSync } from './bgp-sync.ts';

const parts: Readonly<Record<string, () => Promise<void>>> = {
  sync: benchSync,
  ping: benchFirstPing,
  routes: benchRoutes,
  mesh: benchMesh,
};

const asked = process.argv.slice(2);
const wanted = asked.length > 0 ? asked : ['sync', 'ping', 'routes'];
const unknown = wanted.filter((name) => !(name in parts));
if (unknown.length > 0)
  throw new Error(`no part ${unknown.join(', ')}; there are ${Object.keys(parts).join(', ')}`);
for (const name of wanted) await parts[name]!();
