import { readdirSync } from 'node:fs';
import { type DescMessage, type DescMethodUnary, type DescService, fromJson, type JsonValue } from '@bufbuild/protobuf';
import { Code } from '../../src/contract/errors.ts';
import { CallError } from '../support/client.ts';
import type { TestSidecar } from '../support/sidecar.ts';
import { rowOf } from './answers.ts';
import type { Row } from './compare.ts';
import { inventory } from './format.ts';
import { requestText, type StoredTexts } from './requests.ts';
import { type Golden, isMap } from './values.ts';

const GENERATED = new URL('../../src/gen/hoc/cus/policies/v1/', import.meta.url);
const modules: Record<string, unknown>[] = await Promise.all(
  readdirSync(GENERATED).map((file) => import(new URL(file, GENERATED).href)),
);

/** Every service of the package, by its short name. */
export const services: ReadonlyMap<string, DescService> = new Map(
  modules
    .flatMap((module) => Object.values(module))
    .filter((each): each is DescService => (each as { kind?: string } | null)?.kind === 'service')
    .map((service) => [service.name, service]),
);

/** A driver's method and the RPC that stands for it. */
export interface Operation {
  readonly driver: string;
  readonly name: string;
  readonly kind: 'read' | 'write' | 'compute';
  readonly method: DescMethodUnary;
}

const rows = new Map(inventory().map((row) => [`${row.driver}.${row.method}`, row]));

/** What the original does with a tracked object instead of a method. */
const OBJECT_METHODS: Readonly<Record<string, string>> = {
  'policy_rules_driver.set_fields': 'PolicyRulesService/UpdateRule',
  'policy_rules_driver.retire': 'PolicyRulesService/RetireRule',
};

/** The RPC of a driver's method; throws when there is none. */
export const operation = (driver: string, name: string): Operation => {
  const row = rows.get(`${driver}.${name}`);
  const rpc = row?.rpc ?? OBJECT_METHODS[`${driver}.${name}`];
  if (!rpc) throw new Error(`the inventory has no RPC for ${driver}.${name}`);
  const [service, method] = rpc.split('/') as [string, string];
  const found = services.get(service)?.methods.find((each) => each.name === method);
  if (found?.methodKind !== 'unary') throw new Error(`there is no RPC ${rpc}`);
  return { driver, name, kind: row?.kind ?? 'write', method: found as DescMethodUnary };
};

/**
 * Drivers over the client that merges arguments into the statement. Their calls each have a savepoint of their own inside
 * a transaction; the other client has typed parameters, and the first error ends the transaction.
 */
export const SYNCHRONOUS = new Set([
  'policy_engine_driver',
  'policy_read_driver',
  'recovery_matcher',
  'recovery_write_driver',
  'arbitrator',
  'scope_resolver',
]);

/** Columns by which a table of the closed set is listed; the others by their name. */
const NAME_COLUMNS: Readonly<Record<string, string>> = {
  policy_versions: 'version',
  policy_dependencies: 'source_policy',
};

/** Whether the closed set of tables fixes this very column; SQL reads the names in any letter case. */
export const isNameColumn = (table: Golden, column: Golden): boolean =>
  String(column).toLowerCase() === (NAME_COLUMNS[String(table).toLowerCase()] ?? 'name');

/** Arguments that the request has no field for, because another one says the same. */
const isImplied = (
  driver: string,
  name: string,
  argument: string,
  args: { readonly [name: string]: Golden },
): boolean =>
  `${driver}.${name}.${argument}` === 'policy_engine_driver.fetch_active_policies_for_integrity.name_col' &&
  isNameColumn(args['table']!, args[argument]!);

/** Arguments whose name the request has changed. */
const RENAMED: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  'recovery_write_driver.update_recovery_candidate': { fields: 'updates' },
  'recovery_write_driver.upsert_recovery_candidate': { explain_json: 'explain' },
  'recovery_write_driver.insert_suggestion_provenance': { details_json: 'details' },
};

/** Methods that ignore arguments they do not know. */
const INDULGENT = new Set([
  'policy_rules_driver.create_rule',
  'policy_rules_driver.create_integrity',
  'recovery_matcher.suggest',
]);

/** Arguments that are built with what their class knows of the given names. */
const BUILT: Readonly<Record<string, string>> = {
  'policy_rules_driver.add_rule': 'rule',
  'policy_rules_driver.add_integrity': 'integrity',
};

const built = (desc: DescMessage, name: string, value: Golden): Golden => {
  const message = desc.fields.find((field) => field.name === name)?.message;
  if (!message || !isMap(value)) return value;
  return Object.fromEntries(Object.entries(value).filter(([key]) => message.fields.some((each) => each.name === key)));
};

/** The answer to a call: the response, or how it was refused. */
export type Answer = { readonly response: Row } | { readonly refusal: CallError };

/** Where calls go to. */
export interface Target {
  readonly sidecar: TestSidecar;
  readonly storedTexts: StoredTexts;
}

/** Half of a surrogate pair, as JSON is written with it. */
const HALF_PAIR = /\\ud[89a-f]/;

/** A request that its own message type cannot hold goes as text: it is for the server to refuse it. */
const sendText = async ({ sidecar }: Target, { method }: Operation, body: string, header?: string): Promise<Answer> => {
  const url = `http://${sidecar.server.httpAddress}/${method.parent.typeName}/${method.name}`;
  const headers = { 'content-type': 'application/json', ...(header ? { transaction: header } : {}) };
  const answer = await fetch(url, { method: 'POST', headers, body });
  const json = (await answer.json()) as { code: string; message: string };
  if (answer.ok) return { response: rowOf(method.output, fromJson(method.output, json)) };
  return { refusal: new CallError(Code[json.code.toUpperCase() as keyof typeof Code], json.message, []) };
};

/** Calls the RPC of a driver's method with the method's arguments. */
export const send = async (
  target: Target,
  called: Operation,
  args: { readonly [name: string]: Golden },
  header?: string,
): Promise<Answer> => {
  const { method, driver, name } = called;
  const renamed = RENAMED[`${driver}.${name}`] ?? {};
  const named = Object.fromEntries(
    Object.entries(args).flatMap(([key, value]) => {
      const field = renamed[key] ?? key;
      const known = method.input.fields.some((each) => each.name === field);
      return isImplied(driver, name, key, args) || (!known && INDULGENT.has(`${driver}.${name}`))
        ? []
        : [[field, BUILT[`${driver}.${name}`] === field ? built(method.input, field, value) : value]];
    }),
  );
  const documents = Object.keys(args).filter((key) => key.endsWith('_json'));
  const jsonTexts = new Set(documents.map((key) => renamed[key] ?? key));
  const text = requestText(method.input, named, {
    isJsonText: (argument) => driver === 'policy_engine_driver' || jsonTexts.has(argument),
    storedTexts: target.storedTexts,
    isTyped: !SYNCHRONOUS.has(driver),
  });
  let request: Parameters<TestSidecar['grpc']['unary']>[1];
  try {
    const json = JSON.parse(text) as JsonValue;
    // A binary message would hold another character instead.
    if (HALF_PAIR.test(JSON.stringify(json))) return sendText(target, called, text, header);
    request = fromJson(method.input, json);
  } catch {
    return sendText(target, called, text, header);
  }
  try {
    const init = header === undefined ? {} : { transaction: header };
    return { response: rowOf(method.output, await target.sidecar.grpc.unary(method, request, init)) };
  } catch (error) {
    if (error instanceof CallError) return { refusal: error };
    throw error;
  }
};
