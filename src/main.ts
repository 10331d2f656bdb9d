import { enableCompileCache } from 'node:module';
import { prepareEngine } from './engine.ts';

prepareEngine();
// Stripping types from the generated code again at every start would cost more than the start itself.
enableCompileCache();

/**
 * Runs the command that this process was started with.
 *
 * @param parent number of the process that started it.
 */
export const start = async (parent: number): Promise<void> => {
  const args = process.argv.slice(2);
  // A probe that loads the whole program would cost more than what it asks about.
  if (args[0] === 'health' && args.length === 1) {
    const { answerHealth } = await import('./probe.ts');
    await answerHealth(process.env);
  } else {
    const { main } = await import('./command.ts');
    await main(args, process.env, parent);
  }
};
