import { int32At } from './bytes.ts';
import type { Row } from './statement.ts';
import type { Sink } from './step.ts';
import { AS_TEXT } from './wire.ts';

/**
 * Cells of a row as text.
 *
 * @param start where their number stands.
 * @param textAt reads the cell of that column; left out: all have come as text.
 */
export const cellsOf = (
  bytes: Buffer,
  start: number,
  textAt: (index: number, at: number, length: number) => string = (_index, at, length) =>
    bytes.toString('utf8', at, at + length),
): Row => {
  const number = (bytes[start]! << 8) | bytes[start + 1]!;
  let at = start + 2;
  const cells = new Array<string | null>(number);
  for (let index = 0; index < number; index += 1) {
    const length = int32At(bytes, at);
    at += 4;
    if (length === -1) cells[index] = null;
    else {
      cells[index] = textAt(index, at, length);
      at += length;
    }
  }
  return cells;
};

/** What a row is where nothing is to become of it. */
export const asRow = (row: Row): Row => row;

/** Collects rows, each as what its text cells become. */
export class TextRows<T> implements Sink {
  readonly rows: T[] = [];
  readonly #map: (row: Row) => T;

  constructor(map: (row: Row) => T) {
    this.#map = map;
  }

  wanted(): Buffer {
    return AS_TEXT;
  }

  expect(): void {}

  row(bytes: Buffer, at: number): void {
    this.rows.push(this.#map(cellsOf(bytes, at)));
  }
}

/** Lets rows go that nobody reads. */
export const NO_ROWS: Sink = { wanted: () => AS_TEXT, expect: () => {}, row: () => {} };
