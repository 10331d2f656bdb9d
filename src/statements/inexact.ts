import type { DescField } from '@bufbuild/protobuf';
import { type RpcError, refuse } from '../contract/errors.ts';
import type { Notes, Row } from '../database/statement.ts';
import type { Codec } from './codecs.ts';

/** One field of a row: how its cell is read, and what notes call its place. */
export interface Reader {
  readonly field: DescField;
  readonly origin: string;
  readonly codec: Codec;
}

/** Characters of a key that are told: a UUID, and as much of a longer text. */
const KEY_LENGTH = 40;

/** Cells of a row's key in printable ASCII without commas, as a header can carry them; undefined if the row has none. */
export const keyText = (row: Row, keyAt: readonly number[]): string | undefined =>
  keyAt.length === 0
    ? undefined
    : keyAt.map((at) => encodeURIComponent((row[at] ?? '').slice(0, KEY_LENGTH).toWellFormed())).join('/');

/**
 * What comes nearest to a cell that its field cannot hold; noted.
 *
 * @throws DATA_LOSS where nothing does.
 */
export const nearest = ({ origin, codec }: Reader, cell: string, key: string | undefined, notes: Notes): unknown => {
  const place = key === undefined ? origin : `${origin}[${key}]`;
  try {
    return codec.nearest(cell, (how) => notes.add(place, how));
  } catch (error) {
    throw unrepresentable(origin, key, error);
  }
};

/** DATA_LOSS about a stored value that no form comes near; names its place, never the value. */
const unrepresentable = (origin: string, key: string | undefined, cause: unknown): RpcError => {
  const column = origin.slice(origin.lastIndexOf('.') + 1);
  const metadata = {
    table: origin.slice(0, -column.length - 1),
    column,
    ...(key === undefined ? {} : { key }),
  };
  const message = `a stored value cannot be represented: ${(cause as Error).message}`;
  return refuse('UNREPRESENTABLE_VALUE', message, { metadata, cause });
};
