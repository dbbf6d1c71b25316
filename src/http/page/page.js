// Live updates: the page is fetched again and its main part put in place. Without JavaScript everything works but this.
(() => {
  'use strict';
  const every = 5000;
  const main = document.querySelector('main[data-live]');
  if (!main) return;
  const state = document.getElementById('live');
  const busy = () => document.hidden || main.contains(document.activeElement) || String(window.getSelection()) !== '';
  const say = (text) => { if (state) state.textContent = text; };
  let seen = new Date();
  const stale = (why) => {
    main.classList.add('stale');
    say(`${why}; as of ${seen.toLocaleTimeString()}`);
  };
  const update = async () => {
    if (busy()) {
      say(`paused; as of ${seen.toLocaleTimeString()}`);
      return;
    }
    try {
      const answer = await fetch(location.href, { credentials: 'same-origin', redirect: 'manual', headers: { accept: 'text/html' } });
      if (answer.type === 'opaqueredirect') {
        stale('the session has ended: log in again');
        return;
      }
      if (!answer.ok) {
        stale(`the service answers ${answer.status}`);
        return;
      }
      const fresh = new DOMParser().parseFromString(await answer.text(), 'text/html').querySelector('main[data-live]');
      if (fresh && !busy()) main.replaceChildren(...fresh.childNodes);
      seen = new Date();
      main.classList.remove('stale');
      say('live');
    } catch {
      stale('the service does not answer');
    }
  };
  say('live');
  setInterval(update, every);
})();
