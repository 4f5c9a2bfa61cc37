/**
 * `make bench-policy`: what policy costs the traffic of a host, and what changing it costs.
 *
 * In: names of parts (all if none); a finished build; runs in scripts/sandbox. Out: tables. Never: a figure that was not measured in this
 * run, a ratio whose two sides were not measured in turns.
 */
import { benchChanges } from './policy-changes.ts';
import { benchStore } from './policy-store.ts';
import { benchSync, benchSyncOwnLists } from './policy-sync.ts';
import { benchTraffic } from './policy-traffic.ts';
import { benchWriters } from './policy-writers.ts';

const parts: Readonly<Record<string, () => Promise<void>>> = {
  traffic: benchTraffic,
  changes: benchChanges,
  store: benchStore,
  sync: benchSync,
  'sync-1000': benchSyncOwnLists,
  writers: benchWriters,
};

const wanted = process.argv.slice(2);
const unknown = wanted.filter((name) => !(name in parts));
if (unknown.length > 0)
  throw new Error(`no part ${unknown.join(', ')}; there are ${Object.keys(parts).join(', ')}`);
for (const [name, part] of Object.entries(parts))
  if (wanted.length === 0 || wanted.includes(name)) await part();
