// Streams cannot be tried: a page reads them, and this one shows single answers.
const withoutStreams = () => ({
  statePlugins: {
    spec: {
      wrapSelectors: {
        allowTryItOutFor: (allowed, system) => (state, path, method) =>
          allowed(state, path, method) &&
          system.specSelectors.specJson().getIn(['paths', path, method, 'x-stream']) === undefined,
      },
    },
  },
});

// The library finds services by their names alone.
const byName = () => ({
  statePlugins: {
    layout: {
      wrapActions: {
        // What is found is shown; few letters find so much that drawing it would be in the way of the next one.
        updateFilter: (update, system) => (phrase) => {
          for (const { name } of system.specSelectors.specJson().get('tags').toJS()) {
            system.layoutActions.show(['operations-tag', name], phrase.length > 2);
          }
          return update(phrase);
        },
      },
    },
  },
  fn: {
    opsFilter: (services, phrase) => {
      const sought = phrase.toLowerCase();
      return services
        .map((service, name) =>
          service.update('operations', (operations) =>
            operations.filter(
              (operation) =>
                name.toLowerCase().includes(sought) ||
                operation.get('path').replace(/^.*\//, '').toLowerCase().includes(sought),
            ),
          ),
        )
        .filter((service) => service.get('operations').size > 0);
    },
  },
});

// The service stands above its RPCs, and the whole path in the answer.
const namedShortly = () => ({
  wrapComponents: {
    // The library's field has no label.
    FilterContainer:
      (original, { React }) =>
      (properties) =>
        React.createElement(
          'label',
          { className: 'find' },
          'Find an RPC or a service',
          React.createElement(original, properties),
        ),
    OperationSummaryPath:
      (_original, { React }) =>
      ({ operationProps }) =>
        React.createElement(
          'span',
          { className: 'opblock-summary-path' },
          operationProps.get('path').replace(/^.*\//, ''),
        ),
  },
});

const dark = matchMedia('(prefers-color-scheme: dark)');
const follow = () => document.documentElement.classList.toggle('dark-mode', dark.matches);
dark.addEventListener('change', follow);
follow();

const start = async () => {
  const spec = await (await fetch('openapi.json')).json();
  for (const operations of Object.values(spec.paths)) {
    // What reads by GET reads by POST as well.
    delete operations.get;
    const { requestBody, responses } = operations.post;
    for (const { content } of [requestBody, responses['200']])
      for (const media of Object.values(content)) delete media.schema;
    operations.post.description += `\n\n[Fields and errors](${operations.post.externalDocs.url})`;
    operations.post.responses = {
      200: { ...responses['200'], headers: undefined },
      default: { description: 'Refused, or failed.' },
    };
  }
  // What services and fields mean is in the reference, to which each RPC leads: the library takes seconds to read them all.
  for (const tag of spec.tags) delete tag.description;
  spec.info.description = undefined;
  spec.components = { parameters: spec.components.parameters, securitySchemes: spec.components.securitySchemes };
  SwaggerUIBundle({
    spec,
    dom_id: '#explorer',
    deepLinking: true,
    docExpansion: 'none',
    filter: true,
    tryItOutEnabled: true,
    displayRequestDuration: true,
    defaultModelsExpandDepth: -1,
    validatorUrl: null,
    supportedSubmitMethods: ['post'],
    // What came is far below, and is said to who cannot see it.
    responseInterceptor: (response) => {
      document.querySelector('#said').textContent = `Answer: ${response.status} ${response.statusText}`;
      return response;
    },
    plugins: [withoutStreams, byName, namedShortly],
  });
};

start().catch((error) => {
  document.querySelector('#explorer').textContent = `The explorer could not be loaded: ${error.message}`;
});
