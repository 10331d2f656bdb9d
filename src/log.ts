import { type DestinationStream, destination, type Logger, pino } from 'pino';

/** Log levels, from loudest to quietest. */
export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const;

/** JSON lines, one a call and one for what happens between calls; where they go: to standard error. */
export const createLog = (level: string, to: DestinationStream = destination(2)): Logger =>
  pino({ level, base: null, timestamp: () => `,"time":"${new Date().toISOString()}"` }, to);

export type { Logger };
