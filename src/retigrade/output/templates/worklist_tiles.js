// How a photograph and a visit are drawn, in reports and on the served page alike: text is set, never markup.
"use strict";

const STAGES = ["none", "mild", "moderate", "severe", "proliferative"];
const ACTIONS = { refer: "refer", rephotograph: "photograph again", rescreen: "rescreen" };

const byId = (id) => document.getElementById(id);

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

// What is in the page itself need not wait until it is seen: it would be missing in print.
const loading = (address) => (address.startsWith("data:") ? null : "lazy");
const linked = (words, address) => (address ? element("a", { href: address }, words) : words);
const stage = (grade) => (grade === null ? null : element("span", { class: `stage g${grade}` }, STAGES[grade]));

function picture(row) {
  if (!row.thumbnail) return null;
  const words = row.heat ? "photograph and thermal map" : "photograph";
  const image = element("img", {
    src: row.thumbnail, alt: `${words} of ${row.name}`, loading: loading(row.thumbnail), decoding: "async",
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

function reading(row) {
  if (!row.reading) return null;
  return element("div", { class: "reason" }, `read by ${row.reading.reader}: `,
    row.reading.grade === null ? element("span", { class: "stage none" }, "no grade") : stage(row.reading.grade));
}

function tile(row) {
  const whose = [row.patient, row.eye ? `${row.eye} eye` : null, row.date].filter(Boolean).join(", ");
  const refers = row.referable === null ? null
    : element("div", {}, row.referable ? "referable " : "not referable ",
      element("span", { class: "small number" }, row.pReferable.toFixed(3)));
  return element("article", { class: `tile-row ${row.referable ? "referable" : ""}` },
    element("div", { class: "eye" }, picture(row)),
    element("div", { class: "verdict" },
      element("h3", { title: row.path }, linked(row.name, row.address)),
      whose ? element("div", { class: "small" }, whose) : null,
      element("div", {}, row.grade === null ? element("span", { class: "stage none" }, row.status.replace("_", " ")) : stage(row.grade)),
      possible(row), refers, reading(row),
      row.quality === null ? null : element("div", { class: "small" }, `quality ${row.quality.toFixed(2)}`),
      ...row.reasons.map((reason) => element("div", { class: "reason" }, reason))),
    row.p.length ? bars(row) : null);
}

function eyeCell(name, eye) {
  return element("div", { class: "eye-cell" }, element("span", { class: "small" }, name),
    eye.grade === null ? element("span", { class: "stage none" }, eye.status) : stage(eye.grade));
}

function aligned(pair) {
  const image = pair.picture
    ? element("img", { src: pair.picture, alt: pair.words, loading: loading(pair.picture), decoding: "async" }) : null;
  return element("figure", { class: "aligned" },
    image && pair.file ? element("a", { href: pair.file, title: "the photographs at full size" }, image) : image,
    element("figcaption", {}, pair.words));
}

function patient(visit, open) {
  const when = visit.date || "no date";
  return element("article", { class: `patient ${visit.action}` },
    element("header", {},
      element("h3", {}, linked(visit.patient, visit.address)),
      element("span", { class: "small" }, visit.seenAgain ? `${when}, seen again ${visit.seenAgain}` : when),
      element("span", { class: `action ${visit.action}` }, ACTIONS[visit.action]),
      visit.secondReader ? element("span", { class: "action second" }, "second reader") : null),
    element("div", { class: "eyes" }, eyeCell("right eye", visit.right), eyeCell("left eye", visit.left),
      visit.pReferable === null ? null
        : element("div", { class: "eye-cell" }, element("span", { class: "small" }, "referable"),
          element("span", { class: "number" }, visit.pReferable.toFixed(3)))),
    ...visit.reasons.map((reason) => element("div", { class: "reason" }, reason)),
    visit.timelines.length ? element("div", { class: "courses" }, ...visit.timelines.map((line) => {
      const holder = element("figure", { class: "course" });
      if (line.svg) holder.innerHTML = line.svg; // made by the program of numbers and dates alone
      holder.append(element("figcaption", {}, `${line.eye} eye: ${line.words}`));
      return holder;
    })) : null,
    visit.comparisons?.length ? element("div", { class: "pairs" }, ...visit.comparisons.map(aligned)) : null,
    element("details", { open },
      element("summary", {}, `${visit.rows.length} photograph${visit.rows.length === 1 ? "" : "s"}`),
      ...visit.rows.map(tile)),
    byId("made") ? element("p", { class: "printed" }, byId("made").textContent) : null);
}
