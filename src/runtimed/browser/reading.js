// What a document shows, as a tree for Markdown: [kind, attributes, children], or a text. Changes nothing that a page sees.
// `given` are the elements to read, or the document for the page as a whole; of its frames those count that have a number
// below `options.frames`; `options.main` leaves out what stands around the content.
(given, options) => {
  const roots = Array.isArray(given) ? given : null;
  // By their numbers: a page may have a `Node` of its own.
  const TEXT = 3, ELEMENT = 1;
  const DEEPEST = 150;
  const skipped = new Set(['SCRIPT', 'STYLE', 'NOSCRIPT', 'TEMPLATE', 'LINK', 'META', 'HEAD', 'TITLE', 'CANVAS', 'OBJECT',
    'EMBED', 'AUDIO', 'VIDEO', 'MAP', 'DATALIST', 'RP']);
  const inlineKinds = {
    B: 'strong', STRONG: 'strong', I: 'em', EM: 'em', VAR: 'em', CITE: 'em', DFN: 'em', S: 'del', DEL: 'del', STRIKE: 'del',
    SUP: 'sup', SUB: 'sub', Q: 'q', RT: 'rt',
  };
  const noise = new Set(['share', 'sharing', 'social', 'newsletter', 'breadcrumb', 'breadcrumbs', 'crumbs', 'pagination',
    'pager', 'sidebar', 'related', 'recommended', 'recommendations', 'sponsored', 'advert', 'adverts', 'advertisement',
    'ads', 'ad', 'adsbygoogle', 'editsection', 'headerlink', 'viewcode', 'gdpr']);
  const numbering = /^(linenos?|linenumbers?|gutter)$/;
  const styles = new Map();
  const styleOf = node => {
    if (!styles.has(node)) styles.set(node, getComputedStyle(node));
    return styles.get(node);
  };
  const content = /[\p{L}\p{N}\p{Sc}]/u;
  const squeezed = text => text.replace(/\s+/g, ' ').trim();
  const parts = node => (node.hasAttributes() ? partsOf(node) : []);
  // An id may be made from a heading, and so be a whole sentence.
  const partsOf = node => `${/^\w+([-_]\w+)?$/.test(node.id) ? node.id : ''} ${node.getAttribute('class') ?? ''}`
    .toLowerCase().split(/[\s_-]+/);
  const named = node => `${node.getAttribute('aria-label') ?? ''} ${node.title ?? ''}`;
  const role = node => (node.getAttribute('role') ?? '').trim().split(/\s+/)[0];
  const inContent = node => node.parentElement?.closest('article, main, [role=main], [role=article]');

  const once = work => { let made; return () => (made ??= work()); };
  const childrenOf = node => {
    if (node.shadowRoot) return [...node.shadowRoot.childNodes];
    if (node.tagName === 'SLOT') { const given = node.assignedNodes(); if (given.length) return given; }
    return [...node.childNodes];
  };

  // --- what stands around the content ---

  // Of each element: how many characters it shows, how many of them in links, how many links, and how many as prose.
  const weights = once(() => {
    const found = new Map();
    const weigh = (node, inLink) => {
      const sum = { all: 0, linked: 0, links: 0, prose: 0, own: 0 };
      for (const child of childrenOf(node)) {
        if (child.nodeType === TEXT) {
          const size = squeezed(child.data).length;
          sum.all += size;
          sum[inLink ? 'linked' : 'own'] += size;
        } else if (child.nodeType === ELEMENT && !skipped.has(child.tagName.toUpperCase())
          && styleOf(child).display !== 'none') {
          const isLink = child.tagName === 'A' && child.hasAttribute('href');
          const one = weigh(child, inLink || isLink);
          sum.all += one.all;
          sum.linked += one.linked;
          sum.links += one.links + (isLink ? 1 : 0);
          sum.prose += one.prose;
          if (styleOf(child).display.startsWith('inline')) sum.own += one.own;
        }
      }
      if (sum.own >= 60 && !styleOf(node).display.startsWith('inline')) sum.prose += sum.own;
      if (/^(NAV|ASIDE|FOOTER)$/.test(node.tagName)) sum.prose = 0;
      found.set(node, sum);
      return sum;
    };
    weigh(document.documentElement, false);
    return found;
  });
  const weightOf = node => weights().get(node) ?? { all: 0, linked: 0, links: 0, prose: 0 };
  const words = node => weightOf(node).all;
  // The smallest element with nearly all of the prose, where there is enough of it to say that it is the content.
  let core = null;
  const coreOf = root => {
    const whole = weightOf(root).prose;
    if (whole < 500) return null;
    let found = root;
    for (;;) {
      const next = childrenOf(found).find(child => weightOf(child).prose > whole * 0.8);
      if (!next) return found;
      found = next;
    }
  };

  const pageHeadings = once(() => [...document.querySelectorAll('h1')].filter(node => node.checkVisibility()));
  const pageWords = once(() => words(document.body));
  const leadsHome = heading => {
    const link = heading.querySelector('a[href]') ?? heading.closest('a[href]');
    return link !== null && /^\/?(index\.\w+)?$/.test(new URL(link.href, document.baseURI).pathname);
  };
  const isTitle = heading => !leadsHome(heading) && words(heading) > 0;
  const isSkipLink = node => node.tagName === 'A' && /^#./.test(node.getAttribute('href') ?? '')
    && (/^(skip|jump|go) (to|over) |zum (haupt)?inhalt|aller au contenu|(saltar|ir) al contenido|vai al contenuto/i
      .test(squeezed(node.textContent)));
  const isPermalink = node => node.tagName === 'A' && /^#/.test(node.getAttribute('href') ?? '')
    && node.closest('h1, h2, h3, h4, h5, h6, dt') !== null && !content.test(node.textContent);
  const mostlyLinks = (node, share = 0.5) => {
    const { all, linked, links } = weightOf(node);
    return links > 1 && linked > all * share;
  };
  // A line of links at the top of the page, or at its end, that nothing marks as a menu.
  const isLinkBar = node => {
    const top = node.parentElement === document.body || node.parentElement?.parentElement === document.body;
    return top && /^(DIV|P|UL|SECTION|CENTER)$/.test(node.tagName)
      && node.querySelector('h1, h2, h3, p, table, pre') === null && !inContent(node)
      && mostlyLinks(node, 0.8) && words(node) < pageWords() * 0.1;
  };
  const headings = once(() => [...document.querySelectorAll('h1, h2, h3')].filter(node => node.checkVisibility()));
  // What a page of plain elements calls its header or its footer: outermost, small, before or after all headings.
  const landmark = node => {
    const top = [node.parentElement, node.parentElement?.parentElement].includes(document.body);
    if (!top || !/^(DIV|SECTION|TABLE)$/.test(node.tagName) || words(node) > pageWords() * 0.3) return '';
    for (const name of [node.id, ...node.classList]) {
      const found = /^(?:(?:site|page|main|global|layout)[-_]?)?(header|footer)$/i.exec(name);
      if (!found) continue;
      const kind = found[1].toLowerCase(), wrong = kind === 'header' ? 2 : 4;
      if (!headings().some(one => !node.contains(one) && node.compareDocumentPosition(one) & wrong)) return kind;
    }
    return '';
  };
  const special = /^(NAV|SEARCH|FOOTER|ASIDE|HEADER|FORM|BUTTON)$/;
  const around = node => {
    const tag = node.tagName;
    if (core && /^(DIV|UL|OL|DL|SECTION|TABLE|P|ARTICLE|CENTER|FORM)$/.test(tag) && mostlyLinks(node, 0.4)
      && !core.contains(node) && !node.contains(core) && node.querySelector('h1') === null) return true;
    if (!node.hasAttributes() && !special.test(tag)) return isLinkBar(node);
    const kind = role(node);
    if (isSkipLink(node)) return true;
    if (node.getAttribute('aria-hidden') === 'true') return true;
    if (tag === 'NAV' || ['navigation', 'menubar', 'search'].includes(kind) || tag === 'SEARCH') return true;
    if (/^(advertisement|ad|sponsored)\b/i.test(named(node).trim())) return true;
    if (['dialog', 'alertdialog', 'region'].includes(kind) && /cookie|consent/i.test(named(node) + parts(node).join(' ')))
      return true;
    const own = parts(node);
    const holds = once(() => node.matches('main, article, h1') || node.querySelector('main, [role=main], h1') !== null);
    const asks = own.includes('cookie') || own.includes('consent') || own.includes('cookies');
    if (asks && (['fixed', 'sticky'].includes(styleOf(node).position)
      || own.some(part => /^(banner|bar|notice|popup|overlay|law)$/.test(part))) && !holds()) return true;
    if (own.some(part => noise.has(part)) && !holds() && words(node) < pageWords() * 0.4) return true;
    if (tag === 'BUTTON' && (own.includes('copy') || own.includes('clipboard') || /^copy( code)?$/i.test(squeezed(node.textContent))))
      return true;
    const called = landmark(node);
    if (tag === 'FOOTER' || kind === 'contentinfo' || called === 'footer') {
      if (node.closest('blockquote, figure')) return false;
      return inContent(node) ? mostlyLinks(node) : !holds();
    }
    if (tag === 'ASIDE' || kind === 'complementary') return !inContent(node) || mostlyLinks(node);
    if (tag === 'HEADER' || kind === 'banner' || called === 'header') {
      if (inContent(node) || node.closest('section')) return false;
      return !pageHeadings().some(heading => node.contains(heading) && isTitle(heading));
    }
    if (tag === 'FORM' && !inContent(node) && node.querySelector('input[type=search]') !== null) return true;
    return isLinkBar(node);
  };

  // --- the tree ---

  const isBlock = display => /^(block|flex|grid|table|list-item|flow-root|-webkit-box|ruby-base)/.test(display);
  const pushAll = (into, more) => { for (const one of more) into.push(one); };
  const sizeOf = text => parseFloat(text) || 0;

  const blocky = /^(H[1-6]|P|UL|OL|TABLE|PRE|BLOCKQUOTE|DL|HR|FIGURE|FORM|FIELDSET|SECTION|ARTICLE)$/;
  const inlineOnly = node => [...node.querySelectorAll('*')].every(child =>
    !isBlock(styleOf(child).display) || /^(none)$/.test(styleOf(child).display) || isRow(child) && !blocky.test(child.tagName));
  const beside = (node, other) => {
    if (!other || styleOf(other).display === 'none') return false;
    const one = node.getBoundingClientRect(), two = other.getBoundingClientRect();
    return Math.min(one.bottom, two.bottom) - Math.max(one.top, two.top) > Math.min(one.height, two.height) * 0.5;
  };
  // Whether an item stands beside its neighbours, in a row.
  const isRow = node => {
    const holder = node.parentElement;
    return holder !== null && /flex|grid/.test(styleOf(holder).display)
      && (beside(node, node.previousElementSibling) || beside(node, node.nextElementSibling));
  };
  // What stands between an item of a row and the one before it: a visible gap, nothing, or the end of the row before.
  const between = node => {
    const before = node.previousElementSibling;
    if (!before) return [];
    if (!beside(node, before)) return [['br', 0, []]];
    const one = before.getBoundingClientRect(), two = node.getBoundingClientRect();
    const gap = Math.max(two.left - one.right, one.left - two.right)
      + sizeOf(styleOf(node).paddingLeft) + sizeOf(styleOf(before).paddingRight);
    const wide = gap >= 2 || /\p{L}$/u.test(before.textContent.trim()) || /^\p{L}/u.test(node.textContent.trim());
    return wide ? [['gap', 0, []]] : [];
  };
  // The selectors of all rules by which the page writes texts of its own; null if they cannot be known.
  const generating = once(() => {
    const found = [];
    const look = rules => {
      for (const rule of rules) {
        if (rule.cssRules?.length) look(rule.cssRules);
        if (rule.styleSheet) look(rule.styleSheet.cssRules);
        if (!/::?(before|after)/.test(rule.selectorText) || !/["']|var\(|attr\(/.test(rule.style.content)) continue;
        found.push(rule.selectorText.replace(/(^|[\s,>+~(])::?(before|after)/g, '$1*').replace(/::?(before|after)/g, ''));
      }
    };
    try {
      for (const sheet of [...document.styleSheets, ...document.adoptedStyleSheets]) look(sheet.cssRules);
      const all = found.join(', ');
      if (all) document.createElement('p').matches(all);
      return all;
    } catch { return null; }
  });
  const mayGenerate = node => {
    if (node.getRootNode() !== document) return true;
    const all = generating();
    return all === null || (all !== '' && node.matches(all));
  };
  const pseudo = (node, which) => {
    const style = getComputedStyle(node, which);
    const match = /^"((?:[^"\\]|\\.)*)"$/.exec(style.content);
    if (!match || style.display === 'none' || style.visibility === 'hidden') return '';
    const text = match[1].replace(/\\(.)/g, '$1');
    return !/[\uE000-\uF8FF]/.test(text) && (content.test(text) || /^[\s,;:/|()–—-]+$/.test(text)) ? text : '';
  };
  const inlined = (text, style) => {
    if (!/^(pre|pre-wrap|pre-line|break-spaces)$/.test(style.whiteSpace) || !text.includes('\n')) return [text];
    const made = [];
    text.replace(/^\n+|\n+$/g, '').split('\n').forEach((line, n) => { if (n) made.push(['br', 0, []]); made.push(line); });
    return made;
  };

  const languageOf = node => {
    const places = [node.querySelector('code'), node, node.parentElement, node.parentElement?.parentElement,
      node.parentElement?.parentElement?.parentElement];
    for (const [n, place] of places.entries()) {
      if (!place || (n > 1 && !/^(DIV|FIGURE)$/.test(place.tagName))) continue;
      const names = place.getAttribute('class') ?? '';
      const match = /(?:^|\s)(?:language|lang|highlight-source|highlight-text|highlight)-([\w+#.-]+)/.exec(names)
        ?? /(?:^|\s)brush:\s*([\w+#-]+)/.exec(names);
      const found = match?.[1] ?? place.getAttribute('data-lang') ?? place.getAttribute('data-language');
      if (found && !/^(none|default|text|plain|plaintext|notranslate)$/.test(found)) return found;
    }
    return '';
  };
  const codeOf = root => {
    let text = '';
    const walk = node => {
      if (node.nodeType === TEXT) { text += node.data; return; }
      if (node.nodeType !== ELEMENT) return;
      if (node.tagName === 'BR') { text += '\n'; return; }
      if (node !== root) {
        const style = styleOf(node);
        if (skipped.has(node.tagName) || node.tagName === 'BUTTON' || style.display === 'none') return;
        if (parts(node).some(part => numbering.test(part))) return;
        if (style.userSelect === 'none' && styleOf(node.parentElement).userSelect !== 'none') return;
        if (isBlock(style.display)) {
          if (text && !text.endsWith('\n')) text += '\n';
          const start = text.length;
          childrenOf(node).forEach(walk);
          if (text.length === start || !text.endsWith('\n')) text += '\n';
          return;
        }
      }
      childrenOf(node).forEach(walk);
    };
    walk(root);
    return text;
  };

  const mathOf = node => {
    const given = node.querySelector('annotation[encoding="application/x-tex"]');
    if (given) return squeezed(given.textContent);
    const line = one => {
      if (one.nodeType === TEXT) return one.data.trim();
      if (one.nodeType !== ELEMENT || /^annotation/.test(one.localName)) return '';
      const all = [...one.childNodes].map(line).filter(text => text !== '');
      const grouped = text => (/^[\p{L}\p{N}]+$/u.test(text) ? text : `(${text})`);
      switch (one.localName) {
        case 'mfrac': return `${grouped(all[0] ?? '')}/${grouped(all[1] ?? '')}`;
        case 'msup': return `${all[0] ?? ''}^${grouped(all[1] ?? '')}`;
        case 'munderover': case 'munder': case 'msub': case 'msubsup': return `${all[0] ?? ''}_${grouped(all[1] ?? '')}`
          + (all.length > 2 ? `^${grouped(all[2])}` : '');
        case 'mover': return (all[1] ?? '').length > 1 ? `${all[0]}^${grouped(all[1])}` : all.join('');
        case 'mroot': return `${grouped(all[1] ?? '')}√(${all[0] ?? ''})`;
        case 'mtable': return all.join('; ');
        case 'mtr': return all.join(' ');
        case 'msqrt': return `√(${all.join('')})`;
        default: return all.join('');
      }
    };
    return line(node);
  };

  // The texts of a drawing; what has a label for those who do not see it is told by that.
  const drawingOf = (node, main, depth) => {
    const given = node.getAttribute('aria-label'), kind = node === document.documentElement ? 'block' : 'gap';
    const label = squeezed(given ?? node.querySelector(':scope > title')?.textContent ?? '');
    const made = label ? [['img', { alt: label, src: '' }, []]] : [];
    if (given !== null || role(node) === 'img') return made[0] ?? null;
    for (const one of node.querySelectorAll('text, foreignObject')) {
      if (!one.checkVisibility({ visibilityProperty: true })) continue;
      const inner = one.localName === 'text' ? [linesOf(one)] : copyAll(childrenOf(one), main, depth + 1);
      const href = one.closest('a')?.href?.baseVal;
      const address = URL.canParse(href, document.baseURI) ? new URL(href, document.baseURI).href : href;
      made.push([kind, 0, href ? [['link', { href: address }, inner]] : inner]);
    }
    return made.length ? ['inline', 0, made] : null;
  };
  const linesOf = text => squeezed([...text.childNodes].map(one => (
    ['x', 'y', 'dy'].some(name => one.getAttribute?.(name)) ? ` ${one.textContent}` : one.textContent)).join(''));

  const fieldOf = node => {
    const gap = text => (text ? ['gap', 0, [text]] : null);
    if (node.tagName === 'SELECT') return gap([...node.selectedOptions].map(one => squeezed(one.label)).join(', '));
    if (node.tagName === 'TEXTAREA') {
      const made = [];
      node.value.trim().split('\n').forEach((line, n) => { if (n) made.push(['br', 0, []]); made.push(line); });
      return node.value.trim() ? ['gap', 0, made] : null;
    }
    switch (node.type) {
      case 'hidden': return null;
      case 'checkbox': return ['check', { on: node.checked }, []];
      case 'radio': return gap(node.checked ? '(x)' : '( )');
      case 'password': return gap(node.value ? '•••' : '');
      case 'image': return gap(node.alt);
      case 'file': return gap([...node.files].map(one => one.name).join(', '));
      case 'submit': case 'reset': return gap(node.value || (node.type === 'submit' ? 'Submit' : 'Reset'));
      default: return gap(node.value.trim());
    }
  };

  const place = node => {
    const list = node.parentElement;
    if (!list || list.tagName !== 'OL') return null;
    const items = [...list.children].filter(one => one.tagName === 'LI');
    let count = list.reversed ? items.length : 1;
    if (list.hasAttribute('start')) count = list.start;
    for (const one of items) {
      if (one.hasAttribute('value')) count = one.value;
      if (one === node) return count;
      count += list.reversed ? -1 : 1;
    }
    return null;
  };

  const rowsOf = (node, kind) => {
    if (node.tagName === 'TABLE' && !kind) {
      const head = node.tHead ? [...node.tHead.rows] : [], foot = node.tFoot ? [...node.tFoot.rows] : [];
      const rest = [...node.rows].filter(row => !head.includes(row) && !foot.includes(row));
      return [...head, ...rest, ...foot].filter(row => styleOf(row).display !== 'none')
        .map(row => [...row.cells].filter(cell => styleOf(cell).display !== 'none'));
    }
    const cells = '[role=cell], [role=gridcell], [role=columnheader], [role=rowheader]';
    const own = one => one.parentElement.closest('[role=table], [role=grid], [role=treegrid]') === node;
    return [...node.querySelectorAll('[role=row]')].filter(row => own(row) && styleOf(row).display !== 'none')
      .map(row => [...row.querySelectorAll(cells)].filter(cell => own(cell) && styleOf(cell).display !== 'none'));
  };
  const isHead = cell => cell.tagName === 'TH' && cell.scope !== 'row' || role(cell) === 'columnheader';
  const tableOf = (node, kind, main, depth) => {
    const rows = rowsOf(node, kind).filter(row => row.length);
    const caption = node.caption ? copyAll(childrenOf(node.caption), main, depth) : [];
    const shown = main ? rows.map(row => row.filter(cell => !parts(cell).some(part => noise.has(part) || numbering.test(part)))) : rows;
    const heads = rows.some(row => row.some(cell => cell.tagName === 'TH' || /header$/.test(role(cell))));
    const wide = Math.max(0, ...shown.map(row => row.length));
    const data = rows.length > 0 && !['presentation', 'none'].includes(role(node)) && (heads
      || (rows.length > 1 && wide > 1 && node.querySelector('table, h1, h2, h3, h4, pre, form, iframe') === null));
    if (!data) {
      const made = shown.flatMap(row => row.map(cell => ['block', 0, copyAll(childrenOf(cell), main, depth)]));
      return ['block', 0, [...(caption.length ? [['block', 0, caption]] : []), ...made]];
    }
    const made = shown.map(row => ['row', { head: row.every(isHead) }, row.map(cell => ['cell', {
      across: cell.colSpan ?? (Number(cell.getAttribute('aria-colspan')) || 1),
      down: cell.rowSpan ?? (Number(cell.getAttribute('aria-rowspan')) || 1),
    }, withPseudo(cell, copyAll(childrenOf(cell), main, depth, styleOf(cell)))])]);
    return ['block', 0, [...(caption.length ? [['block', 0, caption]] : []), ['table', 0, made]]];
  };

  const withPseudo = (node, made) => {
    if (!mayGenerate(node)) return made;
    const before = pseudo(node, '::before'), after = pseudo(node, '::after');
    if (before) made.unshift(before);
    if (after) made.push(after);
    return made;
  };
  const copyAll = (nodes, main, depth, style) => {
    const made = [];
    for (const node of nodes) {
      if (node.nodeType === TEXT) {
        if (style?.visibility !== 'hidden') pushAll(made, style ? inlined(node.data, style) : [node.data]);
      } else if (node.nodeType === ELEMENT) {
        const one = copy(node, main, depth + 1);
        // What has no meaning of its own is not nested, so that no page is too deep.
        if (one && one[0] === 'inline') pushAll(made, one[2]);
        else if (one) made.push(one);
      }
    }
    return made;
  };

  const copy = (node, main, depth) => {
    const tag = node.tagName.toUpperCase();
    if (skipped.has(tag)) return null;
    if (tag === 'DIALOG' && !node.open) return null;
    const style = styleOf(node);
    if (style.display === 'none') return null;
    if (main && depth > 0 && (around(node) || isPermalink(node))) return null;
    if (depth > DEEPEST) return ['block', 0, [node.textContent]];
    if (tag === 'BR') return ['br', 0, []];
    if (tag === 'HR') return ['hr', 0, []];
    if (tag === 'WBR') return null;
    if (tag === 'MATH' || node.classList?.contains('katex')) {
      const text = mathOf(node);
      const block = node.getAttribute('display') === 'block' || node.closest('.katex-display') !== null;
      return text ? ['math', { block }, [text]] : null;
    }
    if (tag === 'SVG') return drawingOf(node, main, depth);
    if (style.visibility === 'hidden' || style.visibility === 'collapse') {
      const made = copyAll(childrenOf(node).filter(one => one.nodeType === ELEMENT), main, depth);
      return made.length ? ['block', 0, made] : null;
    }
    if (tag === 'IMG') return imageOf(node);
    if (tag === 'INPUT' || tag === 'TEXTAREA' || tag === 'SELECT') return fieldOf(node);
    if (tag === 'PROGRESS' || tag === 'METER') {
      if (tag === 'PROGRESS' && !node.hasAttribute('value')) return null;
      return ['gap', 0, [tag === 'METER' && node.max === 1 || tag === 'PROGRESS'
        ? `${Math.round(node.value / node.max * 100)} %` : String(node.value)]];
    }
    if (tag === 'IFRAME' || tag === 'FRAME') {
      const number = node.runtimedNumber, box = node.getBoundingClientRect();
      return number < options.frames && (tag === 'FRAME' || (box.width > 1 && box.height > 1)) ? ['frame', { number }, []] : null;
    }
    const multiline = /^pre/.test(style.whiteSpace) && style.whiteSpace !== 'pre-line' && tag === 'CODE'
      && node.textContent.trim().includes('\n');
    if (tag === 'PRE' || tag === 'LISTING' || multiline)
      return ['pre', { language: languageOf(node), text: codeOf(node) }, []];
    if (['CODE', 'KBD', 'SAMP', 'TT'].includes(tag)) {
      const text = squeezed(codeOf(node));
      return text ? ['code', { text }, []] : null;
    }
    const kind = role(node);
    if (tag === 'TABLE' && ['', 'table', 'presentation', 'none'].includes(kind)) return tableOf(node, '', main, depth);
    if (['table', 'grid', 'treegrid'].includes(kind)) {
      const whole = node.tagName === 'TABLE' ? tableOf(node, '', main, depth) : tableOf(node, kind, main, depth);
      if (whole[2].length) return whole;
    }
    const made = withPseudo(node, copyAll(childrenOf(node), main, depth, style));
    if (!made.length) return null;
    const level = /^H([1-6])$/.exec(tag)?.[1] ?? (kind === 'heading' ? node.getAttribute('aria-level') ?? '2' : null);
    if (level) return ['heading', { level: Math.min(6, Math.max(1, Number(level) || 2)) }, made];
    switch (tag) {
      case 'UL': case 'OL': case 'MENU': return ['list', 0, made];
      case 'LI': return ['item', { number: place(node) }, made];
      case 'BLOCKQUOTE': return ['quote', 0, made];
      case 'DT': return ['term', 0, made];
      case 'DD': return ['definition', 0, made];
      case 'A':
        // A heading that links to itself is for copying its address.
        if (/^#/.test(node.getAttribute('href') ?? '') && node.closest('h1, h2, h3, h4, h5, h6')) break;
        if (node.href && !/^javascript:/i.test(node.href)) {
          const href = node.href?.baseVal ?? node.href;
          return wrapped(node, style, ['link', { href }, made]);
        }
        break;
      default:
    }
    const marks = inlineKinds[tag];
    const plain = (marks === 'em' && style.fontStyle === 'normal') || (marks === 'strong' && Number(style.fontWeight) < 500);
    if (marks && !plain) return wrapped(node, style, [marks, 0, made]);
    return wrapped(node, style, ['inline', 0, made]);
  };

  // Say where the page sets something apart from its neighbours: in a block of its own, or by a gap.
  const wrapped = (node, style, made) => {
    const display = style.display;
    const floats = style.position === 'absolute' || style.position === 'fixed' || style.float !== 'none';
    if (isBlock(display)) {
      const inRow = !blocky.test(node.tagName) && isRow(node);
      if (inRow && inlineOnly(node)) return ['inline', 0, [...between(node), made]];
      if (floats && !inRow && !/^(DIV|P|SECTION|FIGURE|FIGCAPTION|ASIDE)$/.test(node.tagName) && inlineOnly(node))
        return ['gap', 0, [made]];
      if (made[0] !== 'inline') return ['block', 0, [made]];
      return made[2].length === 1 && ['block', 'heading', 'list', 'table', 'quote', 'pre'].includes(made[2][0][0])
        && typeof made[2][0] !== 'string' ? made[2][0] : ['block', 0, made[2]];
    }
    if (['BUTTON', 'LABEL', 'SUMMARY', 'OPTION', 'LEGEND'].includes(node.tagName)
      || ['button', 'tab', 'option', 'menuitem'].includes(role(node))) return ['gap', 0, [made]];
    const margins = sizeOf(style.marginLeft) + sizeOf(style.marginRight);
    const inside = /^inline-/.test(display) ? sizeOf(style.paddingLeft) + sizeOf(style.paddingRight) : 0;
    if (['SUP', 'SUB', 'MARK', 'ABBR'].includes(node.tagName)) return made;
    if (margins + inside >= 3) return ['gap', 0, [made]];
    const left = padded(node, 'Left', 'Right', 'previousSibling'), right = padded(node, 'Right', 'Left', 'nextSibling');
    return left || right ? ['inline', 0, [...left ? [['gap', 0, []]] : [], made, ...right ? [['gap', 0, []]] : []]] : made;
  };
  // Whether padding or a border is seen as a space between what is inline and its neighbour; one in a word is none.
  const padded = (node, side, other, which) => {
    const edge = (style, name) => sizeOf(style[`padding${name}`]) + sizeOf(style[`border${name}Width`]);
    const own = edge(styleOf(node), side), beside = node[which];
    if (own && beside?.nodeType === ELEMENT) return own + edge(styleOf(beside), other) >= 3;
    if (own < 4 || beside?.nodeType !== TEXT) return false;
    return content.test(side === 'Left' ? beside.data.slice(-1) : beside.data.slice(0, 1));
  };

  const imageOf = node => {
    const alt = squeezed(node.alt);
    if (/^\p{Extended_Pictographic}/u.test(alt) && alt.length < 12) return ['inline', 0, [alt]];
    const src = node.currentSrc || node.src;
    return ['img', { alt, src: /^data:/.test(src) ? '' : src }, []];
  };

  // --- what is read ---

  const said = tree => (typeof tree === 'string' ? squeezed(tree).length
    : tree[0] === 'pre' || tree[0] === 'code' ? tree[1].text.length : tree[0] === 'frame' ? 1
      : tree[2].reduce((sum, one) => sum + said(one), 0));
  const read = (node, main) => ['block', 0, [copy(node, main, 0) ?? '']];
  if (roots) {
    const outer = roots.filter(node => !roots.some(other => other !== node && other.contains(node)));
    const made = outer.filter(node => node.checkVisibility({ visibilityProperty: true }))
      .map(node => copy(node, false, 0)).filter(one => one);
    return ['block', 0, made.map(one => (one[0] === 'item' ? one : ['block', 0, [one]]))];
  }
  const body = document.body ?? document.documentElement;
  if (!body) return ['block', 0, []];
  if (!options.main) return read(body, false);
  const mains = [...document.querySelectorAll('main, [role=main]')]
    .filter(node => node.checkVisibility() && !node.parentElement.closest('main, [role=main]'));
  if (mains.length === 1) {
    core = coreOf(mains[0]);
    const part = read(mains[0], true);
    if (said(part)) {
      const outside = pageHeadings().filter(one => !mains[0].contains(one) && isTitle(one));
      if (!mains[0].querySelector('h1') && outside.length === 1 && document.title.includes(squeezed(outside[0].textContent)))
        part[2].unshift(copy(outside[0], false, 0));
      return part;
    }
  }
  core = coreOf(body);
  const part = read(body, true);
  return said(part) ? part : read(body, false);
}
