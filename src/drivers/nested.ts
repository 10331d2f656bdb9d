import type { DescMessage, Message } from '@bufbuild/protobuf';
import type { FieldViolation } from '../database/errors.ts';
import { type Rules, requestCheck } from './rules.ts';

/**
 * Compiles the check of a message inside a request.
 *
 * @returns the offending fields of one such message, their paths starting with `at`.
 */
export const nestedCheck = <D extends DescMessage>(
  desc: D,
  rules: Rules<D>,
): ((message: Message, at: string) => FieldViolation[]) => {
  const check = requestCheck(desc, rules);
  return (message, at) => check(message).map(({ field, description }) => ({ field: `${at}.${field}`, description }));
};
