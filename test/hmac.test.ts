import { createHmac } from 'node:crypto';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Hmac } from '../src/hmac.ts';

const bytes = fc.uint8Array({ maxLength: 200 });

test('a seal is what the library makes of the same key and bytes, however they are cut', () => {
  fc.assert(
    fc.property(bytes, fc.array(bytes), (key, parts) => {
      const known = createHmac('sha256', key).update(Buffer.concat(parts)).digest();
      expect(new Hmac(key).of(...parts)).toEqual(known);
    }),
  );
});
