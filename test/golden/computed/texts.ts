import { actionPrecedence, categoryPriority } from '../../../src/drivers/conflict-resolver/grammar.ts';
import { EVERYTHING, sanitize } from '../../../src/drivers/recovery-matcher/sanitizer.ts';
import type { ComputedCase } from '../format.ts';
import { type Computation, plain } from './subject.ts';

/** Recorded of the original, and asked for by no RPC: tests for words of the language, intents of features, audits. */
const UNSERVED = new Set([
  'PLangGrammar.is_operator(each)',
  'PLangGrammar.is_keyword/is_category/is_action(each)',
  'validate_intent_consistency(matrix)',
  'validate_retry_policy(matrix)',
]);

/** True for a case that some RPC answers, or computes on its way. */
export const isServed = ({ operation, input }: ComputedCase): boolean =>
  !UNSERVED.has(operation) && !(input as { audit?: boolean } | null)?.audit;

/** Grammar and sanitizer: computations that no RPC has to itself. */
export const texts: Readonly<Record<string, Computation>> = {
  'PLangGrammar.get_category_priority(each)': ({ args: [list] }) => plain(list.map(categoryPriority)),
  'PLangGrammar.get_action_precedence(each)': ({ args: [list] }) => plain(list.map(actionPrecedence)),
  sanitize_error_message: ({ text }) => sanitize(text, EVERYTHING),
  sanitize_for_embedding: ({ text, redact_emails, redact_ips, redact_hex_secrets }) =>
    sanitize(text, { redactEmails: redact_emails, redactIps: redact_ips, redactHexSecrets: redact_hex_secrets }),
  'is_safe_for_embedding(each)': ({ texts: list }) => list.map((text: string) => sanitize(text) === text),
};
