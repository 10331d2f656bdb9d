import { MAX_LEVELS } from '../../database/values.ts';
import { firstCharacters, MESSAGE_CHARACTERS, sanitizedStart } from './normalize.ts';

/** What a language model advises. */
export interface Advice {
  /** Undefined: it named none; null: it said there is none. */
  readonly suggestedAction: string | null | undefined;
  /** As it said, not confined to 0 to 1. */
  readonly confidence: number | undefined;
  /** Any JSON. */
  readonly reasoning: unknown;
  /** Any JSON. */
  readonly requiresHuman: unknown;
}

/** What a model is asked. The error code is treated as the message is: nobody checks what is in it. */
export const advicePrompt = (errorCode: string, message: string): string =>
  `A step of an automated agent run has failed. Advise on how to recover from it.

Error code: ${firstCharacters(sanitizedStart(errorCode), MESSAGE_CHARACTERS)}
Error message: ${message}

Answer with one JSON object and nothing else:
{"suggested_action": "<what to do, at most 200 characters>", "confidence": <0.0 to 1.0>, "reasoning": "<why>", "requires_human": <true or false>}`;

const isAction = (action: unknown): action is string | null | undefined =>
  action === undefined || action === null || typeof action === 'string';

/** True and false count as 1 and 0. */
const isConfidence = (confidence: unknown): boolean => ['undefined', 'boolean', 'number'].includes(typeof confidence);

/** Whether an answer can hold JSON: not too deep, and no number that is read as infinite. */
export const fitsAnswer = (json: unknown, levels = MAX_LEVELS): boolean =>
  typeof json === 'number'
    ? Number.isFinite(json)
    : typeof json !== 'object' ||
      json === null ||
      (levels > 0 && Object.values(json).every((each) => fitsAnswer(each, levels - 1)));

/** Reads a JSON object of a model; undefined where it is no advice. */
export const readAdvice = (json: Readonly<Record<string, unknown>>): Advice | undefined => {
  const { suggested_action, confidence, reasoning, requires_human } = json;
  if (!isAction(suggested_action) || !isConfidence(confidence) || !fitsAnswer(json)) return undefined;
  return {
    suggestedAction: suggested_action,
    confidence: confidence === undefined ? undefined : Number(confidence),
    reasoning,
    requiresHuman: requires_human,
  };
};

/**
 * Reads a model's answer: the first pair of braces without braces inside.
 *
 * @returns undefined for an answer without an object of that form; a confidence that is no finite number spoils it.
 */
export const parseAdvice = (text: string): Advice | undefined => {
  const [object] = /\{[^{}]*\}/.exec(text) ?? [];
  if (object === undefined) return undefined;
  let json: Record<string, unknown>;
  try {
    json = JSON.parse(object) as Record<string, unknown>;
  } catch {
    return undefined;
  }
  return readAdvice(json);
};
