import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** Whether this machine can make certificates. */
export const hasOpenssl = await run('openssl', ['version']).then(
  () => true,
  () => false,
);

/** Paths of a certificate and its key. */
export interface KeyPair {
  readonly cert: string;
  readonly key: string;
}

const openssl = (...args: string[]): Promise<unknown> => run('openssl', args);
const NEW_KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];

const pairIn = (folder: string, name: string): KeyPair => ({
  cert: join(folder, `${name}.crt`),
  key: join(folder, `${name}.key`),
});

/** Makes an authority: `<name>.crt` and `<name>.key` in a folder. */
export const makeAuthority = async (folder: string, name: string): Promise<KeyPair> => {
  const pair = pairIn(folder, name);
  const files = ['-keyout', pair.key, '-out', pair.cert];
  await openssl('req', '-x509', ...NEW_KEY, '-days', '2', ...files, '-subj', `/CN=${name}`);
  return pair;
};

/**
 * Makes a certificate, signed by an authority.
 *
 * @param names alternative names as openssl writes them (`DNS:a,URI:b`); empty: none.
 */
export const makeCertificate = async (
  folder: string,
  name: string,
  authority: KeyPair,
  names: string,
): Promise<KeyPair> => {
  const pair = pairIn(folder, name);
  const request = join(folder, `${name}.csr`);
  const extensions = join(folder, `${name}.ext`);
  await writeFile(extensions, names === '' ? 'basicConstraints=CA:FALSE\n' : `subjectAltName=${names}\n`);
  await openssl('req', ...NEW_KEY, '-keyout', pair.key, '-out', request, '-subj', `/CN=${name}`);
  // Certificates that are made at once must not share a file that counts.
  const serial = ['-set_serial', `0x${randomBytes(8).toString('hex')}`];
  const signer = ['-CA', authority.cert, '-CAkey', authority.key, ...serial, '-days', '2'];
  await openssl('x509', '-req', '-in', request, '-out', pair.cert, ...signer, '-extfile', extensions);
  return pair;
};
