// A selector engine of Playwright's, in the world of its own scripts: tells what a snapshot leaves out.
//
// A query is a chain of `internal:or`, so that Playwright's own engines answer its parts in one question:
// `runtimed=begin PREFIX:REFS` first, then any of `role=button[name="Go"] >> runtimed=note KEY`, and
// `runtimed=end REFS ROLES WHAT`, which gives an element whose text is the answer in JSON. All but the last find nothing.
// Nothing here changes the page.
//
// `SELECTOR >> runtimed=small` is what is found, if a snapshot of it takes no time, and `SELECTOR >> runtimed=tell` an
// element whose text is the role and the name that the latest snapshot of it gave it, in JSON.
//
// `runtimed=ref REF` finds an element also where Playwright's latest snapshot was one of another part of the page.
(() => {
  const ACTING = 'summary, label, [tabindex], [onclick], [contenteditable]:not([contenteditable="false" i])';
  const CONTROL = 'button, a[href], select, summary, [role="button"], [role="link"]';
  // Playwright reads more or less of their text than there is in them.
  const UNREAD = 'script, style, noscript, slot, textarea, [contenteditable], [type=submit], [type=button], [type=reset]';
  const LONG_NAME = 200, LONG_TEXT = 80, MANY = 500;
  const OWN = 1e9;
  let page, prefix, refs, notes, places, paths, shadows, added;
  let given = 0;

  const spread = ranges => {
    const spans = ranges ? ranges.split(',').map(span => span.split('-').map(Number)) : [];
    const numbers = new Set();
    for (const [first, last] of spans) for (let number = first; number <= (last ?? first); number++) numbers.add(number);
    return numbers;
  };

  // Playwright keeps it there.
  const theirs = element => {
    const ref = element._ariaRef?.ref;
    return ref?.startsWith(prefix) ? Number(ref.slice(prefix.length + 1)) : 0;
  };

  const number = element => {
    const one = theirs(element);
    if (refs.has(one)) return one;
    const own = OWN + (element._runtimedRef ?? 0);
    return refs.has(own) ? own : 0;
  };

  const begin = (root, mine, ranges) => {
    prefix = mine;
    page = root.ownerDocument ?? root;
    refs = spread(ranges);
    notes = {};
    places = new Map();
    paths = new Map();
    added = new Map();
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

  const plain = text => (text ?? '').replace(/\s+/g, ' ').trim().slice(0, LONG_NAME);

  // A screen reader reads these for an editor, though none of them is the name of what has no role.
  const label = element => plain(['aria-label', 'title', 'aria-placeholder', 'data-placeholder', 'placeholder']
    .map(name => element.getAttribute(name)).find(text => text?.trim()));

  const is_left_out = element => {
    if (!acts(element) || element === page.documentElement || element.parentElement?.closest(CONTROL)) return false;
    if (element.tabIndex < 0 && !element.matches('[onclick], [contenteditable], summary, label')) return false;
    const { width, height } = element.getBoundingClientRect();
    return width > 0 && height > 0 && element.checkVisibility({ visibilityProperty: true })
      && getComputedStyle(element).pointerEvents !== 'none';
  };

  const shown = element => added.get(element) ?? number(element);
  const inside = element => {
    const assigned = element.localName === 'slot' ? element.assignedElements() : [];
    return assigned.length ? assigned
      : [...element.children, ...(element.shadowRoot?.children ?? [])].filter(child => !child.assignedSlot);
  };

  const outermost = (elements, last) => {
    for (const element of last ? elements.reverse() : elements) {
      const found = shown(element) || outermost(inside(element), last);
      if (found) return found;
    }
    return 0;
  };

  // Where it belongs among what is shown.
  const add = element => {
    const first = outermost(inside(element), false), last = first ? outermost(inside(element), true) : 0;
    let node = element, after = 0, parent = 0;
    while (node !== null && !after && !parent) {
      for (let before = node.previousElementSibling; before && !after; before = before.previousElementSibling)
        if (before.assignedSlot === node.assignedSlot) after = outermost([before], true);
      if (after) break;
      node = node.assignedSlot ?? node.parentElement ?? node.parentNode?.host ?? null;
      parent = node === null ? 0 : shown(node);
    }
    const ref = theirs(element) || OWN + (element._runtimedRef ??= ++given);
    added.set(element, ref);
    const text = first ? '' : plain(element.innerText ?? element.textContent);
    return { number: ref, parent, after, first, last, text, name: label(element), path: path(element),
      editable: element.isContentEditable === true };
  };

  const end = (ranges, named, what) => {
    const told = {
      notes: {}, order: [], names: {}, paths: {}, acting: [], editable: [], passwords: [], unseen: [], added: [] };
    const wanted = spread(ranges);
    const roles = new Set(named.split(','));
    const alone = refs.size === 1;
    const all = collect(page, []);  // afterwards it is known whether there are shadows
    for (const element of all) {
      const ref = element._ariaRef === undefined && element._runtimedRef === undefined ? 0 : number(element);
      if (element.localName === 'input' && element.type === 'password') {
        if (ref) told.passwords.push(ref);
        else if (element.value) told.unseen.push(element.value);
      }
      if (!ref) {
        if (what === 'all' && is_left_out(element)) told.added.push(add(element));
        continue;
      }
      const { role, name } = ref < OWN ? element._ariaRef : { role: 'generic', name: '' };
      const acting = acts(element);
      if (acting) told.acting.push(ref);
      if (acting && element.isContentEditable === true && element.hasAttribute('contenteditable'))
        told.editable.push(ref);
      if (roles.has(role)) told.order.push(ref);
      if (alone || (name && element.firstElementChild && roles.has(role) && name.length <= LONG_NAME))
        told.names[ref] = name;
      if (acting && role === 'generic' && !name) told.names[ref] = label(element);
      if (wanted.has(ref))
        told.paths[ref] = /^i?frame$/.test(element.localName) ? frame_path(element) : path(element);
    }
    for (const [key, found] of Object.entries(notes)) told.notes[key] = found.map(number);
    // A snapshot shows the body alone.
    told.outside = [...page.documentElement.children].some(
      child => child !== page.body && !/^(head|script|style|link|noscript|template)$/.test(child.localName));
    const answer = page.createElement('data');
    answer.textContent = JSON.stringify(told);
    page = prefix = refs = notes = places = paths = added = undefined;
    return [answer];
  };

  const is_small = element => element.getElementsByTagName('*').length <= MANY;

  // What screen readers pass over has its text alone.
  const tell = element => {
    const seen = element._ariaRef, told = { role: null, name: null, text: null };
    if (seen && !/^(generic|iframe)$/.test(seen.role)) Object.assign(told, { role: seen.role, name: seen.name });
    else if (is_small(element)) {
      const text = element.textContent.replaceAll(/\s+/g, ' ').trim();
      const all = [element, ...element.getElementsByTagName('*')];
      if (text.length <= LONG_TEXT && !all.some(one => one.shadowRoot || one.matches(UNREAD))) told.text = text;
    }
    const answer = element.ownerDocument.createElement('data');
    answer.textContent = JSON.stringify(told);
    return answer;
  };

  return {
    queryAll(root, body) {
      const [, verb, rest] = /^(\w+) ?(.*)$/s.exec(body);
      if (verb === 'small') return is_small(root) ? [root] : [];
      if (verb === 'tell') return [tell(root)];
      if (verb === 'begin') begin(root, ...rest.split(':'));
      if (verb === 'note') (notes[rest] ??= []).push(root);
      if (verb === 'ref') {
        const own = Number(/e0(\d+)$/.exec(rest)?.[1]);
        return collect(root, []).filter(
          own ? element => element._runtimedRef === own : element => element._ariaRef?.ref === rest);
      }
      return verb === 'end' ? end(...rest.split(' ')) : [];
    },
  };
})()
