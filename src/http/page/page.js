// Live updates: the page is fetched again and its main part put in place. Without JavaScript everything works but this.
(() => {
  'use strict';
  const every = 5000;
  const main = document.querySelector('main[data-live]');
  if (!main) return;
  const state = document.getElementById('live');
  const busy = () => document.hidden || main.contains(document.activeElement) || String(window.getSelection()) !== '';
  const say = (text) => { if (state) state.textContent = text; };
  const update = async () => {
    if (busy()) return;
    try {
      const answer = await fetch(location.href, { credentials: 'same-origin', redirect: 'error', headers: { accept: 'text/html' } });
      if (!answer.ok) throw new Error(String(answer.status));
      const fresh = new DOMParser().parseFromString(await answer.text(), 'text/html').querySelector('main[data-live]');
      if (fresh && !busy()) main.replaceChildren(...fresh.childNodes);
      say('live');
    } catch {
      say('not live: the service does not answer');
    }
  };
  say('live');
  setInterval(update, every);
})();
