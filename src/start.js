#!/usr/bin/env node
// Plain JavaScript, which every Node can read: one that is too old for the rest says so instead of failing at its first word.
// Asked before anything else: once who started this process has ended, the system names whoever took over its children.
const parent = process.ppid;
const compiled = !import.meta.url.endsWith('/src/start.js');
const [major, minor] = process.versions.node.split('.').map(Number);
const able = compiled ? major > 22 || (major === 22 && minor >= 17) : process.features.typescript;
if (able) {
  const { start } = await import('./main.ts');
  await start(parent);
} else {
  const why = `Node ${compiled ? '22.17' : '22.18'} or newer is needed, and this is ${process.version}`;
  console.error(`policy-sidecar: ${why}${compiled ? '' : ': install it, or run `npm ci`, which brings one'}`);
  process.exitCode = 2;
}
