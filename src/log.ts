import { destination, type Logger, pino } from 'pino';

/** Log levels, from loudest to quietest. */
export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const;

/** JSON lines to standard error: one a call, and what happens between them. */
export const createLog = (level: string): Logger =>
  pino({ level, base: null, timestamp: () => `,"time":"${new Date().toISOString()}"` }, destination(2));

export type { Logger };
