// The rows of a report are data in its page: searched, filtered and sorted here.
"use strict";

const source = (() => {
  const data = JSON.parse(byId("data").textContent);
  const order = { refer: 0, rephotograph: 1, rescreen: 2 };
  const severity = (item) => (item.pReferable === null ? -1 : item.pReferable);
  const sorts = {
    urgency: (a, b) => (order[a.action] ?? 3) - (order[b.action] ?? 3) || severity(b) - severity(a),
    severity: (a, b) => severity(b) - severity(a),
    name: (a, b) => (a.patient || a.path).localeCompare(b.patient || b.path, undefined, { numeric: true })
      || (a.date || "").localeCompare(b.date || ""),
    date: (a, b) => (b.date || "").localeCompare(a.date || ""),
    quality: (a, b) => (a.quality ?? 2) - (b.quality ?? 2),
  };
  const lastOf = new Map(); // the last dated visit of each patient
  for (const { patient, date } of data.visits) {
    if (date && date > (lastOf.get(patient) || "")) lastOf.set(patient, date);
  }
  const rowsOf = new Map();
  for (const row of data.rows) {
    row.text = [row.path, row.patient, row.eye, row.date, ...row.reasons].filter(Boolean).join(" ").toLowerCase();
    if (row.patient === null) continue;
    const key = JSON.stringify([row.patient, row.date]);
    if (!rowsOf.has(key)) rowsOf.set(key, []);
    rowsOf.get(key).push(row);
  }
  for (const visit of data.visits) {
    visit.rows = rowsOf.get(JSON.stringify([visit.patient, visit.date])) || [];
    const last = lastOf.get(visit.patient);
    if (visit.date && visit.date < last) visit.seenAgain = last; // of an undated one nobody knows
    visit.timelines = visit.date === (last ?? null) ? data.timelines[visit.patient] || [] : [];
    visit.comparisons = data.comparisons.filter((pair) => pair.patient === visit.patient && pair.date === visit.date);
    visit.text = [visit.patient, visit.date, ...visit.reasons, ...visit.rows.map((row) => row.text)].join(" ").toLowerCase();
  }
  let found = [];

  function inDates(date, { from, to }) {
    if (from && (!date || date < from)) return false;
    return !(to && (!date || date > to));
  }

  function hasVerdict(row, { status, stage, eye, set }) {
    if (status && row.status !== status) return false;
    if (stage && String(row.grade) !== stage) return false;
    if (set && !(row.set || []).includes(Number(set))) return false;
    return !(eye && (row.eye || "unknown") !== eye);
  }

  function matches(row, asked) {
    if (!hasVerdict(row, asked) || (asked.referable && !row.referable) || (asked.second && !row.second)) return false;
    return inDates(row.date, asked);
  }

  function matchesVisit(visit, asked) {
    if (asked.action && visit.action !== asked.action) return false;
    if ((asked.second && !visit.secondReader) || (asked.referable && visit.action !== "refer")) return false;
    const ofRows = asked.status || asked.stage || asked.eye || asked.set;
    return (!ofRows || visit.rows.some((row) => hasVerdict(row, asked))) && inDates(visit.date, asked);
  }

  return {
    view: data.visits.length ? "patients" : "photographs",
    find(asked, count) {
      const patients = asked.view === "patients";
      const words = (asked.search || "").toLowerCase().split(/\s+/).filter(Boolean);
      const everyVisit = asked.earlier || asked.from || asked.to;
      const all = patients ? data.visits.filter((visit) => everyVisit || !visit.seenAgain) : data.rows;
      found = all.filter((item) => words.every((word) => item.text.includes(word))
        && (patients ? matchesVisit(item, asked) : matches(item, asked)));
      if (sorts[asked.sort]) found.sort(sorts[asked.sort]);
      const kind = patients && !everyVisit ? "latest visits" : null;
      return { found: found.length, all: all.length, items: found.slice(0, count), kind };
    },
    take: (asked, start, count) => found.slice(start, start + count),
  };
})();
