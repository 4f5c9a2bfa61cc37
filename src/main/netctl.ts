/**
 * Entry point of the command line: the process around src/cli/main.ts, and nothing else.
 *
 * In: argv, environment and streams of the process. Out: its exit code. Never: process.exit, which would cut off output that is
 * still on its way.
 */
import manifest from '../../package.json' with { type: 'json' };
import { main } from '../cli/main.ts';

const lab = async () => (await import('../../lab/control.ts')).labControl;

void main(process.argv.slice(2), process.env, process, manifest.version, lab).then((code) => {
  process.exitCode = code;
});
