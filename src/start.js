#!/usr/bin/env node
// Plain JavaScript, which every Node can read: one that is too old for the rest says so instead of failing at its first word.
if (process.features.typescript) {
  await import('./main.ts');
} else {
  const why = `Node 22.18 or newer is needed, and this is ${process.version}`;
  console.error(`policy-sidecar: ${why}: install it, or install the optional packages, which bring one`);
  process.exitCode = 2;
}
