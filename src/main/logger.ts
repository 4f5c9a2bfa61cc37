/**
 * The agent's log on standard output: one JSON object a line (pino), or one line of text for people.
 *
 * In: level and format. Out: a Logger; lines of JSON that come within ten milliseconds are written together, and what is left when the
 * process ends. Never: the configuration that a runtime sent (it may hold secrets).
 */
import { pino } from 'pino';
import type { Logger } from '../lib/logger.ts';

const gatherBytes = 8 * 1024;
const gatherMilliseconds = 10;

export function createLogger(options: { level: string; format: 'json' | 'text' }): Logger {
  const settings = {
    level: options.level,
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
    messageKey: 'message',
  };
  return options.format === 'json'
    ? pino(settings, gathered())
    : pino(settings, { write: (line) => process.stdout.write(asText(line)) });
}

/** A write takes another thread, and with it as much of this one's time as the rest of a line. */
function gathered(): { write(line: string): void } {
  let lines = '';
  let isScheduled = false;
  const pass = (): void => {
    isScheduled = false;
    // Not left to the destination's own gathering: it forgets a flush that comes while it writes, until the next line.
    if (lines !== '') destination.write(lines);
    lines = '';
  };
  // Before the destination's own word of the end, by which it writes what it has.
  process.on('exit', pass);
  const destination = pino.destination({ fd: process.stdout.fd, sync: false });
  return {
    write(line) {
      lines += line;
      if (lines.length >= gatherBytes) pass();
      else if (!isScheduled) {
        isScheduled = true;
        setTimeout(pass, gatherMilliseconds).unref();
      }
    },
  };
}

function asText(line: string): string {
  const { level, time, message, ...fields } = JSON.parse(line) as Record<string, unknown>;
  const rest = Object.entries(fields).map(
    ([name, value]) => ` ${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`,
  );
  return `${time} ${String(level).padEnd(5)} ${message}${rest.join('')}\n`;
}
