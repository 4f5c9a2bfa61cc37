/** Two names of host interfaces to which the same index belongs. Found by trying: about one in 40,000 has an index of another one before. */
import { hostInterfaceIndex } from '../../../src/model/attachment.ts';

export function twoOfOneIndex(): [string, string] {
  const names = new Map<number, string>();
  for (let i = 0; ; i++) {
    const name = `nctl${i.toString(16).padStart(11, '0')}`;
    const other = names.get(hostInterfaceIndex(name));
    if (other !== undefined) return [other, name];
    names.set(hostInterfaceIndex(name), name);
  }
}
