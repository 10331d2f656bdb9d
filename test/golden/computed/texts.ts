import {
  auditSanitize,
  isSafeForEmbedding,
  sanitize,
  sanitizeErrorMessage,
} from '../../../src/drivers/recovery-matcher/sanitizer.ts';
import { validateIntentConsistency, validateRetryPolicy } from '../../../src/plang/feature-intent.ts';
import {
  actionPrecedence,
  categoryPriority,
  isAction,
  isCategory,
  isKeyword,
  isOperator,
} from '../../../src/plang/grammar.ts';
import { type Computation, plain } from './subject.ts';

const matrix = (rows: string[], columns: string[], check: (row: never, column: never) => void) =>
  plain(
    Object.fromEntries(
      rows.map((row) => [
        row,
        Object.fromEntries(
          columns.map((column) => {
            try {
              check(row as never, column as never);
              return [column, null];
            } catch (error) {
              return [column, { error: { type: (error as Error).name, message: (error as Error).message } }];
            }
          }),
        ),
      ]),
    ),
  );

/** Grammar, intents and the sanitizer: computations that no RPC has to itself. */
export const texts: Readonly<Record<string, Computation>> = {
  'PLangGrammar.get_category_priority(each)': ({ args: [list] }) => plain(list.map(categoryPriority)),
  'PLangGrammar.get_action_precedence(each)': ({ args: [list] }) => plain(list.map(actionPrecedence)),
  'PLangGrammar.is_operator(each)': ({ args: [list] }) => plain(list.map(isOperator)),
  'PLangGrammar.is_keyword/is_category/is_action(each)': ({ args: [list] }) =>
    list.map((word: string) => [isKeyword(word), isCategory(word), isAction(word)]),
  sanitize_error_message: ({ text }) => sanitizeErrorMessage(text),
  sanitize_for_embedding: ({ text, audit, redact_emails, redact_ips, redact_hex_secrets }) => {
    const options = { redactEmails: redact_emails, redactIps: redact_ips, redactHexSecrets: redact_hex_secrets };
    return plain(audit ? auditSanitize(text, options) : sanitize(text, options));
  },
  'is_safe_for_embedding(each)': ({ text, texts: list, args }) => (text ?? list ?? args).map(isSafeForEmbedding),
  'validate_intent_consistency(matrix)': ({ feature_intents, transaction_intents }) =>
    matrix(feature_intents, transaction_intents, validateIntentConsistency),
  'validate_retry_policy(matrix)': ({ feature_intents, retry_policies }) =>
    matrix(feature_intents, retry_policies, validateRetryPolicy),
};
