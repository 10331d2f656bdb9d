import type { Config } from '../config.ts';
import { txOf } from '../database/migrate/look.ts';
import { migrationStatus, OLDEST_SERVER, UnreachableError, withClient } from '../database/migrate/migrate.ts';
import { lackingFor } from '../database/migrate/serving-rights.ts';
import { hiddenTables, tenantsStatus } from '../database/migrate/tenant-policies.ts';
import { ENCODE, NO_ENCODING } from '../database/session-settings.ts';
import { readTarget } from '../database/target.ts';
import { drivers } from '../drivers/drivers.ts';
import { EmbeddedError } from '../embedded/data-folder.ts';
import { nativeFolder } from '../embedded/programs.ts';
import { EXIT } from '../exit.ts';
import { createLog } from '../log.ts';
import { createProviders } from '../providers/providers.ts';
import { AuditFile } from '../server/audit-file.ts';
import { authorizationReading, bindsTenants } from '../server/authorization.ts';
import { driverEndpoints, type Endpoint } from '../server/endpoint.ts';
import { tokenIdentity } from '../server/identity.ts';
import { Certificates } from '../server/tls.ts';
import { readOnce } from '../server/watched-file.ts';
import { ConfigError } from '../setting-forms.ts';
import { PageTokens } from '../statements/page-tokens.ts';
import { errors, say } from './output.ts';

/** One thing that was looked at: with a `lack` calls would fail, with a `note` they would not. */
interface Finding {
  readonly level: 'ok' | 'note' | 'lack';
  readonly what: string;
  /** What to do about it. */
  readonly remedy?: string;
}

const ok = (what: string): Finding => ({ level: 'ok', what });
const note = (what: string, remedy?: string): Finding => ({ level: 'note', what, ...(remedy ? { remedy } : {}) });
const lack = (what: string, remedy: string): Finding => ({ level: 'lack', what, remedy });

/** All that grants can speak of; nothing is asked of anybody for it. */
const endpointsOf = (config: Config): Endpoint[] => {
  const providers = createProviders(config, () => {});
  providers.close();
  return drivers(providers).flatMap(driverEndpoints(new PageTokens()));
};

/** Files as a start reads them, except that none is made. */
const files = async (config: Config): Promise<Finding[]> => {
  const log = createLog('silent', errors);
  const { tokensFile, tlsCert: cert, tlsKey: key, tlsClientCa: clientCa, authorizationFile, audit } = config;
  const found: Finding[] = [];
  const read = async (what: string, open: () => unknown): Promise<void> => {
    try {
      await open();
      found.push(ok(what));
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      found.push(lack(error.message, 'correct the file, its rights or its name'));
    }
  };
  if (tokensFile) {
    await read('the tokens file can be read', () => tokenIdentity(tokensFile, log, () => {}).close());
  }
  if (cert && key) {
    await read('the TLS files can be read', () => new Certificates({ cert, key, clientCa }, log).close());
  }
  if (authorizationFile) {
    const reading = authorizationReading(authorizationFile, endpointsOf(config));
    await read('the authorization file can be read', () => readOnce(reading));
  }
  if (audit !== undefined && audit !== 'log') {
    await read('the audit file can be written', () => AuditFile.look(audit.file));
  }
  return found;
};

/** Whether there is something to start where no database is named. */
const embedded = (): Finding => {
  try {
    nativeFolder();
    return note('DATABASE_URL is not set: an embedded database is used');
  } catch (error) {
    if (!(error instanceof EmbeddedError)) throw error;
    return lack(error.message, 'or install that package');
  }
};

/** What to do about a server that cannot be reached, and about one that is the wrong one. */
const REACH = 'check address, user, password, TLS and firewall';
const CORRECT = 'name a standby of it in SIDECAR_REPLICA_URLS, or leave it out';

const IDENTITY = `select pg_is_in_recovery() as standby, (select system_identifier from pg_control_system()) as system`;

const FACTS = `select current_setting('server_version_num')::int as version,
  pg_is_in_recovery() as standby,
  current_setting('default_transaction_read_only') = 'on' as readonly,
  current_setting('server_encoding') as encoding,
  pg_backend_pid() as pid,
  (select ssl from pg_stat_ssl where pid = pg_backend_pid()) as ssl,
  current_user as role,
  (select rolsuper from pg_roles where rolname = current_user) as superuser,
  current_setting('max_prepared_transactions') as prepared,
  current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int as connections`;

/** Connections besides those that settings speak of: health, outcomes, and what cancels. */
const RESERVE = 3;

const isLocal = (host: string): boolean => /^(?:\/|127\.|localhost$|::1$)/.test(host);

const server = (config: Config, url: string, facts: Readonly<Record<string, string>>, pid: number): Finding[] => {
  const found: Finding[] = [];
  const { host = '' } = readTarget(url).config;
  const version = Math.floor(Number(facts['version']) / 10_000);
  const needed = config.poolMax + config.transactionsMax + RESERVE;
  const pooled = Number(facts['pid']) !== pid;
  found.push(
    version >= OLDEST_SERVER
      ? ok(`PostgreSQL ${version}`)
      : lack(`PostgreSQL ${version} is too old`, `use ${OLDEST_SERVER} or newer`),
    pooled
      ? note('a pooler stands in between', 'docs/faults.md says how to set it up')
      : ok('nothing stands in between'),
  );
  if (facts['standby'] === 't') found.push(lack('it is a standby: writes fail', 'name its primary in DATABASE_URL'));
  else if (facts['readonly'] === 't') {
    found.push(lack('it takes no writes', 'set default_transaction_read_only = off for the role or the database'));
  }
  if (facts['encoding'] === NO_ENCODING) found.push(lack(`its encoding is ${NO_ENCODING}`, ENCODE));
  if (facts['ssl'] !== 't' && !isLocal(host) && !pooled) {
    found.push(note('the connection is not encrypted', 'add ?sslmode=verify-full&sslrootcert=… to DATABASE_URL'));
  }
  if (facts['superuser'] === 't') {
    found.push(note('its role is a superuser', 'docs/adoption.md has the rights that serving needs'));
  }
  if (facts['prepared'] === '0') {
    found.push(
      note('it keeps no prepared transactions', 'callers that use Prepare need max_prepared_transactions there'),
    );
  }
  if (!pooled && Number(facts['connections']) < needed) {
    found.push(
      lack(
        `it has ${facts['connections']} connections, and one sidecar may use ${needed}`,
        'raise max_connections there, or lower SIDECAR_POOL_MAX and SIDECAR_TRANSACTIONS_MAX',
      ),
    );
  }
  return found;
};

/** Without these nothing is seen of the migrations. */
const SEEING = ['schema policy_sidecar', 'policy_sidecar.migrations'];

const looked = async (config: Config, url: string): Promise<Finding[]> => {
  const { found, lacking } = await withClient(url, async (client) => {
    const { rows: facts } = await client.query(FACTS);
    return {
      found: server(config, url, facts[0], (client as unknown as { processID: number }).processID),
      lacking: await lackingFor(txOf(client), facts[0].role),
    };
  });
  found.push(...lacking.map(({ rights, on, grant }) => lack(`its role lacks ${rights} on ${on}`, grant)));
  const hidden = await hiddenTables(url);
  if (hidden.length > 0) {
    found.push(
      lack(
        `row security hides the rows of ${hidden.length} table(s) from its role, ${hidden[0]} among them`,
        'policy-sidecar migrate tenants, as the role that owns the tables: see docs/tenants.md',
      ),
    );
  }
  if (lacking.some(({ on }) => SEEING.includes(on))) return found;
  const { pending, unknown } = await migrationStatus(url);
  if (unknown.length > 0) found.push(note(`a newer program has applied ${unknown.join(', ')}`));
  return [
    ...found,
    pending.length === 0
      ? ok('its schema is the one of this program')
      : lack(`its schema lacks ${pending.length} migration(s)`, 'policy-sidecar migrate up, as the role that migrates'),
  ];
};

/** Whether PostgreSQL keeps the callers to their tenants that the authorization file binds to some. */
const tenants = async ({ authorizationFile }: Config, url: string): Promise<Finding[]> => {
  if (authorizationFile === undefined || !bindsTenants(authorizationFile)) return [];
  const { role, lacking } = await tenantsStatus(url);
  const remedy = 'policy-sidecar migrate tenants, and grant policy_sidecar_tenants to its role: see docs/tenants.md';
  if (lacking.length > 0)
    return [lack(`callers are bound to tenants, and ${lacking.length} tables have no policy`, remedy)];
  return [
    role ? ok('callers are kept to their tenants') : lack('its role may not take policy_sidecar_tenants', remedy),
  ];
};

/** Whether the replicas can be read and are of this database; what their tables and roles are comes with the replication. */
const replicas = async ({ replicaUrls }: Config, url: string): Promise<Finding[]> => {
  if (replicaUrls.length === 0) return [];
  const identify = async (of: string): Promise<Readonly<Record<string, string>>> =>
    withClient(of, async (client) => (await client.query(IDENTITY)).rows[0]);
  const { system } = await identify(url);
  const judge = async (replica: string): Promise<Finding> => {
    const what = `the replica ${readTarget(replica).description}`;
    try {
      const found = await identify(replica);
      if (found['system'] !== system) return lack(`${what} is of another database cluster`, CORRECT);
      return found['standby'] === 't' ? ok(`${what} follows it`) : lack(`${what} is no standby`, CORRECT);
    } catch (error) {
      if (!(error instanceof UnreachableError)) throw error;
      return lack(`the replica ${error.message}`, REACH);
    }
  };
  return Promise.all(replicaUrls.map(judge));
};

/** `doctor`: what configuration and database lack for serving, each with what to do; changes nothing. */
export const doctor = async (config: Config): Promise<number> => {
  const found = await files(config);
  const { databaseUrl } = config;
  if (databaseUrl === undefined) found.push(embedded());
  else {
    try {
      for (const look of [looked, tenants, replicas]) found.push(...(await look(config, databaseUrl)));
    } catch (error) {
      if (!(error instanceof UnreachableError)) throw error;
      found.push(lack(error.message, REACH));
    }
  }
  for (const { level, what, remedy } of found) say(`${level.padEnd(5)} ${what}${remedy ? `; ${remedy}` : ''}`);
  if (found.some(({ level }) => level === 'lack')) return EXIT.no;
  return EXIT.done;
};
