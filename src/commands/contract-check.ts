import { writeFileSync } from 'node:fs';
import { EXIT } from '../exit.ts';
import { type Channel, callRpc, grpcChannel, httpChannel, type TlsFiles } from '../scenarios/channel.ts';
import { loadFolder } from '../scenarios/load.ts';
import { methods } from '../scenarios/methods.ts';
import { allHold, junitXml, resultText, type Suite, summaryText } from '../scenarios/report.ts';
import { type Result, type RunOptions, runScenario } from '../scenarios/runner.ts';
import type { Scenario } from '../scenarios/scenario.ts';
import { shipped } from '../scenarios/shipped.ts';
import { ConfigError } from '../setting-forms.ts';
import { lookWritable } from '../writable-file.ts';
import { complain, say } from './output.ts';

/** What is put to which sidecar. */
export interface ContractOptions extends RunOptions {
  /** `host:port` or `unix:/path` of gRPC. */
  readonly target: string;
  /** URL of the HTTP port; undefined leaves it out. */
  readonly http: string | undefined;
  readonly tls: TlsFiles;
  /** A folder of scenarios; undefined: those that ship. */
  readonly folder: string | undefined;
  /** Names of those to run; undefined: all. */
  readonly only: readonly string[] | undefined;
  /** Where the report goes as JUnit's XML. */
  readonly junit: string | undefined;
}

const chosen = ({ folder, only }: ContractOptions): Scenario[] => {
  const all = folder === undefined ? shipped() : loadFolder(folder);
  const unknown = only?.find((name) => !all.some((scenario) => scenario.name === name));
  if (unknown !== undefined) throw new ConfigError(`--only ${unknown}: there is no such scenario`);
  return only === undefined ? all : all.filter(({ name }) => only.includes(name));
};

/** Why nobody answers there. */
const silence = async (channel: Channel): Promise<string | undefined> => {
  const { reply } = await callRpc(channel, methods.get('Health/Check')!, { request: {}, headers: {} });
  const { refusal } = reply;
  // What OpenSSL says ends its line itself.
  return refusal?.reason === undefined ? refusal?.message.trim() : undefined;
};

const put = async (channel: Channel, scenarios: readonly Scenario[], options: ContractOptions): Promise<Suite> => {
  say(channel.name);
  const results: Result[] = [];
  for (const scenario of scenarios) {
    const result = await runScenario(channel, scenario, options);
    say(resultText(result));
    results.push(result);
  }
  return { name: channel.name, results };
};

/** `contract`: puts scenarios to a sidecar that runs, and says which of them hold. */
export const contract = async (options: ContractOptions): Promise<number> => {
  const scenarios = chosen(options);
  const { target, http, tls, junit } = options;
  if (junit !== undefined) {
    await lookWritable(junit).catch(({ code }: NodeJS.ErrnoException) => {
      throw new ConfigError(`--junit ${junit} cannot be written (${code})`);
    });
  }
  const channels = [grpcChannel(target, tls), ...(http === undefined ? [] : [httpChannel(http, tls)])];
  const suites: Suite[] = [];
  try {
    for (const channel of channels) {
      const why = await silence(channel);
      if (why !== undefined) return complain(`${channel.name} is no sidecar that answers: ${why}`, EXIT.no);
    }
    for (const channel of channels) suites.push(await put(channel, scenarios, options));
  } finally {
    for (const channel of channels) channel.close();
  }
  if (junit !== undefined) writeFileSync(junit, junitXml(suites));
  say(summaryText(suites));
  return allHold(suites) ? EXIT.done : EXIT.no;
};
