/**
 * Aligned tables for people, as kubectl prints them.
 *
 * In: columns and items. Out: lines. Never: trailing blanks, a control character from a record on somebody's terminal.
 */

export interface Column<T> {
  readonly header: string;
  readonly value: (item: T) => string | number | null;
  /** Only with `-o wide`. */
  readonly wide?: boolean;
  readonly alignRight?: boolean;
}

const GAP = '   ';

/** The header and one line per item; `paintHeader` adds colour after the widths are known. */
export function formatTable<T>(
  items: readonly T[],
  columns: readonly Column<T>[],
  paintHeader: (text: string) => string = (text) => text,
): string[] {
  const rows = items.map((item) => columns.map(({ value }) => cell(value(item))));
  const widths = columns.map(({ header }, i) =>
    Math.max(header.length, ...rows.map((row) => row[i]?.length ?? 0)),
  );
  const line = (cells: readonly string[]): string =>
    cells
      .map((text, i) =>
        columns[i]?.alignRight ? text.padStart(widths[i] ?? 0) : text.padEnd(widths[i] ?? 0),
      )
      .join(GAP)
      .trimEnd();
  return [paintHeader(line(columns.map(({ header }) => header))), ...rows.map(line)];
}

/** `Key:   value` lines with the values aligned. */
export function formatFields(fields: readonly (readonly [string, string | number | null])[]): string[] {
  const width = Math.max(0, ...fields.map(([key]) => key.length)) + 1;
  return fields.map(([key, value]) => `${`${key}:`.padEnd(width)}  ${cell(value)}`.trimEnd());
}

/** Joined, or `-` for none. */
export function joined(values: readonly string[], separator = ','): string {
  return values.length === 0 ? '-' : values.join(separator);
}

function cell(value: string | number | null): string {
  if (value === null || value === '') return '-';
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not reach a terminal
  return String(value).replace(/[\u0000-\u001f\u007f-\u009f]/g, '?');
}
