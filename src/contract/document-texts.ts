import type { DescMessage, Message } from '@bufbuild/protobuf';
import type { Value } from '@bufbuild/protobuf/wkt';
import { documentOfText, jsonText, MAX_LEVELS, textValue } from '../database/values.ts';
import type { FieldViolation } from './errors.ts';
import { rewritten } from './rewrite.ts';
import { storingProblem } from './storable.ts';

/**
 * Documents as text: what callers ask for by the header `documents` to whom the spelling of a number matters. Then every
 * `google.protobuf.Value` of a request and of an answer is a string, the JSON text of the document.
 */
const DOCUMENT = 'google.protobuf.Value';

const holding = new Map<DescMessage, boolean>();

/** @param seen types on the way here, one of which may hold itself. */
const leadsToDocument = (desc: DescMessage, seen: Set<DescMessage>): boolean => {
  if (desc.typeName === DOCUMENT) return true;
  if (seen.has(desc)) return false;
  seen.add(desc);
  return desc.fields.some(({ message }) => message && leadsToDocument(message, seen));
};

/** Whether messages of a type can hold a document at any depth. */
export const holdsDocuments = (desc: DescMessage): boolean => {
  const known = holding.get(desc);
  if (known !== undefined) return known;
  const holds = leadsToDocument(desc, new Set());
  holding.set(desc, holds);
  return holds;
};

const changed = (
  desc: DescMessage,
  message: Message,
  change: (document: Value, path: string) => Value,
  path = '',
): Message => {
  if (!holdsDocuments(desc)) return message;
  return rewritten(
    desc,
    message,
    (type, value, at) => (type.typeName === DOCUMENT ? change(value as Value, at) : changed(type, value, change, at)),
    path,
  );
};

/** Values, elements and members that a JSON text names, without reading it. */
const elementsOf = (text: string): number => {
  let count = 1;
  let quoted = false;
  for (let at = 0; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    if (quoted) {
      if (code === 0x5c) at += 1;
      else if (code === 0x22) quoted = false;
    } else if (code === 0x22) quoted = true;
    else if (code === 0x2c || code === 0x5b || code === 0x7b) count += 1;
  }
  return count;
};

/**
 * Reads the documents of a request from their texts, which are what is stored.
 *
 * @param within told how many elements a document has, before they cost anything; throws where they are too many.
 */
export const readDocuments = (
  desc: DescMessage,
  message: Message,
  within: (elements: number) => void,
): { readonly request: Message; readonly problems: readonly FieldViolation[] } => {
  const problems: FieldViolation[] = [];
  const request = changed(desc, message, (document, field) => {
    if (document.kind.case !== 'stringValue') {
      problems.push({ field, description: 'must be a string, the JSON text, as the header `documents` says' });
      return document;
    }
    const text = document.kind.value;
    within(elementsOf(text));
    // Levels beyond what is allowed are for the rules to refuse.
    const read = documentOfText(text, MAX_LEVELS + 2);
    const description = read ? storingProblem(text) : 'must be JSON text';
    if (description) problems.push({ field, description });
    return read ?? document;
  });
  return { request, problems };
};

/** An answer with the texts of its documents. */
export const tellDocuments = (desc: DescMessage, message: Message): Message =>
  changed(desc, message, (document) => textValue(jsonText(document)!));
