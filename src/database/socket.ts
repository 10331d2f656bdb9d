import { Socket } from 'node:net';
import { LENT } from './bytes.ts';

/**
 * A socket that reads into the same bytes again and again, and lends them to whoever listens: new ones for whatever arrives
 * would be most of what a process has to clear away.
 */
export const reading = (): Socket => {
  const buffer = Buffer.allocUnsafeSlow(LENT);
  const socket: Socket = new Socket({
    onread: {
      buffer,
      callback: (length) => {
        socket.emit('data', buffer.subarray(0, length));
        return true;
      },
    },
  });
  return socket;
};

/**
 * Hands what arrives to the reader of the moment, once there is one, and else to the one that `pg` attaches, which keeps it.
 * An exception in either is an error of the stream: what a broken server sends must hit nobody else.
 */
export const guarded = (stream: Socket, readerOf: () => ((chunk: Buffer) => void) | undefined): Socket =>
  Object.create(stream, {
    on: {
      value: (event: string, listener: (chunk: Buffer) => void) =>
        stream.on(event, (chunk: Buffer) => {
          const read = event === 'data' ? readerOf() : listener;
          try {
            if (read) read(chunk);
            else listener(Buffer.from(chunk));
          } catch (error) {
            stream.destroy(error as Error);
          }
        }),
    },
  });
