/** What to do where history knows nothing, by the beginning of the error code. */
const DEFAULTS: readonly (readonly [prefix: string, suggestion: string])[] = [
  ['TIMEOUT', 'Increase timeout threshold or implement retry with exponential backoff'],
  ['HTTP_5XX', 'Check service health, implement circuit breaker, retry with backoff'],
  ['RATE_LIMITED', 'Implement rate limiting with jitter, queue requests'],
  ['BUDGET_EXCEEDED', 'Check budget allocation, consider cost optimization'],
  ['PERMISSION_DENIED', 'Verify credentials and permissions configuration'],
  ['PARSE_ERROR', 'Validate input format, check schema compatibility'],
  ['CONNECTION_ERROR', 'Check network connectivity, implement retry logic'],
];

/**
 * What to do about an error.
 *
 * @param recoveries what has helped with similar failures, the latest first.
 */
export const generateSuggestion = (errorCode: string, recoveries: readonly string[]): string => {
  const [latest] = recoveries;
  if (latest !== undefined) return latest;
  const upper = errorCode.toUpperCase();
  const known = DEFAULTS.find(([prefix]) => upper.startsWith(prefix));
  return known?.[1] ?? `Review error '${errorCode}' and implement appropriate error handling`;
};
