import type { Attributes } from '@opentelemetry/api';
import type { Statement } from '../database/statement.ts';

/** A statement as it is told of: names alone, no SQL and no values. */
export interface Named {
  /** `SELECT`. */
  readonly operation: string;
  /** Name of a declared statement, or the operation. */
  readonly summary: string;
  readonly attributes: Attributes;
  /** The same, with each class of errors that came. */
  readonly failed: Map<string, Attributes>;
}

const named = (operation: string, summary: string): Named => ({
  operation,
  summary,
  attributes: {
    'db.system.name': 'postgresql',
    'db.operation.name': operation,
    'db.query.summary': summary,
  },
  failed: new Map(),
});

const VERB = /^\s*(\w+)/;

/** A `with` may lead to any of them. */
const operationOf = ({ text, reads }: Statement<unknown>): string => {
  const verb = VERB.exec(text)?.[1]?.toUpperCase() ?? 'UNKNOWN';
  if (verb !== 'WITH') return verb;
  return reads ? 'SELECT' : (/\b(insert|update|delete|merge)\b/i.exec(text)?.[1]?.toUpperCase() ?? verb);
};

const declared = new Map<Statement<unknown>, Named>();
const commands = new Map<string, Named>();

/** A command may name a savepoint, which is the caller's word. */
const verbOf = (text: string): string =>
  text.endsWith('commit') ? 'COMMIT' : (VERB.exec(text)?.[1]?.toUpperCase() ?? 'UNKNOWN');

/** What is told of a statement or a command. */
export const namedOf = (what: Statement<unknown> | string): Named => {
  if (typeof what === 'string') {
    const verb = verbOf(what);
    const known = commands.get(verb) ?? named(verb, verb);
    commands.set(verb, known);
    return known;
  }
  const known = declared.get(what);
  if (known) return known;
  const made = named(operationOf(what), what.name);
  declared.set(what, made);
  return made;
};

/** One object for each statement and class of errors. */
export const attributesOf = ({ attributes, failed }: Named, error: string | undefined): Attributes => {
  if (error === undefined) return attributes;
  const known = failed.get(error) ?? { ...attributes, 'error.type': error };
  failed.set(error, known);
  return known;
};
