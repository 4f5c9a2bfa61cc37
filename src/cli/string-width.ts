/**
 * Stands in for the package `string-width` in the bundle (an esbuild alias): yargs loads it at start-up, and its Unicode tables
 * cost more than everything else that the command line does.
 *
 * In: text. Out: how many columns it takes if every code point takes one. Never: needed for anything but yargs' own help, which
 * netctl does not print.
 */
export default function stringWidth(text: string): number {
  return [...text].length;
}
