/** What goes before each message: a flag that says it is not compressed, and its length. */
const PREFIX = 5;
/** Bytes that are handed over at once: enough to cost little, little enough to be set aside again and again. */
const PIECE = 64 * 1024;

const prefix = (out: Buffer, at: number, length: number): number => {
  out[at] = 0;
  return out.writeUInt32BE(length, at + 1);
};

/**
 * Messages as gRPC has them on a stream, many in a piece: each write costs as much as encoding several rows.
 *
 * A message that fills a piece by itself is not copied.
 */
export function* framed(messages: Iterable<Uint8Array>): Generator<Uint8Array> {
  let piece = Buffer.allocUnsafe(PIECE);
  let at = 0;
  for (const message of messages) {
    const { length } = message;
    if (at > 0 && at + PREFIX + length > PIECE) {
      yield piece.subarray(0, at);
      piece = Buffer.allocUnsafe(PIECE);
      at = 0;
    }
    at = prefix(piece, at, length);
    if (at + length > PIECE) {
      yield piece.subarray(0, at);
      yield message;
      piece = Buffer.allocUnsafe(PIECE);
      at = 0;
    } else {
      piece.set(message, at);
      at += length;
    }
  }
  if (at > 0) yield piece.subarray(0, at);
}
