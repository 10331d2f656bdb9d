/** Beginnings of what the registry says of an end, and the cause that is counted. */
export const CAUSES: readonly (readonly [string, string])[] = [
  ['idle for', 'idle_lease'],
  ['open for', 'total_lease'],
  ['the sidecar shut down', 'shutdown'],
  ['its stream ended', 'stream_ended'],
  ['the stream that held it', 'stream_ended'],
  ['its caller is no longer', 'caller_removed'],
  ['its caller left', 'caller_left'],
];

/**
 * Why a transaction ended, as one of few words.
 *
 * @param how what the registry tells its caller.
 */
export const causeOf = (state: string, how: string): string =>
  CAUSES.find(([begins]) => how.startsWith(begins))?.[1] ?? state.replaceAll(' ', '_');
