// The worklist: rows come as data, are filtered and sorted here, and drawn a screenful at a time.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const STAGES = ["none", "mild", "moderate", "severe", "proliferative"];
const ACTIONS = { refer: "refer", rephotograph: "photograph again", rescreen: "rescreen" };
const ORDER = { refer: 0, rephotograph: 1, rescreen: 2 };
const SCREENFUL = 24;

const byId = (id) => document.getElementById(id);
const list = byId("list");
const state = { view: data.visits.length ? "patients" : "photographs", found: [], drawn: 0 };

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

for (const row of data.rows) {
  row.text = [row.path, row.patient, row.eye, row.date, ...row.reasons].filter(Boolean).join(" ").toLowerCase();
}
const rowsOf = new Map();
for (const row of data.rows) {
  if (row.patient === null) continue;
  const key = JSON.stringify([row.patient, row.date]);
  if (!rowsOf.has(key)) rowsOf.set(key, []);
  rowsOf.get(key).push(row);
}
for (const visit of data.visits) {
  visit.rows = rowsOf.get(JSON.stringify([visit.patient, visit.date])) || [];
  visit.text = [visit.patient, visit.date, ...visit.reasons, ...visit.rows.map((row) => row.text)].join(" ").toLowerCase();
}

const stage = (grade) => (grade === null ? null : element("span", { class: `stage g${grade}` }, STAGES[grade]));

function picture(row) {
  if (!row.thumbnail) return null;
  const words = row.heat ? "photograph and thermal map" : "photograph";
  const image = element("img", {
    src: row.thumbnail, alt: `${words} of ${row.path}`, loading: "lazy", decoding: "async",
  });
  return row.heat ? element("a", { href: row.heat, title: "the thermal map at full size" }, image) : image;
}

function bars(row) {
  return element("div", { class: "bars" }, ...row.p.map((p, grade) => {
    const filled = element("b", { class: `g${grade}` });
    filled.style.width = `${(100 * p).toFixed(1)}%`;
    return element("div", { class: "bar" }, element("span", {}, STAGES[grade]), element("i", {}, filled),
      element("span", { class: "number" }, p.toFixed(3)));
  }));
}

function possible(row) {
  if (!row.set || row.set.length < 2) return null;
  return element("div", { class: "small" }, `possible: ${STAGES[row.set[0]]} to ${STAGES[row.set[row.set.length - 1]]}`);
}

function tile(row) {
  const whose = [row.patient, row.eye ? `${row.eye} eye` : null, row.date].filter(Boolean).join(", ");
  const refers = row.referable === null ? null
    : element("div", {}, row.referable ? "referable " : "not referable ",
      element("span", { class: "small number" }, row.pReferable.toFixed(3)));
  return element("article", { class: `tile-row ${row.referable ? "referable" : ""}` },
    element("div", { class: "eye" }, picture(row)),
    element("div", { class: "verdict" },
      element("h3", {}, row.path),
      whose ? element("div", { class: "small" }, whose) : null,
      element("div", {}, row.grade === null ? element("span", { class: "stage none" }, row.status.replace("_", " ")) : stage(row.grade)),
      possible(row), refers,
      row.quality === null ? null : element("div", { class: "small" }, `quality ${row.quality.toFixed(2)}`),
      ...row.reasons.map((reason) => element("div", { class: "reason" }, reason))),
    row.p.length ? bars(row) : null);
}

function eyeCell(name, eye) {
  return element("div", { class: "eye-cell" }, element("span", { class: "small" }, name),
    eye.grade === null ? element("span", { class: "stage none" }, eye.status) : stage(eye.grade));
}

function patient(visit) {
  const lines = data.timelines[visit.patient] || [];
  return element("article", { class: `patient ${visit.action}` },
    element("header", {},
      element("h3", {}, visit.patient),
      element("span", { class: "small" }, visit.date || "no date"),
      element("span", { class: `action ${visit.action}` }, ACTIONS[visit.action]),
      visit.secondReader ? element("span", { class: "action second" }, "second reader") : null),
    element("div", { class: "eyes" }, eyeCell("right eye", visit.right), eyeCell("left eye", visit.left),
      visit.pReferable === null ? null
        : element("div", { class: "eye-cell" }, element("span", { class: "small" }, "referable"),
          element("span", { class: "number" }, visit.pReferable.toFixed(3)))),
    ...visit.reasons.map((reason) => element("div", { class: "reason" }, reason)),
    ...lines.map((line) => {
      const holder = element("figure", { class: "course" });
      if (line.svg) holder.innerHTML = line.svg; // made by the program of numbers and dates alone
      holder.append(element("figcaption", {}, `${line.eye} eye: ${line.words}`));
      return holder;
    }),
    element("details", { open: state.found.length <= 12 },
      element("summary", {}, `${visit.rows.length} photograph${visit.rows.length === 1 ? "" : "s"}`),
      ...visit.rows.map(tile)));
}

function matches(row) {
  const value = (id) => byId(id).value;
  const status = value("status"), chosen = value("stage"), eye = value("eye"), set = value("set");
  if (status && row.status !== status) return false;
  if (chosen && String(row.grade) !== chosen) return false;
  if (set && !(row.set || []).includes(Number(set))) return false;
  if (eye && (row.eye || "unknown") !== eye) return false;
  if (byId("referable").checked && !row.referable) return false;
  if (byId("second").checked && !row.second) return false;
  return inDates(row.date);
}

function inDates(date) {
  const from = byId("from").value, to = byId("to").value;
  if (from && (!date || date < from)) return false;
  return !(to && (!date || date > to));
}

function matchesVisit(visit) {
  const action = byId("action").value;
  if (action && visit.action !== action) return false;
  if (byId("second").checked && !visit.secondReader) return false;
  if (byId("referable").checked && visit.action !== "refer") return false;
  const ofRows = ["status", "stage", "eye", "set"].some((id) => byId(id).value);
  const rows = ofRows ? visit.rows.some((row) => {
    const status = byId("status").value, chosen = byId("stage").value, eye = byId("eye").value, set = byId("set").value;
    return (!status || row.status === status) && (!chosen || String(row.grade) === chosen)
      && (!eye || (row.eye || "unknown") === eye) && (!set || (row.set || []).includes(Number(set)));
  }) : true;
  return rows && inDates(visit.date);
}

const severity = (item) => (item.pReferable === null ? -1 : item.pReferable);
const SORTS = {
  urgency: (a, b) => (ORDER[a.action] ?? 3) - (ORDER[b.action] ?? 3) || severity(b) - severity(a),
  severity: (a, b) => severity(b) - severity(a),
  name: (a, b) => (a.patient || a.path).localeCompare(b.patient || b.path, undefined, { numeric: true })
    || (a.date || "").localeCompare(b.date || ""),
  date: (a, b) => (b.date || "").localeCompare(a.date || ""),
  quality: (a, b) => (a.quality ?? 2) - (b.quality ?? 2),
};

function update() {
  const patients = state.view === "patients";
  const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const all = patients ? data.visits : data.rows;
  state.found = all.filter((item) => words.every((word) => item.text.includes(word)) && (patients ? matchesVisit(item) : matches(item)));
  const order = SORTS[byId("sort").value];
  if (order) state.found.sort(order);
  byId("count").textContent = `${state.found.length} of ${all.length} ${patients ? "visits" : "photographs"}`;
  for (const name of ["patients", "photographs"]) {
    byId(`tab-${name}`)?.setAttribute("aria-selected", String(state.view === name));
  }
  byId("action-filter").hidden = !patients;
  list.replaceChildren();
  state.drawn = 0;
  draw(SCREENFUL);
}

function draw(count) {
  const make = state.view === "patients" ? patient : tile;
  const next = state.found.slice(state.drawn, state.drawn + count);
  list.append(...next.map(make));
  state.drawn += next.length;
  byId("more").hidden = state.drawn >= state.found.length;
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
addEventListener("beforeprint", () => draw(state.found.length));
update();
