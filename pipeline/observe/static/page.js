"use strict";
// Keeps the page, which the server has made, up to date: the server sends the sections that changed.
(() => {
  const RETRY_MS = 3000; // after a refusal; a lost connection is the browser's own business
  const banner = document.getElementById("connection");
  let last = Date.now();

  // What stays the same is left alone: selected text, the focus and opened details survive an update.
  function morph(from, to) {
    if (from.nodeType !== to.nodeType || from.nodeName !== to.nodeName) {
      from.replaceWith(to);
      return;
    }
    if (from.nodeType !== Node.ELEMENT_NODE) {
      if (from.nodeValue !== to.nodeValue) from.nodeValue = to.nodeValue;
      return;
    }
    for (const { name } of [...from.attributes]) {
      if (!to.hasAttribute(name) && name !== "open") from.removeAttribute(name);
    }
    for (const { name, value } of to.attributes) {
      if (from.getAttribute(name) !== value) from.setAttribute(name, value);
    }
    const before = [...from.childNodes], after = [...to.childNodes];
    after.forEach((node, i) => (i < before.length ? morph(before[i], node) : from.append(node)));
    before.slice(after.length).forEach((node) => node.remove());
  }

  function show({ title, sections }) {
    if (document.title !== title) document.title = title;
    for (const [id, html] of Object.entries(sections)) {
      const section = document.getElementById(id);
      const fresh = section.cloneNode(false);
      fresh.innerHTML = html;
      morph(section, fresh);
    }
  }

  function tell(text) {
    banner.hidden = !text;
    document.body.classList.toggle("lost", Boolean(text));
    if (banner.textContent !== text) banner.textContent = text;
  }

  function watch() {
    const events = new EventSource("events");
    events.onmessage = (event) => {
      last = Date.now();
      tell("");
      show(JSON.parse(event.data));
    };
    events.onerror = () => {
      const when = new Date(last).toISOString().slice(11, 19);
      tell(`Not connected: what you see is from ${when} UTC`);
      if (events.readyState === EventSource.CLOSED) setTimeout(watch, RETRY_MS);
    };
  }

  watch();
})();
