import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type DescMessage, type DescMethod, fromJson, type JsonValue, toJson } from '@bufbuild/protobuf';
import { Validator } from '@seriousme/openapi-schema-validator';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { expect, test } from 'vitest';
import { accessOf, isGet, nameOf, pathOf, readContract } from '../../reference/contract.ts';
import { openApiOf } from '../../reference/openapi.ts';
import { useSidecar } from '../support/use.ts';

interface Operation {
  readonly requestBody: { readonly content: Readonly<Record<string, { readonly example: JsonValue }>> };
  readonly responses: Readonly<Record<string, { readonly content: Readonly<Record<string, { example: JsonValue }>> }>>;
  readonly parameters: readonly { readonly $ref?: string }[];
}

interface Document {
  readonly paths: Readonly<Record<string, { readonly post: Operation; readonly get?: Operation }>>;
  readonly components: { readonly schemas: Readonly<Record<string, Record<string, unknown>>> };
}

const ROOT = join(import.meta.dirname, '..', '..');

const files = readContract();
const methods = files.flatMap(({ services }) => services.flatMap((service) => service.methods));
const unary = methods.filter(({ methodKind }) => methodKind === 'unary');
const document = openApiOf(files) as unknown as Document;

const requestOf = (method: DescMethod): JsonValue =>
  document.paths[pathOf(method)]!.post.requestBody.content['application/json']!.example;
const responseOf = (method: DescMethod): JsonValue =>
  document.paths[pathOf(method)]!.post.responses['200']!.content['application/json']!.example;

/** The schemas, with every message closed: an answer with a field that is not described is not described. */
const closed = structuredClone(document);
for (const schema of Object.values(closed.components.schemas)) {
  if (schema['properties']) schema['additionalProperties'] = false;
}
const ajv = new Ajv2020({ strict: false, logger: false, allErrors: true });
ajv.addFormat('date-time', /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.(?:\d{3}|\d{6}|\d{9}))?Z$/);
ajv.addSchema(closed as object, 'document');

/** Why a value is none that the document describes by that name; empty where it is. */
const problemsOf = (name: string, value: unknown): string => {
  const validate = ajv.getSchema(`document#/components/schemas/${name}`)!;
  return validate(value) ? '' : `${name}: ${ajv.errorsText(validate.errors)} in ${JSON.stringify(value)}`;
};

const sidecar = useSidecar();

test('it is an OpenAPI 3.1 document', async () => {
  expect(await new Validator().validate(structuredClone(document) as unknown as Record<string, unknown>)).toEqual({
    valid: true,
  });
  expect(document).toMatchObject({ openapi: '3.1.1' });
});

test('it has every RPC that the contract declares', () => {
  const declared = globSync('proto/{hoc,grpc/health}/**/*.proto', { cwd: ROOT }).flatMap((path) => {
    const text = readFileSync(join(ROOT, path), 'utf8');
    const [, pack] = /^package (.*);$/m.exec(text)!;
    const services = text.split(/^service /m).slice(1);
    return services.flatMap((part) =>
      [...part.matchAll(/^ {2}rpc (\w+)/gm)].map(([, name]) => `/${pack}.${/^\w+/.exec(part)}/${name}`),
    );
  });
  expect(declared.length).toBeGreaterThan(176);
  expect(Object.keys(document.paths).sort()).toEqual(declared.sort());
});

test('reads can be called by GET, and streams say that they are streams', () => {
  for (const method of methods) {
    const { get, post } = document.paths[pathOf(method)]!;
    expect({ path: pathOf(method), get: get !== undefined }).toEqual({ path: pathOf(method), get: isGet(method) });
    const types = Object.keys(post.requestBody.content);
    expect(types).toEqual([method.methodKind === 'unary' ? 'application/json' : 'application/connect+json']);
  }
});

test('headers stand where they mean something', () => {
  const named = (path: string): string[] =>
    document.paths[`/hoc.cus.policies.v1.${path}`]!.post.parameters.map(({ $ref }) => $ref!.replace(/^.*\//, ''));
  const [inside, once, read] = [['transaction', 'transaction-sequence'], 'idempotency-key', 'consistency'];
  const late = 'connect-timeout-ms';
  expect(named('PolicyEngineService/FetchRiskCeilings')).toEqual([...inside, read, late]);
  expect(named('PolicyEngineService/ResetRiskCeiling')).toEqual([...inside, once, late]);
  expect(named('PolicyEngineService/StreamRiskCeilings')).toEqual(['transaction', late]);
  expect(named('TransactionService/Execute')).toEqual([...inside, once, 'documents', late]);
  expect(named('TransactionService/Commit')).toEqual(['transaction', late]);
  expect(named('TransactionService/Begin')).toEqual([late]);
});

test('its examples are messages in the very form in which the port writes them, and fit its schemas', () => {
  const same = (desc: DescMessage, example: JsonValue): void => {
    expect(toJson(desc, fromJson(desc, example))).toEqual(example);
    expect(problemsOf(nameOf(desc), example)).toBe('');
  };
  for (const method of unary) {
    same(method.input, requestOf(method));
    same(method.output, responseOf(method));
  }
});

test('what is no message of the contract does not fit its schemas', () => {
  expect(problemsOf('RiskCeiling', { windowSeconds: 'x' })).toMatch(/must be integer/);
  expect(problemsOf('RiskCeiling', { colour: 'red' })).toMatch(/must NOT have additional properties/);
  expect(problemsOf('ResetRiskCeilingResponse', { rowsAffected: 1 })).toMatch(/must be string/);
  expect(problemsOf('Transaction', { state: 1 })).toMatch(/must be string/);
  expect(problemsOf('Transaction', { beganAt: 'yesterday' })).toMatch(/must match format/);
  expect(problemsOf('Error', { code: 'wrong' })).toMatch(/allowed values/);
});

test('a running sidecar answers every RPC as it is described, results and refusals alike', async () => {
  const call = async (method: DescMethod, byGet: boolean): Promise<boolean> => {
    const url = `http://${sidecar.server.httpAddress}${pathOf(method)}`;
    const body = JSON.stringify(requestOf(method));
    const headers = accessOf(method) === 'write' ? { transaction: 'single-use' } : {};
    const response = byGet
      ? await fetch(`${url}?${new URLSearchParams({ connect: 'v1', encoding: 'json', message: body })}`)
      : await fetch(url, { method: 'POST', body, headers: { 'content-type': 'application/json', ...headers } });
    const answer: unknown = await response.json();
    expect(problemsOf(response.ok ? nameOf(method.output) : 'Error', answer)).toBe('');
    expect(answer).not.toMatchObject({ code: 'internal' });
    return response.ok;
  };
  // Writes first: then reads have something to tell.
  const answered: string[] = [];
  for (const method of unary.filter((each) => !isGet(each))) {
    if (await call(method, false)) answered.push(method.name);
  }
  for (const method of unary.filter(isGet)) {
    const byPost = await call(method, false);
    expect({ method: method.name, answered: await call(method, true) }).toEqual({
      method: method.name,
      answered: byPost,
    });
    if (byPost) answered.push(method.name);
  }
  expect(answered.length).toBeGreaterThan(unary.length * 0.7);
});
