import { createHash, randomBytes } from 'node:crypto';
import { ConfigError } from '../config.ts';
import { EXIT } from '../exit.ts';
import { say } from './output.ts';

const TOKEN_BYTES = 32;

/** `token NAME`: a new token for its bearer, and the line of the tokens file that knows it. */
export const token = (name: string | undefined): number => {
  if (name === undefined || !/^[^\s:#][^\s:]*$/.test(name)) {
    throw new ConfigError('token takes the name of a caller, without blanks and colons');
  }
  const secret = randomBytes(TOKEN_BYTES).toString('base64url');
  say(`token  ${secret}`);
  say(`line   ${name}: ${createHash('sha256').update(secret).digest('hex')}`);
  return EXIT.done;
};
