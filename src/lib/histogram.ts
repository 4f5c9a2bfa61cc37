/**
 * Counts of durations by label, and the text form in which Prometheus reads them (exposition format 0.0.4).
 *
 * In: durations. Out: lines of text. Never: a label value that is not escaped; an unbounded number of labels (the caller bounds them).
 */

const bounds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10] as const;

interface Series {
  readonly buckets: number[];
  count: number;
  sum: number;
}

export class Histogram {
  readonly #series = new Map<string, Series>();
  readonly #label: string;

  /** @param label name of the one label */
  constructor(label: string) {
    this.#label = label;
  }

  observe(label: string, seconds: number): void {
    let series = this.#series.get(label);
    if (series === undefined) {
      series = { buckets: bounds.map(() => 0), count: 0, sum: 0 };
      this.#series.set(label, series);
    }
    series.count++;
    series.sum += seconds;
    bounds.forEach((bound, i) => {
      if (seconds <= bound) series.buckets[i]!++;
    });
  }

  lines(name: string, help: string): string[] {
    const body = [...this.#series].flatMap(([label, { buckets, count, sum }]) => {
      const labels = (le: string) => `{${this.#label}="${escaped(label)}",le="${le}"}`;
      const own = `{${this.#label}="${escaped(label)}"}`;
      return [
        ...bounds.map((bound, i) => `${name}_bucket${labels(String(bound))} ${buckets[i]}`),
        `${name}_bucket${labels('+Inf')} ${count}`,
        `${name}_sum${own} ${sum}`,
        `${name}_count${own} ${count}`,
      ];
    });
    return [`# HELP ${name} ${help}`, `# TYPE ${name} histogram`, ...body];
  }
}

export type Sample = readonly [labels: Readonly<Record<string, string>>, value: number];

export function metricLines(
  name: string,
  type: 'counter' | 'gauge',
  help: string,
  samples: readonly Sample[],
): string[] {
  const body = samples.map(([labels, value]) => {
    const pairs = Object.entries(labels).map(([label, text]) => `${label}="${escaped(text)}"`);
    return `${name}${pairs.length === 0 ? '' : `{${pairs.join(',')}}`} ${value}`;
  });
  return [`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`, ...body];
}

function escaped(text: string): string {
  return text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
}
