import { Marked } from 'marked';

/** Where names are described. */
export type Links = ReadonlyMap<string, string>;

export const escaped = (text: string): string =>
  text.replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`);

/** A name as code that leads to where it is described, if that is anywhere. */
export const linked = (name: string, links: Links): string => {
  const target = links.get(name) ?? links.get(name.replace('/', '.'));
  const code = `<code>${escaped(name)}</code>`;
  return target === undefined ? code : `<a href="${target}">${code}</a>`;
};

/** Markdown of a comment as HTML, the names in it leading to where they are described. */
export const prose = (markdown: string, links: Links): string => {
  const marked = new Marked({
    renderer: {
      codespan: ({ text }) => linked(text, links),
      html: ({ text }) => escaped(text),
    },
  });
  return marked
    .parse(markdown, { async: false })
    .replace(/<table>[\s\S]*?<\/table>/g, '<div class="wide" tabindex="0">$&</div>');
};

const NAVIGATION = { index: 'Reference', explorer: 'Explorer', state: 'State' };

/** A whole page; scripts and styles are files of their own, since the pages may run nothing else. */
export const page = (title: string, body: string, at: 'reference' | 'explorer' | 'state', head = ''): string => {
  const links = Object.entries(NAVIGATION).map(([file, name]) => {
    const here = name.toLowerCase() === at ? ' aria-current="true"' : '';
    return `<a href="${file}.html"${here}>${name}</a>`;
  });
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${escaped(title)}${title === 'policy-sidecar' ? '' : ' – policy-sidecar'}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="page.css">
${head}</head>
<body>
<a class="skip" href="#main">To the content</a>
<header><nav aria-label="Pages">${links.join('\n')}<a href="openapi.json">openapi.json</a></nav></header>
<main id="main" tabindex="-1">
<h1>${escaped(title)}</h1>
${body}
</main>
</body>
</html>
`;
};
