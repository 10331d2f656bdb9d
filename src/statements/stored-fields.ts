import { type DescField, type DescMessage, type MessageShape, ScalarType } from '@bufbuild/protobuf';
import type { FieldName, FieldsOf } from '../contract/fields.ts';
import type { Rule } from '../contract/rules.ts';
import type { Param } from '../database/statement.ts';
import type { ColumnOf, Table } from '../database/table.ts';
import type { enumText } from './codecs.ts';
import { fitting } from './fits.ts';
import { binderOf, columnProperties } from './parameters.ts';

/** Where and how fields are stored, as far as entity and message do not tell. Keys are proto field names. */
export interface Storing<E extends Table, D extends DescMessage> {
  /** Columns of fields that are called otherwise. */
  readonly columns?: { readonly [F in FieldName<D>]?: ColumnOf<E> };
  /** How values are bound whose type does not tell. */
  readonly binders?: { readonly [F in FieldName<D>]?: (value: FieldsOf<MessageShape<D>>[F]) => Param };
  /** What is stored for an enum value. */
  readonly textOf?: typeof enumText;
}

type Bind = (value: unknown) => Param;

/** {@link Storing} as it is looked up for the fields of any message. */
interface Lookup {
  readonly columns?: Readonly<Record<string, string>>;
  readonly binders?: Readonly<Record<string, Bind>>;
}

/** A field of a message, and the column that it fills. */
export interface StoredField {
  readonly field: DescField;
  /** The name of its column. */
  readonly name: string;
  readonly nullable: boolean;
  /** What is stored for a value; NULL for one that is unset. */
  readonly bind: Bind;
  /** What the column takes; undefined where that is all that the field can hold. */
  readonly rule: Rule | undefined;
}

/** The fields of a message, each of which fills the column of its own name unless said otherwise. */
export const storedFields = <E extends Table, D extends DescMessage>(
  entity: E,
  message: D,
  storing: Storing<E, D>,
): StoredField[] => {
  const { columns = {}, binders = {} } = storing as Lookup;
  return message.fields.map((field) => {
    const name = columns[field.name] ?? field.name;
    return {
      field,
      name,
      nullable: columnProperties(entity, name).nullable === true,
      bind: ofPresent(binders[field.name]) ?? binderOf(field, storing.textOf),
      rule: isText(field) ? fitting(entity, name) : undefined,
    };
  });
};

/** Only texts can be too long, or not be what their column holds: of a closed set, all that is stored fits. */
const isText = (field: DescField): boolean => field.fieldKind === 'scalar' && field.scalar === ScalarType.STRING;

/** A binder of what is set as one of what may be unset. */
const ofPresent = (bind: Bind | undefined): Bind | undefined =>
  bind && ((value) => (value === undefined ? undefined : bind(value)));
