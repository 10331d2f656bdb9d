import {
  type DescEnum,
  type DescField,
  type DescFile,
  type DescMessage,
  type DescMethod,
  type DescService,
  getOption,
  ScalarType,
} from '@bufbuild/protobuf';
import { meaning } from '../src/gen/hoc/cus/policies/v1/error_reason_pb.ts';
import { accessOf, commentOf, fileNameOf, isGet, messagesOf, nameOf, titleOf } from './contract.ts';
import { escaped, type Links, linked, page, prose } from './markup.ts';
import { firstSentence } from './openapi.ts';

/** Where each declared name is described: `file.html#Name`. */
const linksOf = (files: readonly DescFile[]): Links => {
  const links = new Map<string, string>();
  const several = new Set<string>();
  const add = (name: string, file: DescFile, anchor = name): void => {
    if (links.has(name)) several.add(name);
    links.set(name, `${fileNameOf(file)}#${anchor}`);
  };
  for (const file of files) {
    for (const message of messagesOf(file.messages)) {
      for (const desc of [message, ...message.nestedEnums]) add(nameOf(desc), file);
    }
    for (const desc of file.enums) {
      add(nameOf(desc), file);
      if (desc.name === 'ErrorReason') for (const { name } of desc.values) add(name, file, `ErrorReason.${name}`);
    }
    for (const service of file.services) {
      add(nameOf(service), file);
      for (const { name } of service.methods) {
        add(`${nameOf(service)}.${name}`, file);
        add(name, file, `${nameOf(service)}.${name}`);
      }
    }
  }
  // A name of several RPCs leads to none of them.
  for (const name of several) links.delete(name);
  return links;
};

const heading = (level: number, id: string, html: string): string =>
  `<h${level} id="${id}">${html} <a class="anchor" href="#${id}" aria-label="Link to ${id}">#</a></h${level}>`;

const typeOf = (field: DescField, links: Links): string => {
  const { message, enum: values, scalar } = field;
  const named = message ?? values;
  const single = named
    ? linked(nameOf(named), links)
    : `<code>${ScalarType[scalar as ScalarType]!.toLowerCase()}</code>`;
  if (field.fieldKind === 'map') return `map of ${ScalarType[field.mapKey]!.toLowerCase()} to ${single}`;
  if (field.fieldKind === 'list') return `list of ${single}`;
  if (field.oneof) return `${single}, one of <code>${field.oneof.name}</code>`;
  return field.proto.proto3Optional ? `${single}, optional` : single;
};

const fieldsOf = (desc: DescMessage, links: Links): string =>
  desc.fields.length === 0
    ? '<p>No fields.</p>'
    : `<dl>${desc.fields
        .map((field) => {
          const id = `${nameOf(desc)}.${field.name}`;
          const said = `<code>${field.name}</code> <span class="type">${typeOf(field, links)} <small>${field.number}</small></span>`;
          return `<dt id="${id}">${said}</dt><dd>${prose(commentOf(field), links)}</dd>`;
        })
        .join('\n')}</dl>`;

const messageOf = (desc: DescMessage, level: number, links: Links, role = ''): string =>
  [
    heading(level, nameOf(desc), `${role}<code>${nameOf(desc)}</code>`),
    prose(commentOf(desc), links),
    fieldsOf(desc, links),
  ].join('\n');

const enumOf = (desc: DescEnum, links: Links): string => {
  const values = desc.values.map((value) => {
    const { code, retry, metadata } = getOption(value, meaning);
    const facts = [
      code && `<code>${code}</code>`,
      retry && 'with RetryInfo',
      metadata.length > 0 && `metadata ${metadata.map((key) => `<code>${key}</code>`).join(', ')}`,
    ].filter(Boolean);
    const said = `<code>${value.name}</code> <span class="type">${facts.join(', ')} <small>${value.number}</small></span>`;
    return `<dt id="${nameOf(desc)}.${value.name}">${said}</dt><dd>${prose(commentOf(value), links)}</dd>`;
  });
  return [
    heading(3, nameOf(desc), `<code>${nameOf(desc)}</code>`),
    prose(commentOf(desc), links),
    `<dl>${values.join('\n')}</dl>`,
  ].join('\n');
};

const badgesOf = (method: DescMethod): string => {
  const access = accessOf(method);
  const stream = method.methodKind !== 'unary';
  const badges = [access !== 'none' && access, stream && 'stream', isGet(method) && 'GET'];
  return badges
    .filter((badge) => badge !== false)
    .map((badge) => `<span class="badge ${badge}">${badge}</span>`)
    .join(' ');
};

const methodOf = (method: DescMethod, own: ReadonlySet<DescMessage>, links: Links): string => {
  const service = nameOf(method.parent);
  const tried = `explorer.html#/${service}/${service}.${method.name}`;
  const part = (role: string, desc: DescMessage): string =>
    own.has(desc) ? messageOf(desc, 4, links, `${role} `) : `<p>${role} ${linked(nameOf(desc), links)}</p>`;
  return [
    '<section class="rpc">',
    heading(3, `${service}.${method.name}`, `${method.name} ${badgesOf(method)}`),
    `<p class="path"><code>/${method.parent.typeName}/<wbr>${method.name}</code>${
      method.methodKind === 'unary' ? ` <a href="${tried}">Try ${method.name}</a>` : ''
    }</p>`,
    prose(commentOf(method), links),
    part('Request', method.input),
    part(method.methodKind === 'unary' ? 'Response' : 'Responses', method.output),
    '</section>',
  ].join('\n');
};

/** Messages of a file that one RPC alone mentions: they are described with it. */
const ownOf = (file: DescFile, all: readonly DescMessage[]): ReadonlySet<DescMessage> => {
  const uses = new Map<DescMessage, number>();
  const use = (desc: DescMessage | undefined): void => void (desc && uses.set(desc, (uses.get(desc) ?? 0) + 1));
  for (const { fields } of all) for (const { message } of fields) use(message);
  const called = file.services.flatMap(({ methods }) => methods.flatMap(({ input, output }) => [input, output]));
  called.forEach(use);
  return new Set(called.filter((desc) => uses.get(desc) === 1 && desc.file === file));
};

const serviceOf = (service: DescService, own: ReadonlySet<DescMessage>, links: Links): string => {
  const contents = service.methods.map(
    (method) =>
      `<li><a href="#${nameOf(service)}.${method.name}">${method.name}</a> ${badgesOf(method)}<br>${escaped(firstSentence(commentOf(method)))}</li>`,
  );
  return [
    heading(2, nameOf(service), nameOf(service)),
    prose(commentOf(service), links),
    `<nav aria-label="RPCs of ${nameOf(service)}"><ul class="contents">${contents.join('\n')}</ul></nav>`,
    ...service.methods.map((method) => methodOf(method, own, links)),
  ].join('\n');
};

/** Pages by file name: one a file of the contract, and one that leads to them. */
export const pagesOf = (files: readonly DescFile[]): ReadonlyMap<string, string> => {
  const links = linksOf(files);
  const all = files.flatMap(({ messages }) => messagesOf(messages));
  // Operations mention every request again, and are no reason to tear it from its RPC.
  const elsewhere = all.filter(({ name }) => name !== 'Operation' && name !== 'OperationResult');
  const pages = new Map<string, string>();
  for (const file of files) {
    const own = ownOf(file, elsewhere);
    const messages = messagesOf(file.messages);
    const others = messages.filter((desc) => !own.has(desc)).map((desc) => messageOf(desc, 3, links));
    const enums = [...file.enums, ...messages.flatMap(({ nestedEnums }) => nestedEnums)];
    const body = [
      prose(titleOf(file), links),
      ...file.services.map((service) => serviceOf(service, own, links)),
      ...(others.length > 0 ? ['<h2 id="messages">Messages</h2>', ...others] : []),
      ...(enums.length > 0 ? ['<h2 id="enums">Enums</h2>', ...enums.map((desc) => enumOf(desc, links))] : []),
    ];
    const title = file.services.map(nameOf).join(', ') || `${file.name.replace(/^.*\//, '')}.proto`;
    pages.set(fileNameOf(file), page(title, body.join('\n'), 'reference'));
  }
  const listed = (file: DescFile): string => {
    const names = file.services.length > 0 ? file.services.map(nameOf) : [`${file.name.replace(/^.*\//, '')}.proto`];
    const count = file.services.flatMap(({ methods }) => methods).length;
    return `<li><a href="${fileNameOf(file)}">${names.join(', ')}</a>${count > 0 ? ` <small>${count} ${count === 1 ? 'RPC' : 'RPCs'}</small>` : ''}<br>${prose(titleOf(file), links)}</li>`;
  };
  const body = `
<p>The contract, made from <code>proto/</code>. Every call can be tried in the <a href="explorer.html">explorer</a>; what is
open, and whether all is well, is at <a href="state.html">state</a>; a tool takes <a href="openapi.json">openapi.json</a>.</p>
<h2 id="services">Services</h2><ul class="contents">${files
    .filter(({ services }) => services.length > 0)
    .map(listed)
    .join('\n')}</ul>
<h2 id="others">What they share</h2><ul class="contents">${files
    .filter(({ services }) => services.length === 0)
    .map(listed)
    .join('\n')}</ul>`;
  pages.set('index.html', page('policy-sidecar', body, 'reference'));
  return pages;
};
