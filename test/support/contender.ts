/** Takes each folder that a line of its input names, and says on one of its own whether it has got it. */
import { createInterface } from 'node:readline';
import { takeOwnership } from '../../src/embedded/ownership.ts';

for await (const folder of createInterface(process.stdin)) {
  const problem = await takeOwnership(folder).then(
    () => undefined,
    (error: Error) => error.message,
  );
  console.log(JSON.stringify({ problem }));
}
