import { readFileSync } from 'node:fs';
import { Ajv, type ErrorObject } from 'ajv';
import type { Logger } from 'pino';
import schema from '../../docs/authorization.schema.json' with { type: 'json' };
import { refuse } from '../contract/errors.ts';
import { boundTo } from '../database/tenants.ts';
import type { Access, Authorization, Tenants } from './access.ts';
import type { Endpoint } from './endpoint.ts';
import { type Reading, watched } from './watched-file.ts';

/** What an RPC needs: a computation is a read of what this process holds. */
export type Need = 'read' | 'write';

const NEEDS: readonly Need[] = ['read', 'write'];

/** The authorization file, as its schema allows it. */
interface Policy {
  readonly identities: Readonly<
    Record<string, { readonly [N in Need]?: readonly string[] } & { readonly tenants: Tenants }>
  >;
}

/** Whether a caller may use an RPC, and why. */
export interface Explanation {
  readonly allowed: boolean;
  readonly needed: Need;
  /** The entry of the file that grants it, `identities.ann.write[0]`, or what is missing. */
  readonly because: string;
}

const needOf = ({ kind }: Endpoint): Need => (kind === 'write' ? 'write' : 'read');

const placeOf = ({ instancePath, params }: ErrorObject): string => {
  const steps = instancePath
    .split('/')
    .slice(1)
    .map((step) => step.replaceAll('~1', '/').replaceAll('~0', '~'));
  const { additionalProperty } = params as { additionalProperty?: string };
  if (additionalProperty !== undefined) steps.push(additionalProperty);
  return steps.map((step, at) => (/^\d+$/.test(step) ? `[${step}]` : `${at === 0 ? '' : '.'}${step}`)).join('');
};

const textOf = ({ keyword, params, message }: ErrorObject): string | undefined => {
  switch (keyword) {
    case 'additionalProperties':
      return 'is not a key of this file';
    case 'const':
      return `must be ${JSON.stringify((params as { allowedValue: unknown }).allowedValue)} or a list`;
    case 'pattern':
      return 'must be a service, an RPC as Service/Method, or *';
    default:
      return message;
  }
};

const problemsOf = (errors: readonly ErrorObject[]): string =>
  errors
    // It only says that one of the others is there.
    .filter(({ keyword }) => keyword !== 'if')
    .map((error) => `${placeOf(error) || 'it'} ${textOf(error)}`)
    .join('; ');

/** What a policy grants, ready to be asked. */
export class Grants {
  /** Caller -> what is granted, each with the place in the file that does. */
  readonly #identities = new Map<string, { readonly access: Access; readonly places: ReadonlyMap<string, string> }>();
  readonly #endpoints: readonly Endpoint[];

  /**
   * @param endpoints all that can be granted: the RPCs of the drivers.
   * @throws Error that names the place of what is wrong.
   */
  constructor({ identities }: Policy, endpoints: readonly Endpoint[]) {
    this.#endpoints = endpoints;
    for (const [name, { tenants, ...lists }] of Object.entries(identities)) {
      const places = new Map<string, string>();
      for (const need of NEEDS) {
        for (const [index, text] of (lists[need] ?? []).entries()) {
          const place = `identities.${name}.${need}[${index}]`;
          for (const path of this.#granted(text, need, place)) if (!places.has(path)) places.set(path, place);
        }
      }
      this.#identities.set(name, { access: accessOf(name, tenants, places), places });
    }
  }

  of(caller: string): Access {
    return this.#identities.get(caller)?.access ?? accessOf(caller, [], undefined);
  }

  /**
   * Whether a caller may use an RPC, and by which entry of the file.
   *
   * @param method `PolicyEngineService/ResetRiskCeiling`
   * @returns undefined when no driver has such an RPC.
   */
  explain(identity: string, method: string): Explanation | undefined {
    const endpoint = this.#endpoints.find(({ name }) => name === method);
    if (!endpoint) return undefined;
    const needed = needOf(endpoint);
    const places = this.#identities.get(identity)?.places;
    const place = places?.get(endpoint.path);
    if (place !== undefined) return { allowed: true, needed, because: place };
    return {
      allowed: false,
      needed,
      because: places ? `identities.${identity}.${needed} does not grant it` : `identities has no ${identity}`,
    };
  }

  #granted(text: string, need: Need, place: string): string[] {
    const named = this.#endpoints.filter(
      ({ name }) => text === '*' || name === text || name.slice(0, name.indexOf('/')) === text,
    );
    if (named.length === 0) throw new Error(`${place} names no service or RPC of the drivers: ${text}`);
    const granted = named.filter((endpoint) => needOf(endpoint) === need);
    if (granted.length === 0 && text.includes('/')) throw new Error(`${place} is no ${need}: ${text}`);
    return granted.map(({ path }) => path);
  }
}

const accessOf = (caller: string, tenants: Tenants, places: ReadonlyMap<string, string> | undefined): Access => ({
  tenants,
  bound: tenants === 'all' ? undefined : boundTo(tenants),
  check: (endpoint) => {
    if (endpoint.kind === 'control' ? places !== undefined : places?.has(endpoint.path)) return;
    const needed = endpoint.kind === 'control' ? 'identity' : needOf(endpoint);
    const missing = places === undefined ? `has no ${caller}` : `does not grant ${caller} to ${needed} by it`;
    throw refuse('NOT_ALLOWED', `${endpoint.name} is not allowed: the authorization file ${missing}`, {
      metadata: { identity: caller, method: endpoint.name, needed },
    });
  },
});

/** How the authorization file is read: as its schema says, and with names that exist. */
export const authorizationReading = (path: string, endpoints: readonly Endpoint[]): Reading<Grants> => {
  const validate = new Ajv({ allErrors: true, logger: false }).compile<Policy>(schema);
  return {
    path,
    name: 'authorization file',
    parse: (text) => {
      const policy: unknown = JSON.parse(text);
      if (validate(policy)) return new Grants(policy, endpoints);
      throw new Error(problemsOf(validate.errors!));
    },
  };
};

/**
 * Callers may do what a file grants, which is read again when it changes; a bad new file, or none, changes nothing.
 *
 * @param endpoints the RPCs of the drivers.
 * @throws ConfigError naming the file, and every place in it that is wrong.
 */
export const fileAuthorization = (path: string, endpoints: readonly Endpoint[], log: Logger): Authorization => {
  const grants = watched(authorizationReading(path, endpoints), log);
  return { of: (caller) => grants.current.of(caller), close: () => grants.close() };
};

/** Whether an authorization file keeps anybody to the rows of some tenants; false where it cannot be read. */
export const bindsTenants = (path: string): boolean => {
  try {
    const { identities } = JSON.parse(readFileSync(path, 'utf8')) as Policy;
    return Object.values(identities).some(({ tenants }) => tenants !== 'all');
  } catch {
    return false;
  }
};
