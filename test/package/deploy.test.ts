import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { parse, parseAllDocuments } from 'yaml';
import { SETTINGS } from '../../src/settings.ts';

const DEPLOY = join(import.meta.dirname, '..', '..', 'deploy');
const KUSTOMIZE = 'sigs.k8s.io/kustomize/kustomize/v5@v5.7.1';

interface Container {
  name: string;
  image: string;
  args?: string[];
  restartPolicy?: string;
  env?: { name: string; value?: string }[];
  ports?: { name: string; containerPort: number }[];
  volumeMounts?: { name: string; mountPath: string }[];
  securityContext: Record<string, unknown>;
  resources?: Record<string, unknown>;
  startupProbe?: Probe;
  livenessProbe?: Probe;
  readinessProbe?: Probe;
}
interface Probe {
  exec?: { command: string[] };
  httpGet?: { path: string; port: string };
}

/** Tools that render a kustomization; the last one is fetched. */
const TOOLS = [
  ['kubectl', 'kustomize'],
  ['kustomize', 'build'],
  [join(homedir(), 'go', 'bin', 'kustomize'), 'build'],
] as const;

const render = (overlay: string): string | undefined => {
  const folder = join(DEPLOY, 'kubernetes', 'overlays', overlay);
  for (const [program, verb] of TOOLS) {
    const { error, status, stdout, stderr } = spawnSync(program, [verb, folder], { encoding: 'utf8' });
    if (error) continue;
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    return stdout;
  }
  const { status, stdout } = spawnSync('go', ['run', KUSTOMIZE, 'build', folder], {
    encoding: 'utf8',
    timeout: 110_000,
  });
  return status === 0 ? stdout : undefined;
};

const settings = new Set(Object.values(SETTINGS).map(({ variable }) => variable));

const valuesOf = ({ env = [] }: Container): Record<string, string | undefined> =>
  Object.fromEntries(env.map(({ name, value }) => [name, value]));

test.for(['socket', 'mtls'])('the overlay %s renders to a pod that can start', (overlay, { skip }) => {
  const text = render(overlay);
  if (text === undefined) {
    console.log('neither kubectl nor kustomize can be had: rendering is skipped');
    skip();
  }
  const objects = parseAllDocuments(text!).map((document) => document.toJS());
  const { spec: pod, metadata } = objects.find(({ kind }) => kind === 'Deployment').spec.template;
  const init: Container[] = pod.initContainers;
  // A sidecar that serves is waited for before what comes after it: the migration comes first.
  expect(init.map(({ name, args }) => [name, args])).toEqual([
    ['policy-migrate', ['migrate', 'up']],
    ['policy-sidecar', ['serve']],
  ]);
  expect(init.map(({ restartPolicy }) => restartPolicy)).toEqual([undefined, 'Always']);
  const [engine] = pod.containers as [Container];
  const [, sidecar] = init as [Container, Container];
  for (const { image, env = [], securityContext, resources } of init) {
    expect(image).toMatch(/^registry\.example\.com\/policy-sidecar:\d/);
    for (const { name } of env) expect(settings).toContain(name);
    expect(securityContext).toMatchObject({ readOnlyRootFilesystem: true, allowPrivilegeEscalation: false });
    expect(resources).toMatchObject({ requests: {}, limits: {} });
  }
  expect(pod.securityContext).toMatchObject({ runAsNonRoot: true, runAsUser: 65_532 });
  const volumes = pod.volumes.map(({ name }: { name: string }) => name);
  for (const { volumeMounts = [] } of [...init, engine]) {
    for (const { name } of volumeMounts) expect(volumes).toContain(name);
  }
  // Every file that a setting names is below a folder that is mounted.
  const mounts = sidecar.volumeMounts!.map(({ mountPath }) => mountPath);
  const values = valuesOf(sidecar);
  for (const value of Object.values(values)) {
    const [path] = /(?<=^(?:unix:)?)\/.*/.exec(value ?? '') ?? [];
    if (path) expect(mounts.some((mount) => path.startsWith(`${mount}/`))).toBe(true);
  }
  expect(sidecar.startupProbe!.exec!.command).toEqual(['policy-sidecar', 'health']);
  const probes = [sidecar.livenessProbe!, sidecar.readinessProbe!];
  if (overlay === 'socket') {
    expect(values['SIDECAR_GRPC_LISTEN']).toBe(valuesOf(engine)['POLICY_SIDECAR']);
    expect(engine.volumeMounts).toEqual(sidecar.volumeMounts);
    for (const { exec } of probes) expect(exec!.command).toContain(`-addr=${values['SIDECAR_GRPC_LISTEN']}`);
  } else {
    const ports = new Map(sidecar.ports!.map(({ name, containerPort }) => [name, containerPort]));
    expect(probes.map(({ httpGet }) => httpGet!.path)).toEqual(['/live', '/ready']);
    for (const { httpGet } of probes) {
      expect(values['SIDECAR_PROBE_LISTEN']).toMatch(new RegExp(`:${ports.get(httpGet!.port)}$`));
    }
    expect(metadata.annotations['prometheus.io/port']).toBe(String(ports.get('policy-probes')));
    const service = objects.find(({ kind }) => kind === 'Service').spec;
    for (const { port, targetPort } of service.ports) expect(ports.get(targetPort)).toBe(port);
  }
});

test('the Compose example builds the Containerfile, and names settings that exist', () => {
  const { services } = parse(readFileSync(join(DEPLOY, 'compose', 'compose.yaml'), 'utf8'));
  const sidecar = services['policy-sidecar'];
  const { context, dockerfile } = sidecar.build;
  expect(existsSync(join(DEPLOY, 'compose', context, dockerfile))).toBe(true);
  for (const name of Object.keys(sidecar.environment)) expect(settings).toContain(name);
  const { hostname, password } = new URL(sidecar.environment.DATABASE_URL);
  expect(services[hostname].environment.POSTGRES_PASSWORD).toBe(password);
});

test('Prometheus is told of the port that the manifests name', () => {
  const { scrape_configs: jobs } = parse(readFileSync(join(DEPLOY, 'prometheus', 'scrape.yaml'), 'utf8'));
  expect(jobs[0].metrics_path).toBe('/metrics');
  expect(jobs[0].relabel_configs[0].regex).toBe('policy-probes');
});
