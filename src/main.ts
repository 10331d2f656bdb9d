import { enableCompileCache } from 'node:module';

// Stripping types from the generated code again at every start would cost more than the start itself.
enableCompileCache();

const { main } = await import('./command.ts');
await main(process.argv.slice(2), process.env);
