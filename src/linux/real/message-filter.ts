/**
 * Filters in the kernel for sockets that are told of much and need little.
 *
 * In: what is to pass. Out: a program for native.attachFilter. Never: the loop woken for what nobody reads.
 */

interface Instruction {
  readonly code: number;
  readonly ifTrue?: number;
  readonly ifFalse?: number;
  readonly k: number;
}

const TAKE_ALL: Instruction = { code: 0x06, k: 0xffffffff };
const DROP: Instruction = { code: 0x06, k: 0 };

/**
 * Messages of one type. BPF reads numbers in network order, the message's type stands in the host's: hence the swapped constant. What the
 * kernel puts into one packet is judged by its first message.
 */
export function onlyMessages(type: number): Buffer {
  return assemble([
    { code: 0x28, k: 4 }, // load the half-word at 4: nlmsg_type
    { code: 0x15, ifFalse: 1, k: swapped(type) }, // equal?
    TAKE_ALL,
    DROP,
  ]);
}

/** All but messages of one type about links with the given index or a higher one; of it, only the highest byte counts. */
export function exceptLinks(type: number, index: number): Buffer {
  return assemble([
    { code: 0x28, k: 4 },
    { code: 0x15, ifFalse: 2, k: swapped(type) },
    { code: 0x30, k: 23 }, // load the byte at 23: the highest of ifi_index
    { code: 0x35, ifTrue: 1, k: index >>> 24 }, // as high, or higher?
    TAKE_ALL,
    DROP,
  ]);
}

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
