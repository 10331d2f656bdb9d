import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import {
  type AnyDesc,
  createFileRegistry,
  type DescFile,
  type DescMessage,
  type DescMethod,
  fromBinary,
  getOption,
} from '@bufbuild/protobuf';
import { FileDescriptorSetSchema, MethodOptions_IdempotencyLevel } from '@bufbuild/protobuf/wkt';
import { getComments } from '@bufbuild/protoplugin';
import { access, MethodAccessSchema } from '../src/gen/hoc/cus/policies/v1/access_pb.ts';

const ROOT = join(import.meta.dirname, '..');
const BUF = join(ROOT, 'node_modules', '.bin', 'buf');
const PACKAGE = 'hoc.cus.policies.v1.';

/** Files whose services and messages are described: the contract, health, and the details of errors. */
const DESCRIBED = /^(?:hoc\/|grpc\/health\/|google\/rpc\/error_details)/;

/** The contract with its comments, as the compiler reads it. */
export const readContract = (): readonly DescFile[] => {
  const image = execFileSync(BUF, ['build', '-o', '-'], { cwd: ROOT, maxBuffer: 64 << 20 });
  const files = createFileRegistry(fromBinary(FileDescriptorSetSchema, image)).files;
  return [...files].filter(({ proto }) => DESCRIBED.test(proto.name)).sort((a, b) => (a.name < b.name ? -1 : 1));
};

/** Name of a type within the contract; that of others in full. */
export const nameOf = ({ typeName }: { readonly typeName: string }): string =>
  typeName.startsWith(PACKAGE) ? typeName.slice(PACKAGE.length) : typeName;

/** What is written above a declaration: Markdown. */
export const commentOf = (desc: Exclude<AnyDesc, { kind: 'file' | 'extension' }>): string =>
  (getComments(desc).leading ?? '').replace(/^ /gm, '').trim();

/** What is written above the syntax of a file. */
export const titleOf = (file: DescFile): string => {
  const [location] = file.proto.sourceCodeInfo?.location.filter(({ path }) => path.join() === '12') ?? [];
  return (location?.leadingComments ?? '').replace(/^ /gm, '').trim();
};

/** What an RPC does to the database; `none` for those of published formats. */
export type Access = 'read' | 'write' | 'compute' | 'control' | 'none';

export const accessOf = (method: DescMethod): Access => {
  const said = MethodAccessSchema.value[getOption(method, access)]!.localName.toLowerCase();
  return said === 'unspecified' ? 'none' : (said as Access);
};

/** Whether an RPC may be called by GET. */
export const isGet = ({ methodKind, idempotency }: DescMethod): boolean =>
  methodKind === 'unary' && idempotency === MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS;

/** The page that describes a file. */
export const fileNameOf = ({ name }: DescFile): string => `${name.replace(/^.*\//, '')}.html`;

/** `/service/method`. */
export const pathOf = ({ parent, name }: DescMethod): string => `/${parent.typeName}/${name}`;

/** All messages that a file declares, nested ones after the one that holds them. */
export const messagesOf = (messages: readonly DescMessage[]): DescMessage[] =>
  messages
    .filter(({ proto }) => !proto.options?.mapEntry)
    .flatMap((message) => [message, ...messagesOf(message.nestedMessages)]);
