import {
  type DescEnum,
  type DescField,
  type DescFile,
  type DescMessage,
  type DescMethod,
  ScalarType,
} from '@bufbuild/protobuf';
import { FeatureSet_FieldPresence } from '@bufbuild/protobuf/wkt';
import { Code } from '@connectrpc/connect';
import { codeToString } from '@connectrpc/connect/protocol-connect';
import { holdsDocuments } from '../src/contract/document-texts.ts';
import { VERSION } from '../src/version.ts';
import { type Access, accessOf, commentOf, fileNameOf, isGet, messagesOf, nameOf, pathOf } from './contract.ts';
import { isRequired } from './rules.ts';
import { type Json, refTo, sampleOf, schemaOfEnum, schemaOfMessage } from './schemas.ts';

const ABOUT = `The JSON port: Connect's unary calls. Messages are proto3 JSON: an int64 is a text, an instant RFC 3339, bytes are base64,
an enum value is its name, a field mask is one text, and a field that has its default is not written.

A stream cannot be described by OpenAPI: it is listed here, with its messages in \`application/connect+json\`, each after five
bytes (a flag byte, and the length as 32 bits, big-endian); the message after flag 2 ends it. \`grpcurl\` and the libraries of
Connect and gRPC read it.`;

const text = (name: string, description: string): Json => ({
  name,
  in: 'header',
  description,
  schema: { type: 'string' },
});

const PARAMETERS: Readonly<Record<string, Json>> = {
  transaction: text(
    'transaction',
    'Where the call belongs: the id of an open transaction, or `single-use`. A write needs it.',
  ),
  'transaction-sequence': {
    ...text(
      'transaction-sequence',
      'A number that the caller chooses, inside an open transaction: a retry with the same one is not run again.',
    ),
    schema: { type: 'string', pattern: '^\\d{1,18}$' },
  },
  'idempotency-key': {
    ...text(
      'idempotency-key',
      'A UUID, with which a `single-use` write, or an `Execute` of its own, takes effect once.',
    ),
    schema: { type: 'string', format: 'uuid' },
  },
  consistency: text(
    'consistency',
    'What a read outside transactions has to see: `strong` (as without it), `eventual`, or a token of `consistency-token`.',
  ),
  documents: {
    ...text(
      'documents',
      'How the documents of request and answer are written: as `values` (as without it), or as `text`, strings of their exact JSON text.',
    ),
    schema: { type: 'string', enum: ['values', 'text'] },
  },
  connect: { name: 'connect', in: 'query', required: true, schema: { const: 'v1' }, example: 'v1' },
  encoding: { name: 'encoding', in: 'query', required: true, schema: { const: 'json' }, example: 'json' },
  'connect-timeout-ms': {
    ...text('connect-timeout-ms', 'Milliseconds that the caller waits.'),
    schema: { type: 'string', pattern: '^\\d{1,10}$' },
  },
};

const HEADERS: Readonly<Record<string, Json>> = {
  'trailer-inexact-values': {
    description: 'Stored values that their fields could not hold, and how they arrived instead.',
    schema: { type: 'string' },
  },
  'trailer-consistency-token': {
    description: 'What a later read may name in `consistency` to see this write.',
    schema: { type: 'string' },
  },
};

/** Codes as Connect writes them. */
const CODES = Object.values(Code)
  .filter((code) => typeof code === 'number')
  .map(codeToString);

const DETAILS = ['ErrorInfo', 'RetryInfo', 'BadRequest', 'PreconditionFailure'].map((name) => `google.rpc.${name}`);

const ERROR: Json = {
  type: 'object',
  description: 'What a call is refused with, whatever its HTTP status. `google.rpc.ErrorInfo` has an `ErrorReason`.',
  required: ['code'],
  properties: {
    code: { type: 'string', enum: CODES },
    message: { type: 'string', description: 'For people.' },
    details: {
      type: 'array',
      description: 'For programs.',
      items: {
        type: 'object',
        required: ['type', 'value'],
        properties: {
          type: { type: 'string', description: 'Name of the message.', examples: DETAILS },
          value: {
            type: 'string',
            contentEncoding: 'base64',
            description: 'The message in protobuf, without padding.',
          },
          debug: { anyOf: DETAILS.map(refTo), description: 'The same as JSON.' },
        },
      },
    },
  },
};

const REFUSED: Json = {
  code: 'failed_precondition',
  message: 'a write needs a `transaction` header: the id of an open transaction, or `single-use`',
  details: [
    {
      type: 'google.rpc.ErrorInfo',
      value: 'ChRUUkFOU0FDVElPTl9SRVFVSVJFRBIMcG9saWNpZXMuaG9j',
      debug: { reason: 'TRANSACTION_REQUIRED', domain: 'policies.hoc' },
    },
  ],
};

/** Headers that mean something to an RPC. */
const headersOf = (method: DescMethod, access: Access): string[] => {
  const stream = method.methodKind !== 'unary';
  const runs = method.name === 'Execute';
  const ofTransactions =
    access === 'control' && (method.input.fields.some(({ name }) => name === 'transaction_id') || runs);
  const inside = access === 'read' || access === 'write' || access === 'compute' || ofTransactions;
  return [
    ...(inside ? ['transaction'] : []),
    ...(!stream && (access === 'read' || access === 'write' || runs) ? ['transaction-sequence'] : []),
    ...(access === 'write' || runs ? ['idempotency-key'] : []),
    ...(!stream && access === 'read' ? ['consistency'] : []),
    ...(holdsDocuments(method.input) || holdsDocuments(method.output) ? ['documents'] : []),
    'connect-timeout-ms',
  ];
};

const MEANING: Readonly<Record<Access, string>> = {
  read: 'reads the database.',
  write: 'writes, and is refused without a `transaction` header.',
  compute: 'computes, and touches no table.',
  control: 'deals with transactions itself.',
  none: 'anybody may ask, without a token.',
};

const parameter = (name: string): Json => ({ $ref: `#/components/parameters/${name}` });
const json = (schema: Json, example: Json): Json => ({ 'application/json': { schema, example } });

const isWanted = (field: DescField): boolean => {
  if (field.oneof || isRequired(field)) return true;
  const single =
    field.fieldKind === 'enum' ||
    (field.fieldKind === 'scalar' && (field.scalar === ScalarType.STRING || field.name.endsWith('_id')));
  return single && field.presence === FeatureSet_FieldPresence.IMPLICIT && !/; empty(?: for|:)/.test(commentOf(field));
};

/** What a call needs: the fields that are required, ids, and one change where a mask names changes. */
const requestSample = (desc: DescMessage): Json => {
  const sample = sampleOf(desc, isWanted);
  const { updateMask, updates } = desc.field;
  const [first] = updates?.message?.fields ?? [];
  if (!updateMask || !first) return sample;
  return {
    ...sample,
    [updates!.jsonName]: sampleOf(updates!.message!, (field) => field === first),
    [updateMask.jsonName]: first.jsonName,
  };
};

/** First sentence of a comment, on one line. */
export const firstSentence = (comment: string): string =>
  (/^[\s\S]*?\.(?=\s|$)/.exec(comment)?.[0] ?? comment).replace(/\s+/g, ' ').replace(/\.$|`/g, '');

const described = (method: DescMethod, access: Access): Json => ({
  tags: [nameOf(method.parent)],
  summary: firstSentence(commentOf(method)),
  description: [
    commentOf(method),
    method.methodKind !== 'unary' && 'A stream: it cannot be tried here.',
    `Access \`${access}\`: ${MEANING[access]}`,
  ]
    .filter(Boolean)
    .join('\n\n'),
  operationId: `${nameOf(method.parent)}.${method.name}`,
  externalDocs: {
    url: `${fileNameOf(method.parent.file)}#${nameOf(method.parent)}.${method.name}`,
    description: 'Reference',
  },
  ...(access === 'none' ? { security: [] } : {}),
  'x-access': access,
});

/** What Connect sends with an answer that is no stream. */
const trailersOf = (method: DescMethod): string[] => {
  if (method.methodKind !== 'unary') return [];
  const commits = accessOf(method) === 'write' || method.name === 'Execute' || method.name === 'Commit';
  return ['trailer-inexact-values', ...(commits ? ['trailer-consistency-token'] : [])];
};

const answers = (method: DescMethod, content: Json): Json => ({
  '200': {
    description: commentOf(method.output),
    headers: Object.fromEntries(trailersOf(method).map((name) => [name, { $ref: `#/components/headers/${name}` }])),
    content,
  },
  default: { $ref: '#/components/responses/Refused' },
});

const streamed = (method: DescMethod, access: Access): Json => {
  const enveloped = ({ typeName }: DescMessage): Json => ({
    'application/connect+json': {
      schema: { description: `Messages \`${nameOf({ typeName })}\`, each after five bytes.` },
    },
  });
  return {
    post: {
      ...described(method, access),
      parameters: headersOf(method, access).map(parameter),
      requestBody: { required: true, content: enveloped(method.input) },
      responses: answers(method, enveloped(method.output)),
      'x-stream': method.methodKind,
      'x-request': refTo(nameOf(method.input)),
      'x-response': refTo(nameOf(method.output)),
    },
  };
};

const unary = (method: DescMethod, access: Access): Json => {
  const request = json(refTo(nameOf(method.input)), requestSample(method.input));
  const common = {
    ...described(method, access),
    parameters: headersOf(method, access).map(parameter),
    responses: answers(
      method,
      json(
        refTo(nameOf(method.output)),
        sampleOf(method.output, () => true),
      ),
    ),
  };
  const post = { ...common, requestBody: { required: true, content: request } };
  if (!isGet(method)) return { post };
  const message = { name: 'message', in: 'query', required: true, description: 'The request.', content: request };
  const query = [...['connect', 'encoding'].map(parameter), message];
  return {
    post,
    get: {
      ...common,
      operationId: `${nameOf(method.parent)}.${method.name}.get`,
      parameters: [...query, ...common.parameters],
    },
  };
};

const operationsOf = (method: DescMethod): Json =>
  (method.methodKind === 'unary' ? unary : streamed)(method, accessOf(method));

/** Messages and enums that the contract declares, those sent to the server alone closed. */
const schemasOf = (files: readonly DescFile[]): Json => {
  const messages = files.flatMap((file) => messagesOf(file.messages));
  const answered = new Set<DescMessage>();
  const add = (desc: DescMessage | undefined): void => {
    if (!desc || answered.has(desc)) return;
    answered.add(desc);
    for (const { message } of desc.fields) add(message);
  };
  for (const { methods } of files.flatMap(({ services }) => services)) for (const { output } of methods) add(output);
  for (const message of messages) if (message.typeName.startsWith('google.rpc.')) add(message);
  const enums: DescEnum[] = [
    ...files.flatMap((file) => file.enums),
    ...messages.flatMap(({ nestedEnums }) => nestedEnums),
  ];
  const entries = [
    ...messages.map((desc): [string, Json] => [nameOf(desc), schemaOfMessage(desc, !answered.has(desc))]),
    ...enums.map((desc): [string, Json] => [nameOf(desc), schemaOfEnum(desc)]),
  ];
  return Object.fromEntries([...entries, ['Error', ERROR]].sort(([a], [b]) => (a! < b! ? -1 : 1)));
};

/** The OpenAPI 3.1 document of the JSON port. */
export const openApiOf = (files: readonly DescFile[]): Json => {
  const services = files.flatMap((file) => file.services);
  return {
    openapi: '3.1.1',
    info: { title: 'policy-sidecar', version: VERSION, description: ABOUT },
    servers: [{ url: '/' }],
    security: [{}, { bearer: [] }],
    tags: services.map((service) => ({ name: nameOf(service), description: commentOf(service) })),
    paths: Object.fromEntries(
      services.flatMap(({ methods }) => methods.map((method) => [pathOf(method), operationsOf(method)])),
    ),
    components: {
      schemas: schemasOf(files),
      parameters: PARAMETERS,
      headers: HEADERS,
      responses: { Refused: { description: 'Refused, or failed.', content: json(refTo('Error'), REFUSED) } },
      securitySchemes: {
        bearer: {
          type: 'http',
          scheme: 'bearer',
          description: 'The token of the caller, where tokens are configured.',
        },
      },
    },
  };
};
