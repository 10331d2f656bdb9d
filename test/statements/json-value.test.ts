import { runInNewContext } from 'node:vm';
import { toBinary } from '@bufbuild/protobuf';
import { ValueSchema } from '@bufbuild/protobuf/wkt';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Bytes } from '../../src/database/bytes.ts';
import { jsonToValue, parseJson } from '../../src/database/values.ts';
import { writeJsonValue } from '../../src/statements/json-value.ts';

const NO_JSON = 'a document that is no JSON';

/** Does what might never end, and fails where it does not. */
const ending = (work: () => void): void => {
  runInNewContext('work()', { work }, { timeout: 30_000 });
};

/** How a document is written, with other cells before and behind it. */
const written = (text: string): Buffer => {
  const document = Buffer.from(text);
  const out = new Bytes(4);
  writeJsonValue(out, Buffer.concat([Buffer.from('"{['), document, Buffer.from(',"}]')]), 3, document.length);
  return out.written();
};

const expected = (text: string): Buffer => Buffer.from(toBinary(ValueSchema, jsonToValue(parseJson(text))));

// A text is copied while it is read, up to the length that one byte can say; what is longer is copied as a whole.
test('texts and keys of any length are written with their length', () => {
  for (const unit of ['a', 'é', '\\n', '"']) {
    for (let length = 0; length <= 300; length += 1) {
      const text = unit.repeat(length);
      for (const document of [text, [text], { [text]: text }]) {
        const json = JSON.stringify(document);
        expect(written(json), json).toEqual(expected(json));
      }
    }
  }
});

// What checks documents is PostgreSQL; whatever speaks in its place ends neither a call nor a process by looping for ever.
test('a document that stops anywhere is refused, or ends where it stops being read', () => {
  const text = fc.string({ maxLength: 200 });
  const json = fc.json({ stringUnit: 'binary', maxDepth: 5 });
  const whole = fc.oneof(
    json,
    text.map((each) => JSON.stringify(each)),
  );
  const cutOff = fc.property(whole, fc.double({ min: 0, max: 1 }), (document, share) => {
    const cut = Buffer.from(document).subarray(0, Math.floor(Buffer.byteLength(document) * share));
    try {
      writeJsonValue(new Bytes(64), cut, 0, cut.length);
    } catch (error) {
      expect(error).toBeInstanceOf(Error);
    }
  });
  ending(() => fc.assert(cutOff, { numRuns: 2_000 }));
  for (const cut of ['"', `"${'a'.repeat(127)}`, `"${'a'.repeat(500)}`, '"\\', '"a\\"', `${'['.repeat(40)}"`, '{"a']) {
    const write = () => ending(() => writeJsonValue(new Bytes(64), Buffer.from(cut), 0, cut.length));
    expect(write, cut).toThrow(NO_JSON);
  }
});
