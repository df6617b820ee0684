// A selector engine of Playwright's, in the world of its own scripts: tells what a snapshot leaves out.
//
// A query is a chain of `internal:or`, so that Playwright's own engines answer its parts in one question:
// `runtimed=begin PREFIX:REFS` first, then any of `role=button[name="Go"] >> runtimed=note KEY`, and
// `runtimed=end REFS ROLES`, which gives an element whose text is the answer in JSON. All but the last find nothing.
// Nothing here changes the page.
//
// `runtimed=ref REF` finds an element also where Playwright's latest snapshot was one of another part of the page.
(() => {
  const ACTING = 'summary, label, [tabindex], [onclick], [contenteditable]:not([contenteditable="false" i])';
  const LONG_NAME = 200;
  let page, prefix, refs, notes, places, paths, shadows;

  const spread = ranges => {
    const spans = ranges ? ranges.split(',').map(span => span.split('-').map(Number)) : [];
    const flags = new Uint8Array(spans.length ? Math.max(...spans.at(-1)) + 1 : 0);
    for (const [first, last] of spans) flags.fill(1, first, (last ?? first) + 1);
    return flags;
  };

  // Playwright keeps it there.
  const number = element => {
    const ref = element._ariaRef?.ref;
    if (ref === undefined || !ref.startsWith(prefix)) return 0;
    const own = Number(ref.slice(prefix.length + 1));
    return refs[own] ? own : 0;
  };

  const begin = (root, mine, ranges) => {
    prefix = mine;
    page = root.ownerDocument ?? root;
    refs = spread(ranges);
    notes = {};
    places = new Map();
    paths = new Map();
    shadows = false;
  };

  // In the order in which Playwright's engine of roles finds them.
  const collect = (root, all) => {
    const inside = [];
    for (const element of root.querySelectorAll('*')) {
      all.push(element);
      if (element.shadowRoot) inside.push(element.shadowRoot);
    }
    for (const shadow of inside) collect(shadow, all);
    shadows ||= inside.length > 0;
    return all;
  };

  const only = (css, element) => {
    const found = page.querySelectorAll(css);
    return found.length === 1 && found[0] === element;
  };

  // An id that a program counted up is another one on the next visit.
  const by_id = element => {
    const id = element.id;
    if (!id || id.length > 60 || /\d{3}|[:«»]|[0-9a-f]{8}-/.test(id)) return null;
    const css = '#' + CSS.escape(id);
    return only(css, element) ? css : null;
  };

  const step = element => {
    if (!places.has(element)) {
      const counts = new Map();
      for (const child of element.parentNode.children) {
        const type = `${child.namespaceURI} ${child.localName}`;
        counts.set(type, (counts.get(type) ?? 0) + 1);
        places.set(child, counts.get(type));
      }
    }
    return `${CSS.escape(element.localName)}:nth-of-type(${places.get(element)})`;
  };

  const in_document = element => {
    let css = paths.get(element);
    if (css === undefined) {
      const parent = element.parentElement;
      css = by_id(element) ?? (parent === null ? ':root'
        : element.localName === 'body' && only('body', element) ? 'body'
        : `${in_document(parent)} > ${step(element)}`);
      paths.set(element, css);
    }
    return css;
  };

  // Playwright's CSS looks into shadows, too, and takes a host for the parent of what its shadow holds.
  const path = element => {
    const root = element.getRootNode();
    if (root === page) return shadows ? `:light(${in_document(element)})` : in_document(element);
    const host = root.host ? path(root.host) : null;
    if (host === null) return null;
    const steps = [];
    for (let node = element; node; node = node.parentElement) steps.unshift(step(node));
    let found = [root.host];
    for (const one of steps)
      found = found.flatMap(each => [...each.children, ...(each.shadowRoot?.children ?? [])])
        .filter(child => child.matches(one));
    return found.length === 1 && found[0] === element ? `${host} >> :scope > ${steps.join(' > ')}` : null;
  };

  const frame_path = element => {
    const name = element.getAttribute('name');
    const css = `${element.localName}[name=${JSON.stringify(name)}]`;
    return name && /^[\w-]+$/.test(name) && !shadows && only(css, element) ? css : path(element);
  };

  const acts = element => element.matches(ACTING) && (
    element.localName !== 'label' || element.hasAttribute('onclick') || element.hasAttribute('tabindex')
      // What people click instead of a control that is not to be seen.
      || (element.control !== null && element.control.getClientRects().length === 0));

  const end = (ranges, named = '') => {
    const told = { notes: {}, order: [], names: {}, paths: {}, acting: [], passwords: [], unseen: [] };
    const wanted = spread(ranges);
    const roles = new Set(named.split(','));
    const alone = refs.reduce((count, flag) => count + flag, 0) === 1;
    const all = collect(page, []);  // afterwards it is known whether there are shadows
    for (const element of all) {
      const ref = element._ariaRef === undefined ? 0 : number(element);
      if (element.localName === 'input' && element.type === 'password') {
        if (ref) told.passwords.push(ref);
        else if (element.value) told.unseen.push(element.value);
      }
      if (!ref) continue;
      const { role, name } = element._ariaRef;
      if (acts(element)) told.acting.push(ref);
      if (roles.has(role)) told.order.push(ref);
      if (alone || (name && element.firstElementChild && roles.has(role) && name.length <= LONG_NAME))
        told.names[ref] = name;
      if (wanted[ref])
        told.paths[ref] = /^i?frame$/.test(element.localName) ? frame_path(element) : path(element);
    }
    for (const [key, found] of Object.entries(notes)) told.notes[key] = found.map(number);
    // A snapshot shows the body alone.
    told.outside = [...page.documentElement.children].some(
      child => child !== page.body && !/^(head|script|style|link|noscript|template)$/.test(child.localName));
    const answer = page.createElement('data');
    answer.textContent = JSON.stringify(told);
    page = prefix = refs = notes = places = paths = undefined;
    return [answer];
  };

  return {
    queryAll(root, body) {
      const [, verb, rest] = /^(\w+) ?(.*)$/s.exec(body);
      if (verb === 'begin') begin(root, ...rest.split(':'));
      if (verb === 'note') (notes[rest] ??= []).push(root);
      if (verb === 'ref') return collect(root, []).filter(element => element._ariaRef?.ref === rest);
      return verb === 'end' ? end(...rest.split(' ')) : [];
    },
  };
})()
