/**
 * The mark that every rule of ours carries in its comment: `netctl:<hash16> <readable text>`.
 *
 * In: the rendered rules of a chain. Out: one hash each, over the chain's name and all rules up to that one, so that a rule
 * that was changed, moved or lost shows. Never: a hash that depends on what the kernel prints back.
 */
import { hash as hashOnce } from 'node:crypto';

/** @param rules as rendered, without their comments' marks; in order */
export function chainHashes(chain: string, rules: readonly string[]): string[] {
  let hash = digest(chain);
  return rules.map((rule) => {
    hash = digest(`${hash}\n${rule}`);
    return hash;
  });
}

/** The comment of a rule: at most 255 bytes, printable ASCII without quotes and backslashes. */
export function ruleComment(hash: string, text: string): string {
  return `netctl:${hash} ${text.replace(/[^ -~]|["\\]/gu, '?')}`.slice(0, 255).trimEnd();
}

/** The hash in a rule as iptables-save prints it, or null: not a rule of ours. */
export function hashInRule(saved: string): string | null {
  return /--comment "?netctl:([0-9a-f]{16})(?=[ "])/.exec(saved)?.[1] ?? null;
}

/** The hash in a comment as nftables holds it, or null: not a rule of ours. */
export function hashInComment(comment: string): string | null {
  return /^netctl:([0-9a-f]{16})(?= |$)/.exec(comment)?.[1] ?? null;
}

function digest(text: string): string {
  return hashOnce('sha256', text, 'hex').slice(0, 16);
}
