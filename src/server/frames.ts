import { frameOf, PREFIX, writePrefix } from '../statements/grpc-frame.ts';

/** Bytes that are handed over at once where there are so many: enough to cost little, little enough to be made again and again. */
const PIECE = 64 * 1024;

/** Messages as gRPC has them on a stream, many in a piece: each write costs as much as encoding several rows. */
export function* framed(messages: readonly Uint8Array[]): Generator<Uint8Array> {
  const frame = messages.length === 1 ? frameOf(messages[0]!) : undefined;
  if (frame) {
    yield frame;
    return;
  }
  for (let first = 0; first < messages.length; ) {
    let size = 0;
    let next = first;
    do {
      size += PREFIX + messages[next]!.length;
      next += 1;
    } while (next < messages.length && size + PREFIX + messages[next]!.length <= PIECE);
    const piece = Buffer.allocUnsafe(size);
    let at = 0;
    for (const message of messages.slice(first, next)) {
      at = writePrefix(piece, at, message.length);
      piece.set(message, at);
      at += message.length;
    }
    yield piece;
    first = next;
  }
}
