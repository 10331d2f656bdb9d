import { type DescField, type DescOneof, getOption, type JsonObject, ScalarType, toJson } from '@bufbuild/protobuf';
import { FeatureSet_FieldPresence } from '@bufbuild/protobuf/wkt';
import type { Json } from './schemas.ts';

/** Annotations as JSON; of the published format what the contract uses. */
interface Rules {
  readonly required?: boolean;
  readonly string?: { readonly pattern?: string };
  readonly int32?: Bounds;
  readonly double?: Bounds & { readonly finite?: boolean };
  readonly enum?: { readonly notIn?: readonly number[] };
  readonly repeated?: { readonly minItems?: string; readonly maxItems?: string; readonly items?: Rules };
}

interface Bounds {
  readonly gt?: number;
  readonly gte?: number;
  readonly lt?: number;
  readonly lte?: number;
}

const annotationOf = (desc: DescField | DescOneof): JsonObject => {
  const declared = desc.parent!.file.dependencies.flatMap(({ extensions }) => extensions);
  const extension = declared.find(({ typeName }) => typeName === `buf.validate.${desc.kind}`);
  return extension?.message ? (toJson(extension.message, getOption(desc, extension) as never) as JsonObject) : {};
};

const rulesOf = (field: DescField): Rules => annotationOf(field) as Rules;

const isZeroRefused = ({ string, int32, enum: choice }: Rules): boolean => {
  if (string?.pattern !== undefined) return !new RegExp(string.pattern, 'u').test('');
  return choice?.notIn?.includes(0) === true || (int32?.gte ?? 0) > 0;
};

/** Whether a request without the field is refused; one without presence is as if it were zero or empty. */
export const isRequired = (field: DescField): boolean => {
  const rules = rulesOf(field);
  if (rules.required || Number(rules.repeated?.minItems ?? 0) > 0) return true;
  return field.fieldKind !== 'list' && field.presence === FeatureSet_FieldPresence.IMPLICIT && isZeroRefused(rules);
};

/** Whether a request in which none of the fields is set is refused. */
export const isChoiceRequired = (oneof: DescOneof): boolean => annotationOf(oneof)['required'] === true;

const bounds = ({ gt, gte, lt, lte }: Bounds): Json => ({
  ...(gt === undefined ? {} : { exclusiveMinimum: gt }),
  ...(gte === undefined ? {} : { minimum: gte }),
  ...(lt === undefined ? {} : { exclusiveMaximum: lt }),
  ...(lte === undefined ? {} : { maximum: lte }),
});

/** What is refused of a field that must be set and cannot be told from one that is not. */
const nothing = (field: DescField): Json => {
  if (field.fieldKind === 'scalar')
    return field.scalar === ScalarType.STRING ? { minLength: 1 } : { not: { enum: [0, '0'] } };
  return field.enum ? { not: { const: field.enum.values[0]!.name } } : {};
};

const single = (field: DescField, rules: Rules): Json => ({
  ...(rules.string?.pattern === undefined ? {} : { pattern: rules.string.pattern }),
  ...(rules.int32 ? bounds(rules.int32) : {}),
  // A bound of numbers says nothing of a text, and NaN is none.
  ...(rules.double ? { type: 'number', ...bounds(rules.double) } : {}),
  ...(rules.enum?.notIn
    ? {
        not: {
          enum: field.enum!.values.filter(({ number }) => rules.enum!.notIn!.includes(number)).map(({ name }) => name),
        },
      }
    : {}),
});

/** What JSON Schema can say of the annotations of a field; whether it must be there, its message says. */
export const schemaOfRules = (field: DescField): Json => {
  const rules = rulesOf(field);
  if (field.fieldKind === 'list') {
    const { minItems, maxItems } = rules.repeated ?? {};
    const least = minItems ?? (rules.required ? 1 : undefined);
    return {
      ...(least === undefined ? {} : { minItems: Number(least) }),
      ...(maxItems === undefined ? {} : { maxItems: Number(maxItems) }),
    };
  }
  const bare = rules.required && field.presence === FeatureSet_FieldPresence.IMPLICIT;
  return { ...single(field, rules), ...(bare ? nothing(field) : {}) };
};

/** The same of the elements of a list. */
export const schemaOfElementRules = (field: DescField): Json => single(field, rulesOf(field).repeated?.items ?? {});
