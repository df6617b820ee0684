const address = decodeURIComponent(location.search.slice(1));
addEventListener('install', event => event.waitUntil(fetch(address, { mode: 'no-cors' }).catch(() => {})));
