import { readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { type DescMethod, fromJson, getOption } from '@bufbuild/protobuf';
import { Ajv, type ErrorObject } from 'ajv';
import schema from '../../scenarios/scenario.schema.json' with { type: 'json' };
import { access, MethodAccess } from '../gen/hoc/cus/policies/v1/access_pb.ts';
import { ConfigError } from '../setting-forms.ts';
import { methods } from './methods.ts';
import { type CallStep, isCall, type Scenario, type Step } from './scenario.ts';
import { mentioned, Variables } from './variables.ts';

const validate = new Ajv({ allErrors: false, strict: false }).compile<Omit<Scenario, 'name'>>(schema);

const schemaProblem = ([error]: readonly ErrorObject[]): string => {
  const { instancePath, message, params } = error!;
  const { additionalProperty } = params as { additionalProperty?: string };
  return `${instancePath || 'it'} ${message}${additionalProperty === undefined ? '' : `: ${additionalProperty}`}`;
};

/** Whether a step that succeeds leaves something behind. */
const writes = ({ call, transaction }: CallStep, method: DescMethod): boolean => {
  if (call === 'TransactionService/Commit' || call === 'TransactionService/Execute') return true;
  return transaction === 'single-use' && getOption(method, access) === MethodAccess.WRITE;
};

const stepProblem = (step: Step, known: ReadonlySet<string>, kept: ReadonlySet<string>, commits: boolean) => {
  if (!isCall(step)) return kept.has(step.leave) ? undefined : `no stream was kept as ${step.leave}`;
  const method = methods.get(step.call);
  if (method === undefined) return `there is no RPC ${step.call}`;
  const stream = method.methodKind === 'server_streaming';
  if (step.take !== undefined && !stream) return `${step.call} is no stream`;
  if (step.keep !== undefined && step.take === undefined) return '`keep` needs `take`';
  const missing = mentioned(step).find((name) => !known.has(name));
  if (missing !== undefined) return `nothing was captured as ${missing}`;
  if (writes(step, method) && !commits && step.expect?.error === undefined)
    return '`commits` must be true, for it commits';
  const values = new Variables();
  for (const name of known) values.set(name, '0');
  try {
    fromJson(method.input, values.fill(step.request ?? {}));
  } catch (error) {
    return (error as Error).message;
  }
  return undefined;
};

/** What is wrong with its steps; undefined where nothing is. */
const problemOf = ({ steps, cleanup = [], commits = false }: Omit<Scenario, 'name'>): string | undefined => {
  const known = new Set<string>();
  const kept = new Set<string>();
  for (const [index, step] of [...steps, ...cleanup].entries()) {
    const problem = stepProblem(step, known, kept, commits);
    if (problem !== undefined) {
      return index < steps.length ? `step ${index + 1}: ${problem}` : `cleanup ${index - steps.length + 1}: ${problem}`;
    }
    if (!isCall(step)) continue;
    for (const name of Object.keys(step.capture ?? {})) known.add(name);
    if (step.keep !== undefined) kept.add(step.keep);
  }
  return undefined;
};

/**
 * A scenario of what a file holds.
 *
 * @throws ConfigError with the name of the file and what is wrong with it.
 */
export const scenarioOf = (file: string, content: unknown): Scenario => {
  if (!validate(content)) throw new ConfigError(`${file}: ${schemaProblem(validate.errors!)}`);
  const problem = problemOf(content);
  if (problem !== undefined) throw new ConfigError(`${file}: ${problem}`);
  return { ...content, name: basename(file, '.json') };
};

/** The scenarios of a folder, in the order of their names. */
export const loadFolder = (folder: string): Scenario[] => {
  let files: string[];
  try {
    files = readdirSync(folder);
  } catch (error) {
    throw new ConfigError(`--scenarios ${folder}: ${(error as Error).message}`);
  }
  const found = files.filter((file) => file.endsWith('.json') && !file.endsWith('.schema.json')).sort();
  if (found.length === 0) throw new ConfigError(`--scenarios ${folder}: there is no scenario`);
  return found.map((file) => {
    const path = join(folder, file);
    let content: unknown;
    try {
      content = JSON.parse(readFileSync(path, 'utf8'));
    } catch (error) {
      throw new ConfigError(`${path}: ${(error as Error).message}`);
    }
    return scenarioOf(path, content);
  });
};
