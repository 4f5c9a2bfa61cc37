/**
 * From the answer of ADD to the first answered ping from a container of another host; with BIRD alone, from the end of `ip route add`.
 *
 * In: a namespace of the caller's own. Out: a table. Never: a time with the ADD itself in it (that is bench/cni.ts).
 */
import { eventually } from '../lab/run.ts';
import { BarePair, OurPair } from './bgp-pairs.ts';
import { median, pairedRatio, printTable } from './statistics.ts';

const rounds = 25;

export async function benchFirstPing(): Promise<void> {
  const ours = await OurPair.create();
  const bare = await BarePair.create().catch(async (error) => {
    await ours.close();
    throw error;
  });
  try {
    const [one, two] = ours.lab.nodes as [(typeof ours.lab.nodes)[0], (typeof ours.lab.nodes)[0]];
    await two.attach('asker');
    const asker = two.container('asker');
    await bare.one(['ip', 'route', 'add', 'blackhole', '10.65.1.0/26', 'proto', '111']);
    await one.attach('first');
    const times = new Map<string, number[]>();
    const note = async (name: string, ping: () => Promise<unknown>): Promise<void> => {
      const begin = performance.now();
      await eventually('an answer', 10_000, () =>
        ping().then(
          () => true,
          () => false,
        ),
      );
      times.set(name, [...(times.get(name) ?? []), performance.now() - begin]);
    };
    const pingOf = (address: string) => ['ping', '-q', '-c', '1', '-W', '1', address];
    for (let round = 0; round < rounds; round++) {
      for (const [where, args, bareAddress] of [
        ['in an announced block', '', `10.65.1.${round + 1}`],
        ['in a new block', 'NETCTL_POOL=singles', `10.66.1.${round + 1}`],
      ] as const) {
        const mine = async () => {
          const { addresses } = await one.attach(`p${round}${args.length}`, { args });
          const address = addresses.find((each) => each.includes('.'))!;
          await note(`netctl, ${where}`, () => asker.mustExec(pingOf(address)));
          await note(`netctl, ${where}: again`, () => asker.mustExec(pingOf(address)));
        };
        const theirs = async () => {
          await bare.one(['ip', 'address', 'add', `${bareAddress}/32`, 'dev', 'lo']);
          const protocol = args === '' ? '110' : '111';
          await bare.one(['ip', 'route', 'add', `${bareAddress}/32`, 'dev', 'c0', 'proto', protocol]);
          await note(`BIRD alone, ${where}`, () => bare.two(pingOf(bareAddress)));
          await note(`BIRD alone, ${where}: again`, () => bare.two(pingOf(bareAddress)));
        };
        for (const measured of round % 2 === 0 ? [mine, theirs] : [theirs, mine]) await measured();
      }
    }
    console.log(
      `to the first answered ping from another host; ms, median of ${rounds} in turns, ping's start included`,
    );
    printTable([
      ['', 'first', 'again', '× BIRD alone, pair by pair'],
      ...['netctl', 'BIRD alone'].flatMap((who) =>
        ['in an announced block', 'in a new block'].map((where) => {
          const samples = times.get(`${who}, ${where}`)!;
          const ratio = pairedRatio(samples, times.get(`BIRD alone, ${where}`)!).toFixed(3);
          return [
            `${who}, ${where}`,
            median(samples).toFixed(1),
            median(times.get(`${who}, ${where}: again`)!).toFixed(1),
            who === 'netctl' ? ratio : '',
          ];
        }),
      ),
    ]);
  } finally {
    await bare.close();
    await ours.close();
  }
}
