import type { DescField } from '@bufbuild/protobuf';
import type { Timestamp, Value } from '@bufbuild/protobuf/wkt';
import type { Param } from '../database/statement.ts';
import { columnNamed, type Table } from '../database/table.ts';
import { jsonText, timestampToText } from '../database/values.ts';
import type { StringList } from '../gen/hoc/cus/policies/v1/types_pb.ts';
import { enumText } from './codecs.ts';

/** What the metadata of an entity say about a column. */
interface ColumnProperties {
  readonly columnType: string;
  readonly nullable?: boolean;
}

/** What an entity says about one of its columns, checked when the module loads. */
export const columnProperties = (entity: Table, name: string): ColumnProperties => {
  columnNamed(entity, name);
  return (entity.meta.properties as Readonly<Record<string, ColumnProperties>>)[name]!;
};

/** SQL type of a column without its length, to which a cast would cut in silence. */
export const typeOf = (entity: Table, name: string): string =>
  columnProperties(entity, name).columnType.replace(/\(.*\)$/, '');

/** SQL of a parameter for a column. */
export const parameterOf = (entity: Table, name: string, number: number): string =>
  `$${number}::${typeOf(entity, name)}`;

/** How the values of a field are bound; what is unset is NULL. */
export const binderOf = (field: DescField, textOf: typeof enumText = enumText): ((value: unknown) => Param) => {
  if (field.fieldKind === 'enum') {
    return (value) => (value === undefined ? undefined : textOf(field.enum, value as number));
  }
  switch (field.message?.typeName) {
    case 'google.protobuf.Timestamp':
      return (value) => (value === undefined ? undefined : timestampToText(value as Timestamp));
    case 'google.protobuf.Value':
      return (value) => jsonText(value as Value | undefined);
    case 'hoc.cus.policies.v1.StringList':
      return (value) => (value as StringList | undefined)?.values;
    default:
      return (value) => value as Param;
  }
};
