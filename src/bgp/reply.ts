/**
 * Replies of BIRD's control socket, line by line (BIRD's `doc/reply_codes`).
 *
 * In: a whole reply as it came, lines `1002-text`, ` text` (of the code before) and `0000 text` (the last). Out: lines with their codes;
 * the outcome of `configure`. Never: a failure taken for a success because its code is not known.
 */
import type { ConfigureResult, ReplyLine } from './running.ts';

export function readReply(reply: string): ReplyLine[] {
  const lines: ReplyLine[] = [];
  for (const line of reply.split('\n')) {
    const [, digits, text] = /^(\d{4})[- ](.*)$/.exec(line) ?? [];
    if (digits !== undefined) lines.push({ code: Number(digits), text: text ?? '' });
    else if (line.startsWith(' ') && lines.length > 0)
      lines.push({ code: lines.at(-1)!.code, text: line.slice(1) });
  }
  return lines;
}

/** Codes of `configure` that mean that BIRD has, or will have in a moment, what the file says. */
const accepted: readonly number[] = [3, 4, 20];

/** Of `configure` and `configure check`. */
export function parseConfigureReply(reply: string): ConfigureResult {
  const last = readReply(reply).at(-1);
  return {
    accepted: last !== undefined && accepted.includes(last.code),
    message: last?.text.trim() ?? 'no answer',
  };
}
