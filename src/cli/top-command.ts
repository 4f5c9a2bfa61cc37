/**
 * `netctl top`: which endpoints of this node send and receive how much at the moment.
 *
 * In: two readings of the counters. Out: a table sorted by rate, anew every interval. Never: a rate across an interface that was
 * made anew in between (its counters began at nought).
 */
import { setTimeout as pause } from 'node:timers/promises';
import type { CounterItem, CounterList } from '../api/counter-schemas.ts';
import { rateText } from '../model/rate-limits.ts';
import { type Command, UsageError } from './command.ts';
import type { View } from './output.ts';
import { joined } from './table.ts';

interface Flow extends CounterItem {
  readonly inBitsPerSecond: number;
  readonly outBitsPerSecond: number;
  readonly inPacketsPerSecond: number;
  readonly outPacketsPerSecond: number;
}

const bits = (value: number): string => (value < 1 ? '0' : rateText(Math.round(value)));

const view: View<Flow> = {
  kind: 'endpoint',
  name: ({ endpoint }) => endpoint,
  columns: [
    { header: 'ENDPOINT', value: ({ endpoint }) => endpoint },
    { header: 'CONTAINER', value: ({ containerId }) => containerId.slice(0, 13) },
    { header: 'INTERFACE', value: (flow) => flow.interface },
    { header: 'ADDRESSES', value: ({ addresses }) => joined(addresses) },
    { header: 'IN/S', value: ({ inBitsPerSecond }) => bits(inBitsPerSecond), alignRight: true },
    { header: 'OUT/S', value: ({ outBitsPerSecond }) => bits(outBitsPerSecond), alignRight: true },
    { header: 'IN-PKT/S', value: (flow) => Math.round(flow.inPacketsPerSecond), alignRight: true },
    { header: 'OUT-PKT/S', value: (flow) => Math.round(flow.outPacketsPerSecond), alignRight: true },
    { header: 'IN-BYTES', value: ({ inBytes }) => inBytes, alignRight: true, wide: true },
    { header: 'OUT-BYTES', value: ({ outBytes }) => outBytes, alignRight: true, wide: true },
    { header: 'IN-DROPPED', value: ({ inDropped }) => inDropped, alignRight: true, wide: true },
    { header: 'OUT-DROPPED', value: ({ outDropped }) => outDropped, alignRight: true, wide: true },
  ],
};

const orders: Readonly<Record<string, (flow: Flow) => number>> = {
  total: ({ inBitsPerSecond, outBitsPerSecond }) => inBitsPerSecond + outBitsPerSecond,
  in: ({ inBitsPerSecond }) => inBitsPerSecond,
  out: ({ outBitsPerSecond }) => outBitsPerSecond,
};

export const topCommands: readonly Command[] = [
  {
    words: 'top',
    options: {
      once: { type: 'flag', help: 'one table, and end' },
      interval: { type: 'number', value: 'SECONDS', help: 'between two readings (default 1)' },
      sort: { type: 'text', value: 'total|in|out', help: 'by which rate (default total)' },
    },
    help: 'Show how much the endpoints of this node send and receive, busiest first, until Ctrl-C.',
    async run({ args, api, output }) {
      const interval = args.number('interval') ?? 1;
      if (!(interval >= 0.1 && interval <= 3600))
        throw new UsageError(`--interval: "${interval}" is not valid: expected 0.1 to 3600`);
      const sort = args.optionalText('sort') ?? 'total';
      const order = Object.hasOwn(orders, sort) ? orders[sort] : undefined;
      if (order === undefined)
        throw new UsageError(`--sort: "${sort}" is not valid: expected total, in or out`);
      const read = (): Promise<CounterList> => api().send<CounterList>('GET', '/v1/counters');
      for (let before = await read(); ; ) {
        await pause(interval * 1000);
        const now = await read();
        const flows = flowsOf(before, now).sort((a, b) => order(b) - order(a));
        if (output.forPeople && args.flag('once') !== true) output.clear();
        await output.list(view, flows);
        if (args.flag('once') === true) return;
        before = now;
      }
    },
  },
];

function flowsOf(before: CounterList, now: CounterList): Flow[] {
  const earlier = new Map(before.items.map((item) => [item.endpoint, item]));
  const seconds = now.seconds - before.seconds;
  return now.items.map((item) => {
    const old = earlier.get(item.endpoint);
    const rate = (key: 'inBytes' | 'outBytes' | 'inPackets' | 'outPackets'): number =>
      old === undefined || item[key] < old[key] || seconds <= 0 ? 0 : (item[key] - old[key]) / seconds;
    return {
      ...item,
      inBitsPerSecond: 8 * rate('inBytes'),
      outBitsPerSecond: 8 * rate('outBytes'),
      inPacketsPerSecond: rate('inPackets'),
      outPacketsPerSecond: rate('outPackets'),
    };
  });
}
