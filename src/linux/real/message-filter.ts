/**
 * A filter in the kernel for sockets that are told of much and need little: messages of one type pass, or those of them that do not have
 * a word.
 *
 * In: the type, the word. Out: a program for native.attachFilter. Never: the loop woken for what nobody reads.
 */

/** A number of 32 bits in network order, in an attribute of the type (below 256) that begins at `at`. */
export interface Word {
  readonly at: number;
  readonly attribute: number;
  readonly value: number;
}

const LOAD_HALF = 0x28;
const LOAD_WORD = 0x20;
const IF_EQUAL = 0x15;
const RETURN = 0x06;

/**
 * Classic BPF, 8 bytes an instruction (linux/filter.h). It reads numbers in network order, types stand in the host's: hence
 * the swapped constants. What the kernel puts into one packet is judged by its first message.
 * @param unless messages with this word do not pass
 */
export function onlyMessages(type: number, unless: Word | null = null): Buffer {
  const drop = { code: RETURN, ifTrue: 0, ifFalse: 0, k: 0 };
  const take = { ...drop, k: 0xffffffff };
  const load = (code: number, k: number) => ({ code, ifTrue: 0, ifFalse: 0, k });
  const isType = (ifTrue: number, ifFalse: number, k: number) => ({
    code: IF_EQUAL,
    ifTrue,
    ifFalse,
    k: swapped(k),
  });
  const instructions =
    unless === null
      ? [load(LOAD_HALF, 4), isType(0, 1, type), take, drop]
      : [
          ...[load(LOAD_HALF, 4), isType(0, 5, type)],
          ...[load(LOAD_HALF, unless.at + 2), isType(0, 2, unless.attribute)],
          ...[load(LOAD_WORD, unless.at + 4), { code: IF_EQUAL, ifTrue: 1, ifFalse: 0, k: unless.value }],
          ...[take, drop],
        ];
  const program = Buffer.alloc(instructions.length * 8);
  for (const [i, { code, ifTrue, ifFalse, k }] of instructions.entries()) {
    program.writeUInt16LE(code, i * 8);
    program.writeUInt8(ifTrue, i * 8 + 2);
    program.writeUInt8(ifFalse, i * 8 + 3);
    program.writeUInt32LE(k, i * 8 + 4);
  }
  return program;
}

function swapped(half: number): number {
  return ((half & 0xff) << 8) | (half >> 8);
}
