import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { PageTokens } from '../../src/statements/page-tokens.ts';

const opened = (key: string): PageTokens => {
  const tokens = new PageTokens();
  tokens.open(Buffer.from(key));
  return tokens;
};

const place = fc.string({ unit: 'binary', maxLength: 12 }).map((text) => text.toWellFormed());
const bound = fc.uint8Array({ maxLength: 12 }).map((bytes) => Buffer.from(bytes));

// Tokens are kept for a while. Whatever was made before, one says what it was made of, and nothing else.
test('a token is the same whoever makes it and after whatever, and is read where it was made for alone', () => {
  // More of them than are kept.
  const asked = fc.array(fc.tuple(place, bound), { minLength: 1, maxLength: 150 });
  fc.assert(
    fc.property(asked, fc.infiniteStream(fc.nat()), (all, order) => {
      const tokens = opened('key');
      for (const at of order.take(200)) {
        const [text, of] = all[at % all.length]!;
        const token = tokens.make(text, of);
        expect(token).toBe(opened('key').make(text, of));
        expect(tokens.read(token, of)).toBe(text);
        expect(tokens.read(token, Buffer.concat([of, Buffer.from('x')]))).toBeUndefined();
      }
    }),
    { numRuns: 20 },
  );
});

test('where a place ends and what it is of begins makes a difference', () => {
  const tokens = opened('key');
  const made = [
    tokens.make('1:ab', Buffer.from('')),
    tokens.make('b', Buffer.from('1:a')),
    tokens.make('ab', Buffer.from('1:')),
    tokens.make(':ab', Buffer.from('1')),
  ];
  expect(new Set(made).size).toBe(made.length);
});

test('a new key makes other tokens at once', () => {
  const tokens = opened('key');
  const before = tokens.make('place', Buffer.from('list'));
  tokens.open(Buffer.from('other'));
  expect(tokens.make('place', Buffer.from('list'))).toBe(opened('other').make('place', Buffer.from('list')));
  expect(tokens.read(before, Buffer.from('list'))).toBeUndefined();
});

test('few of them are kept, however many are made', () => {
  setFlagsFromString('--expose-gc');
  const clear = runInNewContext('gc') as () => void;
  const inUse = (): number => {
    clear();
    return process.memoryUsage().heapUsed;
  };
  const tokens = opened('key');
  const before = inUse();
  for (let at = 0; at < 20_000; at += 1) tokens.make(`${at}`.padStart(1_000, 'x'), Buffer.from('list'));
  expect(inUse() - before).toBeLessThan(10_000_000);
  // Story: 64 requests of some megabytes were kept for the tokens that had been made for them.
  for (let at = 0; at < 64; at += 1) tokens.make(`${at}`, Buffer.alloc(1_000_000, `${at}`));
  expect(inUse() - before).toBeLessThan(10_000_000);
  expect(tokens.make('last', Buffer.from('list'))).toBe(opened('key').make('last', Buffer.from('list')));
});
