import { Exit } from '../exit.ts';
import { standardError, standardOutput } from '../log.ts';

export const output = standardOutput();
export const errors = standardError();

/** The way out of this process. */
export const exit = new Exit(() => {
  errors.write('policy-sidecar: cut off, since it had not ended in time\n');
  errors.flushSync();
});

/** What a command was asked for. */
export const say = (line: string): void => output.write(`${line}\n`);

/** News of what takes long, apart from what came of it. */
export const tell = (line: string): void => errors.write(`${line}\n`);

/** One line that says why not. */
export const complain = (line: string, code: number): number => {
  errors.write(`policy-sidecar: ${line}\n`);
  return code;
};
