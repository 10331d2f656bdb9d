/** What goes before each message on a gRPC stream: a flag that says it is not compressed, and its length. */
export const PREFIX = 5;

const FRAME = Symbol('the frame of a message');

/** A message, and the frame that it lies in, if it has been made in one. */
type Message = Uint8Array & { readonly [FRAME]?: Uint8Array };

/** Writes what goes before a message of that length; returns where the message begins. */
export const writePrefix = (frame: Buffer, at: number, length: number): number => {
  frame[at] = 0;
  return frame.writeUInt32BE(length, at + 1);
};

/** The message that lies in a frame behind the room for what goes before it, which is filled. */
export const messageIn = (frame: Buffer): Buffer => {
  const message = frame.subarray(writePrefix(frame, 0, frame.length - PREFIX));
  return Object.assign(message, { [FRAME]: frame });
};

/** The frame of a message that has been made in one: to be sent as it is, and not to be copied. */
export const frameOf = (message: Message): Uint8Array | undefined => message[FRAME];
