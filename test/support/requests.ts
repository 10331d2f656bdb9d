import { type DescField, type DescMessage, ScalarType } from '@bufbuild/protobuf';
import fc from 'fast-check';

/** Mostly what a field is made for, now and then what it is not. */
const mostly = <T>(plausible: fc.Arbitrary<T>, ...hostile: fc.Arbitrary<T>[]): fc.Arbitrary<T> =>
  fc.oneof({ weight: 12 * hostile.length, arbitrary: plausible }, ...hostile);

export const KEYS = ['5b0c2b1e-0000-4000-8000-000000000001', '5B0C2B1E-0000-4000-8000-000000000002'];
export const WORDS = ['t1', 'a', 'COST', 'GLOBAL', 'execute', 'strict', '0.5'];
const ODD = [
  '',
  ' ',
  '\0',
  'a\0b',
  "'; drop table x; --",
  '%_\\',
  '{}',
  '"',
  'NaN',
  'ß'.repeat(300),
  'x'.repeat(9_000),
];

const oddText = fc.oneof(fc.constantFrom(...ODD), fc.string({ unit: 'binary' }));
const textOf = (name: string) =>
  mostly(
    /_token$/.test(name)
      ? fc.constant('')
      : /_id$/.test(name)
        ? fc.constantFrom(...KEYS)
        : fc.constantFrom(...WORDS, ...KEYS),
    oddText,
  );
const int32 = mostly(fc.integer({ min: 0, max: 100 }), fc.constantFrom(-1, -(2 ** 31), 2 ** 31 - 1), fc.integer());
const int64 = mostly(
  fc.bigInt(0n, 100n),
  fc.constantFrom(-1n, 2n ** 31n, 2n ** 53n, 2n ** 63n - 1n, -(2n ** 63n)),
  fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n),
);
const float = mostly(
  fc.double({ min: 0, max: 1, noNaN: true }),
  fc.constantFrom(Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, -0, 5e-324, 1.7e308, 1e16),
  fc.double(),
);
const instant = fc.record({
  seconds: mostly(fc.bigInt(1_600_000_000n, 1_900_000_000n), int64),
  nanos: mostly(fc.integer({ min: 0, max: 999_999_999 }), int32),
});

/** A JSON document, or what only looks like one: a value without a kind, a number that JSON does not know. */
const document: fc.Arbitrary<object> = fc.letrec<{ document: object }>((tie) => ({
  document: fc.oneof(
    { maxDepth: 3, withCrossShrink: true },
    textOf('').map((value) => ({ kind: { case: 'stringValue', value } })),
    float.map((value) => ({ kind: { case: 'numberValue', value } })),
    mostly<object>(fc.constant({ kind: { case: 'nullValue', value: 0 } }), fc.constant({})),
    fc.array(tie('document'), { maxLength: 3 }).map((values) => ({ kind: { case: 'listValue', value: { values } } })),
    fc
      .dictionary(textOf(''), tie('document'), { maxKeys: 3 })
      .map((fields) => ({ kind: { case: 'structValue', value: { fields } } })),
  ),
})).document;

const scalar = ({ scalar: type, name }: DescField): fc.Arbitrary<unknown> => {
  switch (type) {
    case ScalarType.DOUBLE:
    case ScalarType.FLOAT:
      return float;
    case ScalarType.BOOL:
      return fc.boolean();
    case ScalarType.STRING:
      return textOf(name);
    case ScalarType.INT32:
      return int32;
    case ScalarType.INT64:
      return int64;
    default:
      throw new Error(`${name} is of a type that no request has had`);
  }
};

const element = (field: DescField, depth: number): fc.Arbitrary<unknown> => {
  switch (field.message?.typeName) {
    case undefined: {
      const numbers = field.enum?.values.map(({ number }) => number);
      return numbers ? mostly(fc.constantFrom(...numbers), int32) : scalar(field);
    }
    case 'google.protobuf.Timestamp':
    case 'google.protobuf.Duration':
      return instant;
    case 'google.protobuf.Value':
      return document;
    case 'google.protobuf.FieldMask': {
      const names = field.parent.fields.flatMap(({ message }) => message?.fields.map(({ name }) => name) ?? []);
      return fc.record({ paths: fc.array(mostly(fc.constantFrom(...names), oddText), { maxLength: 4 }) });
    }
    default:
      return depth > 0 ? request(field.message!, depth - 1) : fc.constant({});
  }
};

const fieldValue = (field: DescField, depth: number): fc.Arbitrary<unknown> => {
  const one = element(field, depth);
  switch (field.fieldKind) {
    case 'list':
      return fc.array(one, { maxLength: 3 });
    case 'map':
      return fc.dictionary(textOf(''), one, { maxKeys: 3 });
    default:
      return one;
  }
};

/** Requests of a type: each field as it is meant, hostile, or absent. */
export const request = (desc: DescMessage, depth = 3): fc.Arbitrary<object> =>
  fc.record(
    Object.fromEntries(
      desc.members.map((member): [string, fc.Arbitrary<unknown>] => {
        if (member.kind === 'field')
          return [member.localName, fc.option(fieldValue(member, depth), { freq: 12, nil: undefined })];
        const cases = member.fields.map((field) =>
          element(field, depth).map((value) => ({ case: field.localName, value })),
        );
        return [member.localName, mostly<object>(fc.oneof(...cases), fc.constant({ case: undefined }))];
      }),
    ),
  );
