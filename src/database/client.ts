import { connect as connectTcp, type Socket } from 'node:net';
import type { ConnectionOptions } from 'node:tls';
import pg from 'pg';
import { AT_START, judgeSession, MADE, SESSION, setAll, WANTED } from './session-settings.ts';
import { guarded, reading } from './socket.ts';
import type { Target } from './target.ts';
import { Wire } from './wire.ts';

/** What stands between this program and PostgreSQL: nothing that it need know of, or a pooler that shares sessions. */
export type Pooler = 'none' | 'session' | 'transaction';

/** What every connection of a process is to be. */
export interface ClientOptions {
  readonly target: Target;
  /** `auto` looks: a backend whose number is not the one that the handshake named is behind a pooler. */
  readonly pooler: Pooler | 'auto';
  /** Longest wait for a connection to be made and set up, milliseconds. */
  readonly connectMs: number;
  /** Longest wait for a lock, milliseconds; undefined: as the server says. */
  readonly lockMs: number | undefined;
  readonly applicationName: string;
  /** What becomes of the texts that PostgreSQL sends to a bare session; undefined: as `pg` would have it. */
  readonly types?: pg.CustomTypesConfig;
  /** True to leave the session as the server makes it: for who sets in each transaction what it rests on. */
  readonly bare?: boolean;
}

const INVALID_VALUE = '22023';

/** How long a request to stop a statement may take before the connection is given up, milliseconds. */
export const CANCEL_MS = 150;

/** The parts of `pg` that its types leave out. */
interface Internals {
  readonly processID: number;
  readonly secretKey: number;
  ssl: ConnectionOptions | false;
  getStartupConf(): Record<string, string>;
  readonly connection: pg.Connection & {
    ssl: ConnectionOptions | false;
    connect(port: number | string, host?: string): void;
    requestSsl(): void;
    cancel(pid: number, key: number): void;
    attachListeners(stream: Socket): void;
  };
}

const internals = (client: pg.Client): Internals => client as unknown as Internals;

/** Asks whether the server has TLS, on a connection of its own: `pg` itself can only insist or do without. */
const offersTls = (socket: Socket): Promise<boolean> =>
  new Promise((resolve, reject) => {
    socket.once('error', reject);
    socket.once('connect', () => socket.write(Buffer.from([0, 0, 0, 8, 4, 210, 22, 47])));
    socket.once('data', (answer) => {
      resolve(answer[0] === 'S'.charCodeAt(0));
      socket.destroy();
    });
    socket.once('close', () => reject(new Error('Connection terminated during the question for TLS')));
  });

/**
 * One connection to PostgreSQL, from its first byte to its last. Its errors have an owner at every moment of its life,
 * and it knows by itself whether it is lost.
 */
export class Client extends pg.Client {
  readonly #options: ClientOptions;
  #lost: Error | undefined;
  #tls: ConnectionOptions | false = false;
  #pooler: Pooler = 'none';
  #statementTimeoutMs = 0;
  #wire: Wire | undefined;
  #asking: Socket | undefined;

  /** When it was begun, by the clock of `performance.now()`. */
  readonly bornAt = performance.now();

  /** What the marks of its server begin with; null: nobody has asked yet. */
  origin: string | null = null;

  /** How often it was asked to stop what it runs. */
  cancels = 0;
  #cancelling: Promise<boolean> | undefined;

  /** Told once, when the connection is lost. */
  onLost: ((lost: Client) => void) | undefined;

  constructor(options: ClientOptions) {
    super({
      ...options.target.config,
      application_name: options.applicationName,
      ...(options.types ? { types: options.types } : {}),
      stream: reading,
      keepAlive: true,
      keepAliveInitialDelayMillis: 10_000,
    });
    this.#options = options;
    const { connection, getStartupConf } = internals(this);
    internals(this).getStartupConf = () => {
      const { options: _none, ...startup } = getStartupConf.call(this);
      if (options.bare) return startup;
      return { ...startup, ...AT_START };
    };
    const attach = connection.attachListeners;
    const take = (chunk: Buffer): void => this.wire.take(chunk);
    connection.attachListeners = (stream) =>
      attach.call(
        connection,
        guarded(stream, () => this.#wire && take),
      );
    this.on('error', (error) => this.#lose(error));
    this.on('end', () => this.#lose(new Error('Connection terminated')));
  }

  /** Why the connection is of no use any more; undefined while it is. */
  get lost(): Error | undefined {
    return this.#lost;
  }

  /** True once it is made and set up. */
  get ready(): boolean {
    return this.#wire !== undefined;
  }

  /** What statements go through once it is ready. */
  get wire(): Wire {
    if (!this.#wire) throw new Error('the connection is not set up');
    return this.#wire;
  }

  /** What stands in between. */
  get pooler(): Pooler {
    return this.#pooler;
  }

  /** The server's own limit of a statement, milliseconds; 0: none. */
  get statementTimeoutMs(): number {
    return this.#statementTimeoutMs;
  }

  #lose(error: Error): void {
    if (this.#lost) return;
    this.#lost = error;
    this.#wire?.fail(error);
    this.onLost?.(this);
  }

  /** Ends it at once, whatever it does and whether or not the server hears of it. */
  destroy(reason: Error): void {
    this.#lose(reason);
    this.#asking?.destroy(reason);
    this.connection.stream.destroy();
  }

  /** Connects, and makes the session what answers rest on. */
  override connect(): Promise<pg.Client>;
  override connect(callback: (error: Error | undefined) => void): void;
  override connect(callback?: (error: Error | undefined) => void): Promise<pg.Client> | undefined {
    const { connectMs } = this.#options;
    const timer = setTimeout(() => this.destroy(new Error('the database does not answer')), connectMs);
    const connected = this.#open()
      .catch((error: unknown) => {
        this.destroy(error as Error);
        throw error;
      })
      .finally(() => clearTimeout(timer));
    if (!callback) return connected.then(() => this);
    connected.then(() => callback(undefined), callback);
    return undefined;
  }

  async #open(): Promise<void> {
    const { config, tls } = this.#options.target;
    const { mode, options } = tls;
    if (mode === 'prefer') this.#asking = connectTcp({ host: config.host!, port: config.port! });
    const wanted = mode === 'always' || (this.#asking !== undefined && (await offersTls(this.#asking)));
    if (this.#lost) throw this.#lost;
    this.#tls = wanted ? options : false;
    internals(this).ssl = this.#tls;
    internals(this).connection.ssl = this.#tls;
    await super.connect();
    if (!this.#options.bare) await this.#setUp();
  }

  async #setUp(): Promise<void> {
    const { pooler, target, lockMs } = this.#options;
    const [pid] = await this.#row('select pg_backend_pid()');
    const isAnother = Number(pid) !== internals(this).processID;
    this.#pooler = pooler === 'auto' ? (isAnother ? 'transaction' : 'none') : pooler;
    const shared = this.#pooler === 'transaction';
    if (!shared) {
      const settings = [
        ...(lockMs === undefined ? [] : [['lock_timeout', `${lockMs}ms`] as const]),
        ...target.settings,
        ...MADE,
      ];
      // One statement for all: only a server that cannot do what is merely wanted is asked again.
      await this.#row(setAll([...WANTED, ...settings])).catch((error: { code?: string }) => {
        if (error.code !== INVALID_VALUE) throw error;
        return this.#row(setAll(settings));
      });
    }
    this.#statementTimeoutMs = judgeSession((await this.#row(SESSION)) as string[], shared);
    this.#wire = new Wire(this.connection.stream as Socket);
    this.#wire.onError = (error) => this.destroy(error);
  }

  async #row(text: string): Promise<unknown[]> {
    const { rows } = await this.query({ text, rowMode: 'array' });
    return rows[0]!;
  }

  /**
   * Asks the server to stop what this connection runs, by the key that it was given for that, so that it reaches the
   * right backend through any pooler. Settles within {@link CANCEL_MS}: true when the request has been taken. Of those who
   * ask while one is under way, for statements that wait behind one another, none needs another.
   */
  cancel(): Promise<boolean> {
    this.#cancelling ??= this.#cancel().finally(() => {
      this.#cancelling = undefined;
    });
    return this.#cancelling;
  }

  #cancel(): Promise<boolean> {
    this.cancels += 1;
    const { processID, secretKey } = internals(this);
    const { host, port } = this;
    return new Promise((resolve) => {
      const connection = new pg.Connection({ ssl: this.#tls } as pg.ConnectionConfig) as Internals['connection'];
      const timer = setTimeout(() => end(false), CANCEL_MS);
      const end = (taken: boolean): void => {
        clearTimeout(timer);
        connection.stream.destroy();
        resolve(taken);
      };
      const send = (): void => connection.cancel(processID, secretKey);
      connection.on('error', () => end(false));
      connection.on('end', () => end(true));
      connection.on('connect', () => (this.#tls ? connection.requestSsl() : send()));
      connection.on('sslconnect', send);
      if (host.startsWith('/')) connection.connect(`${host}/.s.PGSQL.${port}`);
      else connection.connect(port, host);
    });
  }
}
