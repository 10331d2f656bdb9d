import { parseArgs } from 'node:util';
import { ConfigError } from './setting-forms.ts';
import { SETTINGS, type Setting } from './settings.ts';

/** A number of any unit, once it is parsed. */
type Plain<T> = T extends number ? number : T;

/** Everything that can be set, checked and complete: each is what its setting says. Times are milliseconds. */
export type Config = {
  readonly [K in keyof typeof SETTINGS]: Plain<ReturnType<(typeof SETTINGS)[K]['parse']>>;
};

/** `SIDECAR_POOL_MAX` -> `pool-max`. */
const flagOf = ({ variable }: Pick<Setting<unknown>, 'variable'>): string =>
  variable
    .replace(/^SIDECAR_/, '')
    .toLowerCase()
    .replaceAll('_', '-');

const LOOPBACK = /^(?:unix:|127\.\d+\.\d+\.\d+:|localhost:|\[::1\]:)/;

const refuseOpenDoors = (config: Config): void => {
  if (config.tokensFile !== undefined || config.tlsClientCa !== undefined || config.allowUnauthenticated) return;
  for (const listen of [config.grpcListen, config.httpListen]) {
    if (listen !== undefined && !LOOPBACK.test(listen)) {
      throw new ConfigError(
        `${listen} is reachable from other machines: set SIDECAR_TOKENS_FILE or SIDECAR_TLS_CLIENT_CA, or SIDECAR_ALLOW_UNAUTHENTICATED=on`,
      );
    }
  }
};

const refuseHalfTls = ({ tlsCert, tlsKey, tlsClientCa }: Config): void => {
  if ((tlsCert === undefined) !== (tlsKey === undefined)) {
    throw new ConfigError('SIDECAR_TLS_CERT and SIDECAR_TLS_KEY go together');
  }
  if (tlsClientCa !== undefined && tlsCert === undefined) {
    throw new ConfigError('SIDECAR_TLS_CLIENT_CA goes with SIDECAR_TLS_CERT and SIDECAR_TLS_KEY');
  }
};

/**
 * Reads the configuration: a flag wins over its environment variable, which wins over the default. An empty variable
 * is an unset one.
 *
 * @throws ConfigError with one line that names the setting.
 */
export const loadConfig = (argv: readonly string[], env: Readonly<Record<string, string | undefined>>): Config => {
  const options = Object.fromEntries(
    Object.values(SETTINGS).map((each) => [flagOf(each), { type: 'string' as const }]),
  );
  let flags: Record<string, unknown>;
  try {
    flags = parseArgs({ args: [...argv], options, strict: true, allowPositionals: false }).values;
  } catch (error) {
    throw new ConfigError((error as Error).message.split(/\. |\n/)[0]);
  }
  const read = (key: keyof Config): Config[keyof Config] => {
    const each = SETTINGS[key];
    const flag = flags[flagOf(each)] as string | undefined;
    const text = flag ?? (env[each.variable] || each.fallback);
    try {
      return each.parse(text);
    } catch (error) {
      const name = flag === undefined ? each.variable : `--${flagOf(each)}`;
      const found = each.isSecret ? '' : `, not "${text}"`;
      throw new ConfigError(`${name} ${(error as Error).message}${found}`);
    }
  };
  const keys = Object.keys(SETTINGS) as (keyof Config)[];
  const config = Object.fromEntries(keys.map((key) => [key, read(key)])) as { [K in keyof Config]: Config[K] };
  refuseHalfTls(config);
  refuseOpenDoors(config);
  return config;
};

/** What `--help` says about settings. */
export const settingsHelp = (): string =>
  Object.values(SETTINGS)
    .map((each) => {
      const fallback = each.fallback === '' ? 'none' : each.fallback;
      return `  --${flagOf(each)} <${each.form}>\n      ${each.meaning} (${each.variable}; default ${fallback})`;
    })
    .join('\n');
