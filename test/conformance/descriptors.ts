import {
  createFileRegistry,
  type DescMessage,
  type DescMethod,
  type FileRegistry,
  fromBinary,
  type Message,
} from '@bufbuild/protobuf';
import type { GenMessage, GenService } from '@bufbuild/protobuf/codegenv2';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import type { ControlCall } from '../../src/server/endpoint.ts';

/** A message of a type that is known at run time only, its fields named as in generated code. */
export type Fields<T> = Message & T;

/** An RPC of a service that is known at run time only. */
export interface Rpc<Kind extends DescMethod['methodKind'], Request extends Message> {
  readonly methodKind: Kind;
  readonly input: GenMessage<Request>;
  readonly output: DescMessage;
}

/** The types of a FileDescriptorSet, its services without the RPCs that are left out. */
export const readDescriptors = (bytes: Uint8Array, leftOut: readonly string[]): FileRegistry => {
  const set = fromBinary(FileDescriptorSetSchema, bytes);
  for (const { service: services } of set.file) {
    for (const service of services) service.method = service.method.filter(({ name }) => !leftOut.includes(name));
  }
  return createFileRegistry(set);
};

/** A message type that must be there. */
export const messageOf = (types: FileRegistry, name: string): DescMessage => {
  const found = types.getMessage(name);
  if (!found) throw new Error(`there is no ${name}`);
  return found;
};

/** A service that must be there, and has these RPCs. */
export const serviceOf = <M extends Readonly<Record<string, Pick<DescMethod, 'methodKind' | 'input' | 'output'>>>>(
  types: FileRegistry,
  name: string,
): GenService<M> => {
  const found = types.getService(name);
  if (!found) throw new Error(`there is no ${name}`);
  return found as GenService<M>;
};

/** Headers of a call as they were sent, by name, without those that HTTP/2 has for itself. */
export const sentHeaders = ({ sent }: Pick<ControlCall, 'sent'>): Map<string, string[]> => {
  const headers = new Map<string, string[]>();
  for (let at = 0; at < sent.length; at += 2) {
    const name = sent[at]!.toLowerCase();
    if (!name.startsWith(':')) headers.set(name, [...(headers.get(name) ?? []), sent[at + 1]!]);
  }
  return headers;
};

/** Waits, as long as the call lasts. */
export const pause = async (ms: number, { signal }: Pick<ControlCall, 'signal'>): Promise<void> => {
  if (ms > 0) {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms);
      signal.addEventListener('abort', () => {
        clearTimeout(timer);
        resolve();
      });
    });
  }
  signal.throwIfAborted();
};
