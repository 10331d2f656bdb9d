import { Row } from './compare.ts';
import type { Tables } from './tables.ts';
import { type Golden, isMap, type Reader } from './values.ts';

/** A row of a table, or any map of a golden file. */
export type GoldenRow = { readonly [column: string]: Golden };

/** What is left of a dump when the differences are taken out; undefined when the dump does not show enough. */
export type View = (rows: readonly GoldenRow[]) => Golden | undefined;

/** Rows as the original has them -> as ours has them; `where` is what the rows were picked by. */
export type Amendment = (
  rows: readonly GoldenRow[],
  where: GoldenRow,
) => readonly GoldenRow[] | Promise<readonly GoldenRow[]>;

/** Whether a row has these values. */
export const meets = (row: GoldenRow, where: GoldenRow): boolean =>
  Object.entries(where).every(([name, value]) => row[name] === value);

/** A row, of a table or an answer, as the original has it -> as ours has it; undefined when ours has none. */
export type Undo = (row: Golden) => Golden | undefined;

/** Where the content of the tables is no longer the original's, because ours deliberately did something else. */
export class World {
  readonly #tables: Tables;
  readonly #reader: Reader;
  readonly #content = new Map<string, readonly GoldenRow[]>();
  readonly #tracked = new Map<string, readonly GoldenRow[]>();
  readonly #undone: Undo[] = [];
  readonly #amendments: { readonly table: string; readonly amend: Amendment }[] = [];
  readonly #answers: ((row: GoldenRow) => GoldenRow)[] = [];
  readonly #views = new Map<string, View | null>();

  constructor(tables: Tables, reader: Reader) {
    this.#tables = tables;
    this.#reader = reader;
  }

  /** All rows of a table as they are now, also where an open transaction hides them. */
  async rows(table: string): Promise<readonly GoldenRow[]> {
    return this.#tracked.get(table) ?? this.#stored(table);
  }

  async #stored(table: string): Promise<GoldenRow[]> {
    return (await this.#tables.dump(table, this.#reader)).map(
      ({ fields }) => Object.fromEntries(fields) as unknown as GoldenRow,
    );
  }

  /** The database's clock. */
  async now(): Promise<bigint> {
    return (await this.#tables.now()).micros;
  }

  /**
   * Says what a table holds from here on.
   *
   * @param view what must still be as in the original; null when nothing has to.
   */
  expectContent(table: string, rows: readonly GoldenRow[], view: View | null = null): void {
    this.#content.set(table, rows);
    // What was once different stays so.
    if (this.#views.get(table) !== null) this.#views.set(table, view);
  }

  /** What a table still has in common with the original's. */
  viewOf(table: string): View | undefined {
    return this.#views.get(table) ?? undefined;
  }

  /** Says what an open transaction has made of a table. */
  track(table: string, rows: readonly GoldenRow[]): void {
    this.#tracked.set(table, rows);
  }

  /** What was done is visible to all. */
  committed(): void {
    this.#tracked.clear();
  }

  /** Says what a write that the original carried out, and ours refused, would have done. */
  expectUndone(undo: Undo): void {
    this.#undone.push(undo);
  }

  /** The test itself has changed a table. */
  async changed(table: string): Promise<void> {
    if (this.#content.has(table)) this.#content.set(table, await this.rows(table));
  }

  /** What a table holds where that is not what the original left there. */
  contentOf(table: string): readonly GoldenRow[] | undefined {
    return this.#content.get(table);
  }

  /** Says how the rows of a table differ from the original's from here on. */
  expectAmended(table: string, amend: Amendment): void {
    this.#amendments.push({ table, amend });
  }

  /** Says how a record that calls answer differs from the original's from here on. */
  expectAnswers(amend: (row: GoldenRow) => GoldenRow): void {
    this.#answers.push(amend);
  }

  /** An expected dump of a table with what differs in ours. */
  async amended(table: string, expected: Golden, where: GoldenRow): Promise<readonly GoldenRow[]> {
    let rows = this.undone(expected) as readonly GoldenRow[];
    for (const each of this.#amendments) if (each.table === table) rows = await each.amend(rows, where);
    return rows;
  }

  /** An expected answer with what differs in ours. */
  answer(expected: Golden): Golden {
    const amended = (value: Golden): Golden =>
      isMap(value) ? this.#answers.reduce((row, amend) => amend(row), value) : value;
    const present = this.undone(expected);
    return Array.isArray(present) ? present.map(amended) : amended(present);
  }

  /** An expected answer without what ours has refused. */
  undone(expected: Golden): Golden {
    const undo = (row: Golden): Golden | undefined =>
      this.#undone.reduceRight<Golden | undefined>((left, each) => (left === undefined ? left : each(left)), row);
    if (Array.isArray(expected)) return expected.map(undo).filter((each) => each !== undefined);
    return undo(expected) ?? null;
  }
}

/** Rows of a dump by the values of some columns. */
export const byColumns = (rows: readonly (Row | GoldenRow)[], columns: readonly string[]): Map<string, GoldenRow[]> => {
  const groups = new Map<string, GoldenRow[]>();
  for (const each of rows) {
    const row = (each instanceof Row ? Object.fromEntries(each.fields) : each) as GoldenRow;
    const key = JSON.stringify(
      columns.map((name) => row[name]),
      (_key, value) => (typeof value === 'bigint' ? String(value) : value),
    );
    groups.set(key, [...(groups.get(key) ?? []), row]);
  }
  return groups;
};
