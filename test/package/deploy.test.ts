import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { parse, parseAllDocuments } from 'yaml';
import manifest from '../../package.json' with { type: 'json' };
import { duration } from '../../src/setting-forms.ts';
import { SETTINGS } from '../../src/settings.ts';

const DEPLOY = join(import.meta.dirname, '..', '..', 'deploy');
const KUSTOMIZE = 'sigs.k8s.io/kustomize/kustomize/v5@v5.7.1';

interface Container {
  name: string;
  image: string;
  args?: string[];
  restartPolicy?: string;
  env?: Variable[];
  ports?: { name: string; containerPort: number }[];
  volumeMounts?: { name: string; mountPath: string }[];
  securityContext: Record<string, unknown>;
  resources?: Record<string, unknown>;
  startupProbe?: Probe;
  livenessProbe?: Probe;
  readinessProbe?: Probe;
}
interface Variable {
  name: string;
  value?: string;
  valueFrom?: { fieldRef?: { fieldPath: string } };
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

const settings = new Map(Object.values(SETTINGS).map((setting) => [setting.variable, setting]));

/** What a container finds in its environment, in the namespace `agents`. */
const valuesOf = ({ env = [] }: Container): Record<string, string | undefined> => {
  const known: Record<string, string | undefined> = {};
  // As a kubelet does it: what a value refers to stands before it, or stays as it is written.
  for (const { name, value, valueFrom } of env) {
    const isNamespace = valueFrom?.fieldRef?.fieldPath === 'metadata.namespace';
    known[name] = isNamespace ? 'agents' : value?.replace(/\$\((\w+)\)/g, (text, other) => known[other] ?? text);
  }
  return known;
};

/** Refuses a setting that the program would refuse, and one that it does not know. */
const expectSettings = (values: Readonly<Record<string, string | undefined>>): void => {
  for (const [name, value] of Object.entries(values)) {
    expect([...settings.keys()]).toContain(name);
    if (value !== undefined) settings.get(name)!.parse(value);
  }
};

/** Names that a container beside, or a pod of the same or another namespace, calls a service by. */
const namesOf = (service: string): string[] =>
  ['', '.agents', '.agents.svc', '.agents.svc.cluster.local'].map((rest) => `${service}${rest}`);

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
  const [migration, sidecar] = init as [Container, Container];
  // It waits for a database that is younger, and leaves nothing to grant by hand.
  expect(valuesOf(migration)).toMatchObject({ SIDECAR_DATABASE_WAIT: '2m', SIDECAR_SERVING_ROLE: 'policy_runner' });
  for (const container of init) {
    const { NAMESPACE, ...values } = valuesOf(container);
    expectSettings(values);
    const { image, securityContext, resources } = container;
    expect(image).toBe(`registry.example.com/policy-sidecar:${manifest.version}`);
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
  // What the engine takes comes on top.
  const drainMs = duration(values['SIDECAR_DRAIN_TIMEOUT']!);
  expect(pod.terminationGracePeriodSeconds * 1_000).toBeGreaterThan(drainMs + 1_000);
  for (const value of Object.values(values)) {
    const [path] = /(?<=^(?:unix:)?)\/.*/.exec(value ?? '') ?? [];
    if (path) expect(mounts.some((mount) => path.startsWith(`${mount}/`))).toBe(true);
  }
  // Ready it may never be: a database that takes no writes answers reads.
  const start = sidecar.startupProbe!;
  const probes = [sidecar.livenessProbe!, sidecar.readinessProbe!];
  if (overlay === 'socket') {
    expect(values['SIDECAR_GRPC_LISTEN']).toBe(valuesOf(engine)['POLICY_SIDECAR']);
    expect(engine.volumeMounts).toEqual(sidecar.volumeMounts);
    for (const { exec } of [start, ...probes]) {
      expect(exec!.command).toEqual(
        expect.arrayContaining(['grpc-health-probe', `-addr=${values['SIDECAR_GRPC_LISTEN']}`]),
      );
    }
    expect(start.exec!.command).toContain('-service=startup');
    // Its one caller goes first.
    expect(values['SIDECAR_DRAIN']).toBe('linger');
  } else {
    const ports = new Map(sidecar.ports!.map(({ name, containerPort }) => [name, containerPort]));
    expect([start, ...probes].map(({ httpGet }) => httpGet!.path)).toEqual(['/started', '/live', '/ready']);
    for (const { httpGet } of [start, ...probes]) {
      expect(values['SIDECAR_PROBE_LISTEN']).toMatch(new RegExp(`:${ports.get(httpGet!.port)}$`));
    }
    expect(metadata.annotations['prometheus.io/port']).toBe(String(ports.get('policy-probes')));
    // Callers are in other pods: they would keep a pod that ends until its time is over, and never find a new one.
    expect(values).toMatchObject({ SIDECAR_DRAIN: 'finish', SIDECAR_CONNECTION_AGE: '10m' });
    const { POLICY_SIDECAR: called } = valuesOf(engine);
    expect(called).toBe(`localhost:${values['SIDECAR_GRPC_LISTEN']!.split(':').at(-1)}`);
  }
});

// Stories: HTTPS by the name of the Service was refused with HOST_NOT_ALLOWED, and Kubernetes 1.29 led nobody to the port of a
// native sidecar that the Service called by a name.
test.for(['socket', 'mtls'])('who calls a Service of the overlay %s by its name is let in', (overlay, { skip }) => {
  const text = render(overlay);
  if (text === undefined) skip();
  const objects = parseAllDocuments(text!).map((document) => document.toJS());
  const { spec: pod } = objects.find(({ kind }) => kind === 'Deployment').spec.template;
  const sidecar: Container = pod.initContainers.find(({ restartPolicy }: Container) => restartPolicy === 'Always');
  const values = valuesOf(sidecar);
  const services = objects.filter(({ kind }) => kind === 'Service');
  expect(services).toHaveLength(overlay === 'mtls' ? 1 : 0);
  for (const { metadata, spec } of services) {
    const targets = spec.ports.map(({ targetPort }: { targetPort: unknown }) => targetPort);
    const listening = [values['SIDECAR_GRPC_LISTEN'], values['SIDECAR_HTTP_LISTEN']];
    expect(targets).toEqual(listening.map((listen) => Number(listen!.split(':').at(-1))));
    expect(values['SIDECAR_HTTP_HOSTS']!.split(',')).toEqual(expect.arrayContaining(namesOf(metadata.name)));
  }
});

test('the Compose example builds the Containerfile, names settings that exist, and lets in who calls by name', () => {
  const { services } = parse(readFileSync(join(DEPLOY, 'compose', 'compose.yaml'), 'utf8'));
  const sidecar = services['policy-sidecar'];
  const { context, dockerfile } = sidecar.build;
  expect(existsSync(join(DEPLOY, 'compose', context, dockerfile))).toBe(true);
  expectSettings(sidecar.environment);
  expect(sidecar.environment.SIDECAR_HTTP_HOSTS.split(',')).toEqual(['localhost', 'policy-sidecar']);
  const drainMs = duration(SETTINGS.drainTimeoutMs.fallback);
  expect(duration(sidecar.stop_grace_period)).toBeGreaterThan(drainMs + 1_000);
  const { hostname, password } = new URL(sidecar.environment.DATABASE_URL);
  expect(services[hostname].environment.POSTGRES_PASSWORD).toBe(password);
});

test('Prometheus is told of the port that the manifests name', () => {
  const { scrape_configs: jobs } = parse(readFileSync(join(DEPLOY, 'prometheus', 'scrape.yaml'), 'utf8'));
  expect(jobs[0].metrics_path).toBe('/metrics');
  expect(jobs[0].relabel_configs[0].regex).toBe('policy-probes');
});
