/**
 * Networks by name, as a runtime finds them: files in a directory, each a list of plugins or a single one.
 *
 * In: a directory, a name. Out: the configuration of our plugin as a runtime would hand it over. Never: a network with plugins of
 * others, which would not be called.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { NetctlError } from '../lib/errors.ts';

const pluginSchema = z.looseObject({ type: z.string() });
const fileSchema = z.looseObject({
  cniVersion: z.string().default('0.1.0'),
  name: z.string(),
  type: z.string().optional(),
  plugins: z.array(pluginSchema).optional(),
});

/** @throws NOT_FOUND, INVALID naming the file */
export function networkConfig(directory: string, network: string): Record<string, unknown> {
  const names: string[] = [];
  for (const file of filesOf(directory)) {
    const parsed = fileSchema.safeParse(jsonOrNull(join(directory, file)));
    if (!parsed.success) continue;
    const { plugins, ...whole } = parsed.data;
    names.push(whole.name);
    if (whole.name !== network) continue;
    const [plugin, ...others] = plugins ?? [whole];
    const stranger = [plugin, ...others].find((each) => each?.type !== 'netctl');
    if (plugin === undefined || stranger !== undefined || others.length > 0)
      throw new NetctlError(
        'INVALID',
        `network ${network} (${file}): expected the plugin netctl alone, not ${[plugin, ...others].map((each) => each?.type).join(', ')}`,
        { network },
      );
    return { ...plugin, cniVersion: whole.cniVersion, name: network };
  }
  throw new NetctlError(
    'NOT_FOUND',
    `there is no network ${network} in ${directory}: ${names.length === 0 ? 'it has none' : `it has ${names.join(', ')}`}`,
    { network },
  );
}

/** In the order in which runtimes read them. */
function filesOf(directory: string): string[] {
  try {
    return readdirSync(directory)
      .filter((file) => /\.(conflist|conf|json)$/.test(file))
      .sort();
  } catch {
    return [];
  }
}

/** What cannot be read is no network; a runtime says so where it matters. */
function jsonOrNull(path: string): unknown {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch {
    return null;
  }
}
