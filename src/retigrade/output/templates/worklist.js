// The worklist: asks `source` for what the controls say, and draws it a screenful at a time.
"use strict";

const SCREENFUL = 24;
const OPEN_UP_TO = 12; // visits; of more, the photographs are folded away
const list = byId("list");
const state = { view: source.view, asked: {}, found: 0, drawn: 0, turn: 0, waiting: null };

// A source answers at once or later; `use` is not called with what was asked for before something else was.
function whenThere(answer, use) {
  const turn = state.turn;
  if (!(answer instanceof Promise)) return use(answer);
  return answer.then((value) => (turn === state.turn ? use(value) : undefined), (error) => {
    if (turn === state.turn) byId("count").textContent = error.message;
  });
}

function update() {
  state.turn += 1;
  state.asked = { ...Object.fromEntries(new FormData(byId("filters"))), view: state.view };
  for (const name of ["patients", "photographs"]) {
    byId(`tab-${name}`)?.setAttribute("aria-selected", String(state.view === name));
  }
  for (const control of document.querySelectorAll("#action-filter, #earlier-filter")) {
    control.hidden = state.view !== "patients";
  }
  return whenThere(source.find(state.asked, SCREENFUL), ({ found, all, items, kind }) => {
    byId("count").textContent = `${found} of ${all} ${kind || (state.view === "patients" ? "visits" : "photographs")}`;
    state.found = found;
    state.drawn = 0;
    list.replaceChildren();
    place(items);
  });
}

function place(items) {
  const make = state.view === "patients" ? (visit) => patient(visit, state.found <= OPEN_UP_TO) : tile;
  list.append(...items.map(make));
  state.drawn += items.length;
  byId("more").hidden = state.drawn >= state.found || !items.length;
}

// Draws more rows; where they come later, returns the promise of them, also for those that were asked for before.
function draw(count) {
  if (state.waiting) return state.waiting;
  if (state.drawn >= state.found) return undefined;
  const answer = source.take(state.asked, state.drawn, count);
  if (!(answer instanceof Promise)) return place(answer);
  state.waiting = whenThere(answer, place).finally(() => { state.waiting = null; });
  return state.waiting;
}

byId("filters").addEventListener("submit", (event) => event.preventDefault());
for (const control of document.querySelectorAll("#filters input, #filters select")) {
  control.addEventListener(control.type === "search" ? "input" : "change", update);
}
for (const tab of document.querySelectorAll("[role=tab]")) {
  tab.addEventListener("click", () => { state.view = tab.dataset.view; update(); });
}
byId("clear").addEventListener("click", () => { byId("filters").reset(); update(); });
byId("more").addEventListener("click", () => draw(SCREENFUL));
new IntersectionObserver((entries) => { if (entries[0].isIntersecting) draw(SCREENFUL); }, { rootMargin: "600px" }).observe(byId("more"));
let folded = [];
addEventListener("beforeprint", () => {
  draw(state.found);
  for (const image of list.querySelectorAll("img")) image.loading = "eager";
  folded = [...list.querySelectorAll("details:not([open])")];
  for (const details of folded) details.open = true;
});
addEventListener("afterprint", () => { for (const details of folded) details.open = false; });
update();
