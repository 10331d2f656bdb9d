import { vi } from 'vitest';

/** A condition that holds is met at once; one that does not yet may take its time on a busy machine. */
const PATIENCE_MS = 60_000;

const { waitFor } = vi;

vi.waitFor = (callback, options) =>
  waitFor(callback, typeof options === 'number' ? options : { timeout: PATIENCE_MS, ...options });
