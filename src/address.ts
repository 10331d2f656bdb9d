const HOST_PORT = /^(\[[\da-fA-F:.]+\]|[^:\s/]+):(\d{1,5})$/;

/** Whether a text is a `host:port` that can be listened on. */
export const isHostPort = (text: string): boolean => {
  const [, , port] = HOST_PORT.exec(text) ?? [];
  return port !== undefined && Number(port) <= 65_535;
};

/** The same of a text that may be a `unix:/path` as well. */
export const isSocketOrPort = (text: string): boolean => /^unix:\/.+/.test(text) || isHostPort(text);
