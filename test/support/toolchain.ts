import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

/** Whether a command succeeds: how a toolchain says that it is there, or that it reaches its registry. */
export const succeeds = async (program: string, ...args: readonly string[]): Promise<boolean> => {
  try {
    await promisify(execFile)(program, args, { timeout: 30_000 });
    return true;
  } catch {
    return false;
  }
};
