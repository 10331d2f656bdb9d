import { BinaryWriter } from '@bufbuild/protobuf/wire';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Bytes } from '../../src/database/bytes.ts';

const length = fc.oneof(fc.nat({ max: 300 }), fc.constantFrom(127, 128, 16_383, 16_384, 2_097_151, 2_097_152));
const piece = fc.record({ length, guess: fc.integer({ min: 1, max: 5 }), nested: fc.option(length) });

test('whatever is guessed of a length, it is written as protobuf writes it', () => {
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 4 }), fc.nat({ max: 64 }), (pieces, size) => {
      const out = new Bytes(size);
      const known = new BinaryWriter();
      for (const { length: outer, guess, nested } of pieces) {
        const content = Buffer.alloc(outer, outer);
        out.reserve(5);
        const start = out.open(guess);
        out.all(content);
        const inside = new BinaryWriter().raw(content);
        if (nested !== null) {
          out.reserve(1);
          const within = out.open();
          out.all(Buffer.alloc(nested, 7));
          out.close(within);
          inside.bytes(Buffer.alloc(nested, 7));
        }
        const taken = out.close(start, guess);
        const whole = inside.finish();
        known.bytes(whole);
        expect(taken).toBe(new BinaryWriter().uint32(whole.length).finish().length);
      }
      expect(out.written().equals(known.finish())).toBe(true);
    }),
    { numRuns: 200 },
  );
});

/** Bytes that lie anywhere in others. */
const lent = fc
  .tuple(fc.uint8Array({ minLength: 8, maxLength: 200 }), fc.nat({ max: 16 }), fc.boolean())
  .map(([content, before, ownMemory]) => {
    const whole = ownMemory ? Buffer.alloc(before + content.length) : Buffer.allocUnsafe(before + content.length);
    whole.set(content, before);
    return whole.subarray(before);
  });

const part = fc.tuple(lent, fc.nat(), fc.nat()).map(([bytes, from, length]) => {
  const at = from % (bytes.length + 1);
  return { bytes, at, length: length % (bytes.length - at + 1) };
});

// Short pieces are copied eight bytes at once, where long ones are left to the library: in whatever memory they lie.
test('whatever is copied from wherever, it is the same bytes', () => {
  const copy = fc.record({ kind: fc.constantFrom('copy' as const, 'field' as const), part });
  const all = fc.record({ kind: fc.constant('all' as const), bytes: lent });
  const reversed = fc.record({ kind: fc.constant('reversed' as const), bytes: lent });
  const number = fc.record({ kind: fc.constantFrom('double' as const, 'int32' as const), value: fc.double() });
  fc.assert(
    fc.property(
      fc.array(fc.oneof(copy, all, reversed, number), { maxLength: 12 }),
      fc.nat({ max: 64 }),
      (steps, size) => {
        const out = new Bytes(size);
        const known: Uint8Array[] = [];
        for (const step of steps) {
          switch (step.kind) {
            case 'copy':
            case 'field': {
              const { bytes, at, length } = step.part;
              const piece = Buffer.from(bytes.subarray(at, at + length));
              known.push(step.kind === 'copy' ? piece : new BinaryWriter().uint32(300).bytes(piece).finish());
              if (step.kind === 'copy') out.copy(bytes, at, length);
              else out.field(300, bytes, at, length);
              break;
            }
            case 'all':
              known.push(Buffer.from(step.bytes));
              out.all(step.bytes);
              break;
            case 'reversed':
              known.push(Buffer.from(step.bytes.subarray(0, 8)).reverse());
              out.reserve(8);
              out.reversed(step.bytes, 0);
              break;
            case 'double':
              known.push(new BinaryWriter().double(step.value).finish());
              out.reserve(8);
              out.double(step.value);
              break;
            case 'int32': {
              const piece = Buffer.alloc(4);
              piece.writeInt32BE(step.value | 0);
              known.push(piece);
              out.reserve(4);
              out.int32(step.value | 0);
            }
          }
        }
        expect(out.written()).toEqual(Buffer.concat(known));
      },
    ),
    { numRuns: 1_000 },
  );
});
