/**
 * Filters in the kernel for sockets that are told of much and need little.
 *
 * In: what is to pass. Out: a program for native.attachFilter. Never: the loop woken for what nobody reads.
 */

/** A number of 32 bits in network order, in an attribute of the type (below 256) that begins at `at`. */
export interface Word {
  readonly at: number;
  readonly attribute: number;
  readonly value: number;
}

interface Instruction {
  readonly code: number;
  /** Instructions to leave out. */
  readonly ifTrue?: number;
  readonly ifFalse?: number;
  readonly k: number;
}

const TAKE: Instruction = { code: 0x06, k: 0xffffffff };
const DROP: Instruction = { code: 0x06, k: 0 };

/**
 * Messages of one type. What the kernel puts into one packet is judged by its first message.
 * @param unless messages with this word do not pass
 */
export function onlyMessages(type: number, unless: Word | null = null): Buffer {
  if (unless === null) return assemble([...isType(type, 0, 1), TAKE, DROP]);
  return assemble([
    ...isType(type, 0, 5),
    halfWord(unless.at + 2),
    isEqual(swapped(unless.attribute), 0, 2),
    { code: 0x20, k: unless.at + 4 }, // load the word
    isEqual(unless.value, 1, 0),
    TAKE,
    DROP,
  ]);
}

/** All but messages of one type about links with the given index or a higher one; of it, only the highest byte counts. */
export function exceptLinks(type: number, index: number): Buffer {
  return assemble([
    ...isType(type, 0, 2),
    { code: 0x30, k: 23 }, // load the byte at 23: the highest of ifi_index
    { code: 0x35, ifTrue: 1, k: index >>> 24 }, // as high, or higher?
    TAKE,
    DROP,
  ]);
}

const halfWord = (at: number): Instruction => ({ code: 0x28, k: at });
const isEqual = (k: number, ifTrue: number, ifFalse: number): Instruction => ({
  code: 0x15,
  ifTrue,
  ifFalse,
  k,
});
/** nlmsg_type stands at 4. */
const isType = (type: number, ifTrue: number, ifFalse: number): Instruction[] => [
  halfWord(4),
  isEqual(swapped(type), ifTrue, ifFalse),
];

/** BPF reads numbers in network order; types stand in the host's. */
const swapped = (type: number): number => ((type & 0xff) << 8) | (type >> 8);

/** Classic BPF, 8 bytes an instruction (linux/filter.h). */
function assemble(instructions: readonly Instruction[]): Buffer {
  const program = Buffer.alloc(instructions.length * 8);
  for (const [i, { code, ifTrue = 0, ifFalse = 0, k }] of instructions.entries()) {
    program.writeUInt16LE(code, i * 8);
    program.writeUInt8(ifTrue, i * 8 + 2);
    program.writeUInt8(ifFalse, i * 8 + 3);
    program.writeUInt32LE(k, i * 8 + 4);
  }
  return program;
}
