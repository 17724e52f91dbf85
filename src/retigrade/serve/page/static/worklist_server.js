// The rows of the served worklist: the database searches, filters, sorts and pages them.
"use strict";

const source = (() => {
  const MOST = 60; // rows in one answer
  const PRINTED = 1200;
  const form = byId("filters");
  const panel = byId("list");
  let asking = null;

  // What the address asks for goes into the controls, and what they ask for into the address.
  const known = new URLSearchParams(location.search);
  for (const control of form.elements) {
    if (!control.name || !known.has(control.name)) continue;
    if (control.type === "checkbox") control.checked = true;
    else control.value = known.get(control.name);
  }

  function addressOf(asked) {
    return new URLSearchParams(Object.entries(asked).filter(([, value]) => value !== ""));
  }

  async function ask(asked, start, count) {
    const address = addressOf(asked);
    address.set("offset", start);
    address.set("limit", Math.min(count, MOST));
    return JSON.parse(await page.ask(`/worklist/rows?${address}`, { signal: asking?.signal }));
  }

  async function find(asked, count) {
    asking?.abort();
    asking = new AbortController();
    const address = addressOf(asked);
    history.replaceState(null, "", `?${address}`);
    for (const link of document.querySelectorAll("#exports a")) {
      const format = link.dataset.format;
      link.href = `/worklist/export?${address}&format=${format}`;
    }
    panel.setAttribute("aria-labelledby", `tab-${asked.view}`);
    panel.setAttribute("aria-busy", "true");
    const listed = await ask(asked, 0, count);
    panel.removeAttribute("aria-busy");
    byId("none").hidden = listed.found > 0;
    return listed;
  }

  // All rows are asked for first. Where some do not come, the page says why, and no list is printed that lacks them.
  byId("print").addEventListener("click", async () => {
    const lacks = () => !byId("more").hidden && list.children.length < PRINTED;
    for (let before = -1; lacks() && list.children.length > before;) {
      before = list.children.length;
      await draw(MOST);
    }
    if (!lacks()) window.print();
  });
  return {
    view: known.get("view") === "photographs" ? "photographs" : panel.dataset.view,
    find,
    take: async (asked, start, count) => (await ask(asked, start, count)).items,
  };
})();
