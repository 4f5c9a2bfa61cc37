/**
 * A filter in the kernel for sockets that are told of much and need little: messages of one type pass.
 *
 * In: the type. Out: a program for native.attachFilter. Never: the loop woken for what nobody reads.
 */

/**
 * Classic BPF, 8 bytes an instruction (linux/filter.h). It reads numbers in network order, the message's type stands in the host's: hence
 * the swapped constant. What the kernel puts into one packet is judged by its first message.
 */
export function onlyMessages(type: number): Buffer {
  const program = Buffer.alloc(4 * 8);
  const instructions = [
    { code: 0x28, ifTrue: 0, ifFalse: 0, k: 4 }, // load the half-word at 4: nlmsg_type
    { code: 0x15, ifTrue: 0, ifFalse: 1, k: ((type & 0xff) << 8) | (type >> 8) }, // equal?
    { code: 0x06, ifTrue: 0, ifFalse: 0, k: 0xffffffff }, // take all of it
    { code: 0x06, ifTrue: 0, ifFalse: 0, k: 0 }, // drop
  ];
  for (const [i, { code, ifTrue, ifFalse, k }] of instructions.entries()) {
    program.writeUInt16LE(code, i * 8);
    program.writeUInt8(ifTrue, i * 8 + 2);
    program.writeUInt8(ifFalse, i * 8 + 3);
    program.writeUInt32LE(k, i * 8 + 4);
  }
  return program;
}
