import { createHash, randomBytes } from 'node:crypto';
import { EXIT } from '../exit.ts';
import { CALLER_NAME } from '../server/identity.ts';
import { ConfigError } from '../setting-forms.ts';
import { say } from './output.ts';

const TOKEN_BYTES = 32;

/** `token NAME`: a new token for its bearer, and the line of the tokens file that knows it. */
export const token = (name: string | undefined): number => {
  if (name === undefined || CALLER_NAME.exec(name)?.[0] !== name) {
    throw new ConfigError(
      'token takes the name of a caller: 1 to 128 letters, digits and _ . @ / - :, no : at its end',
    );
  }
  const secret = randomBytes(TOKEN_BYTES).toString('base64url');
  say(`token  ${secret}`);
  say(`line   ${name}: ${createHash('sha256').update(secret).digest('hex')}`);
  return EXIT.done;
};
