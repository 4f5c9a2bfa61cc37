/**
 * The agent's log on standard output: one JSON object a line (pino), or one line of text for people.
 *
 * In: level and format. Out: a Logger. Never: the configuration that a runtime sent (it may hold secrets).
 */
import { pino } from 'pino';
import type { Logger } from '../lib/logger.ts';

export function createLogger(options: { level: string; format: 'json' | 'text' }): Logger {
  const settings = {
    level: options.level,
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
    messageKey: 'message',
  };
  return options.format === 'json'
    ? pino(settings)
    : pino(settings, { write: (line) => process.stdout.write(asText(line)) });
}

function asText(line: string): string {
  const { level, time, message, ...fields } = JSON.parse(line) as Record<string, unknown>;
  const rest = Object.entries(fields).map(
    ([name, value]) => ` ${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`,
  );
  return `${time} ${String(level).padEnd(5)} ${message}${rest.join('')}\n`;
}
