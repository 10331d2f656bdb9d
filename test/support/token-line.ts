import { createHash } from 'node:crypto';

/** What a tokens file has for a token. */
export const hash = (token: string): string => createHash('sha256').update(token).digest('hex');

/** A line of a tokens file: whose token it is; most callers of the tests have their own name for one. */
export const tokenLine = (name: string, token = name): string => `${name}: ${hash(token)}\n`;
