import { startEmbedded } from '../../src/embedded/embedded.ts';

// A process of its own that holds an embedded PostgreSQL, to be killed: prints what it got, stops at the end of input.
const [dataDir = ''] = process.argv.slice(2);
try {
  const embedded = await startEmbedded({ dataDir });
  console.log(JSON.stringify({ url: embedded.url, dataDir: embedded.dataDir }));
  process.stdin.resume().once('end', () => void embedded.stop());
} catch (error) {
  console.log(JSON.stringify({ refused: (error as Error).message }));
}
