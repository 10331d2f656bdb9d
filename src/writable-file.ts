import { access, constants, open } from 'node:fs/promises';
import { dirname } from 'node:path';

/**
 * Looks whether a file can be written, without making one.
 *
 * @throws the system's error when it cannot.
 */
export const lookWritable = async (path: string): Promise<void> => {
  const exists = await access(path).then(
    () => true,
    () => false,
  );
  if (!exists) {
    await access(dirname(path), constants.W_OK | constants.X_OK);
    return;
  }
  await (await open(path, constants.O_WRONLY | constants.O_APPEND)).close();
  await access(path, constants.W_OK);
};
