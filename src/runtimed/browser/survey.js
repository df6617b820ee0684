// A selector engine of Playwright's, in the world of its own scripts: tells what a snapshot leaves out.
//
// A query is a chain of `internal:or`, so that Playwright's own engines answer its parts in one question:
// `runtimed=begin PREFIX:REFS` first, then any of `role=button[name="Go"] >> runtimed=note KEY`, and
// `runtimed=end REFS ROLES WHAT`, which gives an element whose text is the answer in JSON. All but the last find nothing.
// Nothing here changes the page.
//
// `SELECTOR >> runtimed=small` is what is found, if a snapshot of it takes no time, and `SELECTOR >> runtimed=tell` an
// element whose text is the role and the name that the latest snapshot of it gave it, in JSON; `runtimed=tell place` says
// where it is among those like it, too.
//
// `runtimed=now NUMBER` gives an element whose text is the present ref of the one whose ref had that number.
//
// `runtimed=ref REF` finds an element also where Playwright's latest snapshot was one of another part of the page.
//
// `runtimed=piece KEY REF COUNT NEAR` is the page, or what it is asked of, of which a snapshot in the same turn shows a
// piece: some COUNT elements from the one of that ref (`-`: from the beginning) on, what they are in, and in each of those
// some NEAR elements beside them. `runtimed=cut KEY` is then an element whose text says what was left out, in JSON.
(() => {
  const ACTING = 'summary, label, [tabindex], [onclick], [contenteditable]:not([contenteditable="false" i])';
  const CONTROL = 'button, a[href], select, summary, [role="button"], [role="link"]';
  // Playwright reads more or less of their text than there is in them.
  const UNREAD = 'script, style, noscript, slot, textarea, [contenteditable], [type=submit], [type=button], [type=reset]';
  // A snapshot leaves none of them out: one that it does not show has come since.
  const SHOWN = 'a[href], button, input, select, textarea, '
    + '[role]:not([role="generic"], [role="none"], [role="presentation"])';
  const LONG_NAME = 200, LONG_TEXT = 80, MANY = 500, CUTS = 8;
  const OWN = 1e9;
  // Of these a name or a text is made of all that is in them, or a snapshot has no line.
  const UNCUT = 'a, button, caption, details, figcaption, h1, h2, h3, h4, h5, h6, label, legend, option, select, summary, '
    + 'svg, td, th, tr, [contenteditable]';
  const UNCUT_ROLES = /\b(button|cell|checkbox|combobox|(column|row)header|gridcell|heading|img|link|menuitem(checkbox|radio)?|none|option|presentation|radio|row|searchbox|switch|tab|textbox|tooltip|treeitem)\b/i;
  // A snapshot leaves them their names, whatever of those it shows.
  const NAMED = 'aside, dialog, fieldset, figure, footer, form, header, main, nav, section, table';
  const BARREN = /^(script|style|noscript|template|link|meta)$/;
  let page, prefix, refs, notes, places, paths, shadows, added;
  const cuts = new Map();
  // Of another document: it is asked anew.
  const UNKNOWN = { levels: [{ element: {}, after: false }], last: null, left: 0, count: 0 };
  let given = 0;

  const spread = ranges => {
    const spans = ranges ? ranges.split(',').map(span => span.split('-').map(Number)) : [];
    const numbers = new Set();
    for (const [first, last] of spans) for (let number = first; number <= (last ?? first); number++) numbers.add(number);
    return numbers;
  };

  // Playwright keeps it there. That of another document may read like a number: `f1e2` is 100.
  const theirs = element => {
    const ref = element._ariaRef?.ref;
    return ref?.startsWith(`${prefix}e`) ? Number(ref.slice(prefix.length + 1)) : 0;
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
    if (element === page.documentElement || element.parentElement?.closest(CONTROL)) return false;
    if (element.tabIndex < 0 && !element.matches('[onclick], [contenteditable], summary, label')) return false;
    const { width, height } = element.getBoundingClientRect();
    return width > 0 && height > 0 && element.checkVisibility({ visibilityProperty: true })
      && getComputedStyle(element).pointerEvents !== 'none';
  };

  const shown = element => added.get(element) ?? number(element);
  // What Playwright's walk finds in it.
  const nodes_in = element => {
    const assigned = element.localName === 'slot' ? element.assignedNodes() : [];
    return assigned.length ? assigned
      : [...element.childNodes, ...(element.shadowRoot?.childNodes ?? [])].filter(node => !node.assignedSlot);
  };
  const inside = element => nodes_in(element).filter(node => node.nodeType === 1);
  const around = element => element.assignedSlot ?? element.parentElement ?? element.parentNode?.host ?? null;

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
      node = around(node);
      parent = node === null ? 0 : shown(node);
    }
    const ref = theirs(element) || OWN + (element._runtimedRef ??= ++given);
    added.set(element, ref);
    const text = first ? '' : plain(element.innerText ?? element.textContent);
    return { number: ref, parent, after, first, last, text, name: label(element), path: path(element),
      editable: element.isContentEditable === true };
  };

  const find = (root, ref) => {
    const own = Number(/e0(\d+)$/.exec(ref)?.[1]);
    return collect(root, []).filter(own ? element => element._runtimedRef === own : element => element._ariaRef?.ref === ref);
  };

  // How many elements it is, if those are not more than so many.
  const weigh = (node, most) => {
    if (node.nodeType !== 1) return 0;
    let weight = 1;
    for (const child of inside(node)) if ((weight += weigh(child, most - weight)) > most) break;
    return weight;
  };

  const is_idle = node => node.nodeType !== 1 ? node.nodeType !== 3 || !node.nodeValue.trim()
    : BARREN.test(node.localName) || (!node.checkVisibility() && getComputedStyle(node).display !== 'contents');

  const can_be_cut = element => {
    if (element.nodeType !== 1 || element.matches(UNCUT) || UNCUT_ROLES.test(element.getAttribute('role'))) return false;
    const root = element.getRootNode(), id = JSON.stringify(element.id);
    if (element.id && root.querySelector(`[aria-owns~=${id}], [aria-labelledby~=${id}]`)) return false;
    return element.matches(NAMED) && !element.hasAttribute('role')
      || !(element.getAttribute('aria-labelledby') ?? '').split(/\s+/).some(
        name => name && element.contains(root.getElementById(name)));
  };

  // Nothing of this is seen by the page: its world has objects of its own for the same nodes.
  const hide = (cut, element, all, kept) => {
    const put = (object, name, value) => {
      Object.defineProperty(object, name, { value, configurable: true });
      cut.undo.push(() => delete object[name]);
    };
    const only = (parent, nodes) => {
      put(parent, 'firstChild', nodes[0] ?? null);
      if (nodes.length) put(nodes.at(-1), 'nextSibling', null);
    };
    if (all[0].assignedSlot === element) return put(element, 'assignedNodes', () => kept);
    only(element, kept.filter(node => node.parentNode === element));
    if (element.shadowRoot) only(element.shadowRoot, kept.filter(node => node.parentNode === element.shadowRoot));
  };

  const is_cut_off = (element, cut) => {
    for (let node = element, parent; (parent = around(node)) !== null; node = parent) {
      const level = cut.levels.find(one => one.element === parent);
      if (level) return !level.kept.has(node);
    }
    return false;
  };

  // Whether one of two that a snapshot shows together is passed over, and not the other, which that shows elsewhere then.
  const is_torn = (top, cut) => collect(top, []).some(owner => owner.hasAttribute('aria-owns')
    && owner.getAttribute('aria-owns').split(/\s+/).some(id => {
      const owned = id && owner.ownerDocument.getElementById(id);
      const pair = owned && owner.compareDocumentPosition(owned) & 4 ? [owner, owned] : [owned, owner];
      return owned && is_cut_off(pair[0], cut) && !is_cut_off(pair[1], cut);
    }));

  const piece = (root, key, start, count, near) => {
    const top = root.nodeType === 9 ? root.querySelector('body, frameset') : root;
    if (!top) return [];
    const [first] = start === '-' ? [] : find(root, start);
    const front = new Set();
    for (let node = first; node && node !== top; node = around(node)) front.add(node);
    const cut = { top, levels: [], undo: [], left: count, count, last: null };
    cuts.set(key, cut);
    if (cuts.size > CUTS) cuts.delete(cuts.keys().next().value);
    const hides = [];
    const beside = (all, at, step) => {
      for (let most = near; all[at]; at += step) {
        if (is_idle(all[at])) continue;
        most -= Math.max(1, weigh(all[at], most));
        if (most < 0) break;
      }
      return at;
    };
    const narrow = element => {
      const all = nodes_in(element), begin = Math.max(0, all.findIndex(node => front.has(node)));
      let end = begin;
      for (; end < all.length && cut.left > 0; end++) {
        const weight = weigh(all[end], cut.left);
        if ((weight > cut.left || (front.has(all[end]) && all[end] !== first)) && can_be_cut(all[end])) narrow(all[end]);
        else cut.left -= weight;
        if (all[end].nodeType === 1 && !cut.levels.some(level => level.after)) cut.last = all[end];
      }
      const from = beside(all, begin - 1, -1) + 1, to = beside(all, end, 1);
      if (from === 0 && to === all.length) return;
      const kept = all.slice(from, to);
      cut.levels.push({ element, after: to < all.length, kept: new Set(kept) });
      hides.push([element, all, kept]);
    };
    if (start === '-' || front.size || first === top) narrow(top);
    if (is_torn(top, cut)) cut.levels = [];
    else for (const [element, all, kept] of hides) hide(cut, element, all, kept);
    Promise.resolve().then(() => cut.undo.forEach(undo => undo()));
    return [top];
  };

  // How many elements are behind the piece, and of what a part was left out; refs as Playwright has them, the innermost first.
  const tell_cut = (root, cut) => {
    const whole = root.ownerDocument ?? root;
    const all = cut.last === null ? [] : [...cut.top.querySelectorAll('*')];
    let low = 0, high = all.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (cut.last.compareDocumentPosition(all[middle]) & 4 && !cut.last.contains(all[middle])) high = middle;
      else low = middle + 1;
    }
    const told = {
      levels: cut.levels.map(({ element, after }) => ({ ref: element._ariaRef?.ref ?? '', after })),
      shown: cut.count - cut.left, rest: all.length - low };
    const answer = whole.createElement('data');
    answer.textContent = JSON.stringify(told);
    return answer;
  };

  // Tell of an element that a snapshot leaves out; one that has come since would be there twice.
  const tell_of = (element, replaced) => {
    const is_new = element._runtimedRef === undefined && theirs(element) === 0
      && (replaced || (element.matches(SHOWN) && !element.closest('[aria-hidden="true"]')));
    const told = add(element);
    if (!is_new || told.first || !told.text) return [told];
    added.delete(element);
    return [];
  };

  const end = (ranges, named, what) => {
    const told = {
      notes: {}, order: [], names: {}, paths: {}, acting: [], editable: [], passwords: [], unseen: [], added: [],
      place: null };
    const wanted = spread(ranges);
    const roles = new Set(named.split(','));
    const alone = refs.size === 1;
    const cut = cuts.get(what);
    cuts.delete(what);
    const all = collect(page, []);  // afterwards it is known whether there are shadows
    const replaced = all.filter(number).length < refs.size;  // since the snapshot
    for (const element of all) {
      const ref = element._ariaRef === undefined && element._runtimedRef === undefined ? 0 : number(element);
      if (element.localName === 'input' && element.type === 'password') {
        if (ref) told.passwords.push(ref);
        else if (element.value) told.unseen.push(element.value);
      }
      if (!ref) {
        if (what !== 'these' && acts(element) && !(cut && is_cut_off(element, cut)) && is_left_out(element))
          told.added.push(...tell_of(element, replaced));
        continue;
      }
      if (element._runtimedRefs?.at(-1) !== ref) (element._runtimedRefs ??= []).push(ref);
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
      if (alone && wanted.has(ref) && notes['name 0']?.length !== 1 && by_id(element) === null)
        told.place = place(element);
    }
    for (const [key, found] of Object.entries(notes)) told.notes[key] = found.map(number);
    // A snapshot shows the body alone.
    told.outside = [...(page.documentElement?.children ?? [])].some(
      child => child !== page.body && !/^(head|script|style|link|noscript|template)$/.test(child.localName));
    const answer = page.createElement('data');
    answer.textContent = JSON.stringify(told);
    page = prefix = refs = notes = places = paths = added = undefined;
    return [answer];
  };

  const LIKE_TEXT = /^(text|email|tel|url|password|search)$/, LIKE_BUTTON = /^(submit|button|reset|image)$/;
  const PART = 'tr, li, article, [role="row"], [role="listitem"], [role="article"]';
  const PART_TITLE = 'h1, h2, h3, h4, h5, h6, [role="heading"], th, [role="rowheader"]';
  const HEADING = 'h1, h2, h3, h4, h5, h6, legend, dt, [role="heading"]';
  const OPERATED = 'a, button, input, select, textarea, [tabindex], [contenteditable]';
  const NO_TEXT = 'script, style, noscript, template, textarea, [contenteditable]';

  const text_of = element => {
    const texts = [];
    const walker = element.ownerDocument.createTreeWalker(element, NodeFilter.SHOW_TEXT);
    for (let length = 0; length <= LONG_NAME && walker.nextNode();) {
      const text = walker.currentNode.data.trim();
      if (!text || walker.currentNode.parentElement?.closest(NO_TEXT)) continue;
      texts.push(text);
      length += text.length + 1;
    }
    return plain(texts.join(' '));
  };

  const labelled = element => {
    const ids = element.getAttribute('aria-labelledby')?.trim().split(/\s+/) ?? [];
    const texts = ids.map(id => element.getRootNode().getElementById?.(id)).filter(Boolean).map(text_of);
    return plain(texts.join(' ') || element.getAttribute('aria-label'));
  };

  // Those of one kind and one call are twins: near enough to role and name, without an engine for these.
  const kind = element => element.getAttribute('role') || (
    element.localName === 'textarea' || (element.localName === 'input' && LIKE_TEXT.test(element.type)) ? 'textbox'
    : /^(button|summary)$/.test(element.localName) || (element.localName === 'input' && LIKE_BUTTON.test(element.type))
      ? 'button' : `${element.localName} ${element.getAttribute('type') ?? ''}`);

  const call = (element, labels) => labelled(element)
    || plain((labels.get(element) ?? []).map(text_of).join(' '))
    || plain(['alt', 'placeholder', 'title'].map(name => element.getAttribute(name)).find(text => text?.trim()))
    || (element.localName === 'input' ? plain(LIKE_BUTTON.test(element.type) ? element.value : '') : text_of(element));

  const named = part => {
    const title = part.matches('fieldset, table, details, figure')
      ? part.querySelector(':scope > :is(legend, caption, summary, figcaption)')
      : part.matches(PART) ? part.querySelector(PART_TITLE) ?? part : null;
    return labelled(part) || (title ? text_of(title) : '');
  };

  const heading_in = element => element.matches(HEADING) ? element
    : element.querySelector(OPERATED) ? null : [...element.querySelectorAll(HEADING)].at(-1) ?? null;

  // The nearest among the siblings; `titles` keeps what was found, or many twins would each walk past all the others.
  const heading_before = (element, titles) => {
    const passed = [];
    let text = '';
    for (let node = element; node && !text; node = node.previousElementSibling) {
      if (titles.has(node)) {
        text = titles.get(node);
        break;
      }
      passed.push(node);
      const heading = node.previousElementSibling && heading_in(node.previousElementSibling);
      text = heading ? text_of(heading) : '';
    }
    for (const node of passed) titles.set(node, text);
    return text;
  };

  // What names the part of the page in which an element is: the nearest name or heading.
  const near = (element, own, titles) => {
    for (let node = element; node !== null; node = around(node)) {
      const name = node === element ? '' : named(node);
      if (name && name !== own) return name;
      const text = heading_before(node, titles);
      if (text) return text;
    }
    return '';
  };

  // Where an element is among its twins, of which there may be others on a later visit of the page.
  const place = element => {
    const all = collect(element.ownerDocument, []), labels = new Map();
    for (const one of all) {  // `labels` of an element walks through the whole page
      const control = one.localName === 'label' ? one.control : null;
      if (control) labels.set(control, [...(labels.get(control) ?? []), one]);
    }
    const mine = kind(element), own = call(element, labels);
    const twins = all.filter(one => one === element
      || (kind(one) === mine && one.checkVisibility() && call(one, labels) === own));
    const titles = new Map();
    const told = { twins: twins.length, near: near(element, own, titles), near_it: 1, text: '', with_text: 1 };
    if (twins.length === 1) return told;
    const beside = twins.filter(one => near(one, own, titles) === told.near);
    told.near_it = beside.length;
    if (told.near_it === 1) return told;
    const inside = new Map();
    for (const one of twins)
      for (let node = one; node !== null; node = around(node)) inside.set(node, (inside.get(node) ?? 0) + 1);
    const alone = one => {
      let node = one;
      for (let next = around(node); next !== null && inside.get(next) === 1; next = around(node)) node = next;
      return text_of(node);
    };
    told.text = alone(element);
    told.with_text = beside.filter(one => alone(one) === told.text).length;
    return told;
  };

  const is_small = element => element.getElementsByTagName('*').length <= MANY;

  // What screen readers pass over has its text alone.
  const tell = (element, with_place) => {
    const seen = element._ariaRef, told = { role: null, name: null, text: null };
    if (with_place) told.place = place(element);
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

  // Playwright gives an element another ref with another role or name.
  const tell_now = (root, former) => {
    const document = root.ownerDocument ?? root, answer = document.createElement('data');
    answer.textContent = collect(document, []).find(one => one._runtimedRefs?.includes(former))?._ariaRef?.ref ?? '';
    return answer;
  };

  return {
    queryAll(root, body) {
      const [, verb, rest] = /^(\w+) ?(.*)$/s.exec(body);
      if (verb === 'small') return is_small(root) ? [root] : [];
      if (verb === 'tell') return [tell(root, rest === 'place')];
      if (verb === 'begin') begin(root, ...rest.split(':'));
      if (verb === 'note') (notes[rest] ??= []).push(root);
      if (verb === 'now') return [tell_now(root, Number(rest))];
      if (verb === 'ref') return find(root, rest);
      if (verb === 'piece') {
        const [key, start, count, near] = rest.split(' ');
        return piece(root, key, start, Number(count), Number(near));
      }
      if (verb === 'cut') return [tell_cut(root, cuts.get(rest) ?? UNKNOWN)];
      return verb === 'end' ? end(...rest.split(' ')) : [];
    },
  };
})()
