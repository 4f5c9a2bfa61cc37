/** Figures from samples, for the benchmarks (pure). Never: an average, which one bad moment moves. */

/** The value below which that share of the samples lies (nearest rank). */
export function quantile(samples: readonly number[], share: number): number {
  const sorted = samples.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN;
}

export const median = (samples: readonly number[]): number => quantile(samples, 0.5);

/** Median of the ratios pair by pair: what else the machine did at the time of a pair fell on both. */
export function pairedRatio(ours: readonly number[], theirs: readonly number[]): number {
  return quantile(
    ours.map((value, i) => value / theirs[i]!),
    0.5,
  );
}

/** Columns side by side, the first one left, the others right. */
export function printTable(rows: readonly (readonly string[])[]): void {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  for (const row of rows) {
    const cells = row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)));
    console.log(`  ${cells.join('   ').trimEnd()}`);
  }
  console.log();
}
