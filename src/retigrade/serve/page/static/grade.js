// Photographs in: dropped, chosen, taken or pasted, sent two at a time, each with its progress and its result.
"use strict";

(() => {
  const form = document.getElementById("upload");
  if (!form) return;
  const AT_ONCE = 2;
  const TRIES = 30;
  const progress = document.getElementById("progress");
  const queue = document.getElementById("queue");
  const summary = document.getElementById("summary");
  const overall = document.getElementById("overall");
  const results = document.getElementById("results");
  const chooser = document.getElementById("files");
  const say = page.say;
  const date = form.elements.date;
  const jobs = [];
  const turns = new Map(); // of the requests for a visit: the last one is shown

  const over = (job) => ["done", "failed", "stopped"].includes(job.state);

  // What was dropped or chosen, folders opened.
  async function filesOf(transfer) {
    const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    if (!entries.some((entry) => entry.isDirectory)) return [...transfer.files];
    const files = [];
    async function open(entry) {
      if (entry.isFile) files.push(await new Promise((done, fail) => { entry.file(done, fail); }));
      else {
        const reader = entry.createReader();
        for (;;) { // it gives a hundred entries at a time
          const some = await new Promise((done, fail) => { reader.readEntries(done, fail); });
          if (!some.length) break;
          for (const child of some) await open(child);
        }
      }
    }
    for (const entry of entries) await open(entry);
    return files;
  }

  async function subjectsOf(files) {
    const given = {
      patient: form.elements.patient.value.trim(), eye: form.elements.eye.value, date: date.value,
    };
    const pattern = document.getElementById("pattern").value;
    if (!pattern) return files.map(() => given);
    const names = files.map((file) => file.name);
    const named = JSON.parse(await page.ask("/subjects", {
      method: "POST", body: JSON.stringify({ pattern, names }), headers: { "Content-Type": "application/json" },
    }));
    const misfits = named.filter((subject) => subject === null).length;
    if (misfits) page.announce(say("names_problem", { count: misfits }));
    return named.map((subject) => ({
      patient: subject?.patient ?? given.patient, eye: subject?.eye ?? given.eye, date: subject?.date ?? given.date,
    }));
  }

  async function add(files) {
    if (!files.length) return page.announce(say("no_photographs"));
    let subjects;
    try {
      subjects = await subjectsOf(files);
    } catch (error) {
      files.forEach((file) => fail(entered(file, null), error.message));
      return update();
    }
    files.forEach((file, place) => {
      const job = entered(file, subjects[place]);
      if (file.size > Number(form.dataset.maxBytes)) fail(job, say("too_large", { megabytes: form.dataset.maxMegabytes }));
    });
    document.getElementById("empty").hidden = true;
    update();
    return next();
  }

  // subject: whose eye it is; null where the server could not be asked what the file's name says of it.
  function entered(file, subject) {
    const line = document.createElement("li");
    const name = Object.assign(document.createElement("span"), { className: "name", textContent: file.name, title: file.name });
    const state = Object.assign(document.createElement("span"), { className: "state" });
    const tools = document.createElement("span");
    line.append(name, state, tools);
    queue.append(line);
    const job = { file, subject, line, shown: state, tools, state: "waiting", tries: 0 };
    jobs.push(job);
    show(job, say("waiting"));
    button(job, "×", say("remove", { name: file.name }), () => stop(job));
    return job;
  }

  function show(job, words, share = null) {
    job.shown.replaceChildren(words);
    if (share === null) return;
    const bar = Object.assign(document.createElement("progress"), { max: 1, value: share });
    bar.setAttribute("aria-label", job.file.name);
    job.shown.prepend(bar);
  }

  function button(job, words, label, act) {
    const made = Object.assign(document.createElement("button"), { type: "button", textContent: words, title: label });
    made.setAttribute("aria-label", label);
    made.addEventListener("click", act);
    job.tools.replaceChildren(made);
  }

  function next() {
    while (jobs.filter((job) => job.state === "busy").length < AT_ONCE) {
      const job = jobs.find((candidate) => candidate.state === "waiting");
      if (!job) return;
      send(job);
    }
  }

  function send(job) {
    job.state = "busy";
    const body = new FormData();
    for (const [name, value] of Object.entries(job.subject)) if (value) body.append(name, value);
    body.append("files", job.file, job.file.name);
    const request = job.request = new XMLHttpRequest();
    request.open("POST", "/v1/gradings");
    request.setRequestHeader("X-CSRF-Token", page.csrf);
    request.setRequestHeader("Accept", "application/json");
    request.upload.addEventListener("progress", (event) => {
      const share = event.lengthComputable ? event.loaded / event.total : 0;
      if (share < 1) show(job, say("uploading", { percent: Math.round(100 * share) }), share);
    });
    request.upload.addEventListener("load", () => show(job, say("grading"), 1));
    request.addEventListener("load", () => answered(job, request));
    request.addEventListener("error", () => { fail(job, say("offline")); update(); next(); });
    show(job, say("uploading", { percent: 0 }), 0);
    request.send(body);
  }

  async function answered(job, request) {
    const wait = Number(request.getResponseHeader("Retry-After"));
    if ([429, 503].includes(request.status) && wait && job.tries < TRIES) {
      job.tries += 1;
      show(job, say("retrying", { seconds: wait }));
      setTimeout(() => { if (job.state === "busy") send(job); }, 1000 * wait);
      return;
    }
    if (request.status !== 201) fail(job, page.problem(request.status, request.responseText));
    else await finish(job, JSON.parse(request.responseText).gradings[0]);
    update();
    next();
  }

  async function finish(job, grading) {
    job.state = "done";
    viewers.attach(grading.id, job.file);
    const verdict = document.createElement("span");
    verdict.className = `stage ${grading.grade === null ? "none" : `g${grading.grade}`}`;
    verdict.textContent = grading.grade === null ? say(`status_${grading.status}`) : page.stages[grading.grade];
    show(job, verdict);
    const link = Object.assign(document.createElement("a"), { className: "button", textContent: say("show"), href: `#grading-${grading.id}` });
    link.setAttribute("aria-label", `${say("show")}: ${job.file.name}`);
    job.tools.replaceChildren(link);
    job.verdict = verdict.textContent;
    try {
      await (grading.patient ? showVisit(grading) : showCard(grading));
    } catch (error) {
      complain(job, error.message);
    }
  }

  async function showCard({ id }) {
    place(page.piece(await page.ask(`/gradings/${id}/card`)), document.getElementById(`grading-${id}`));
  }

  async function showVisit({ patient, date }) {
    const key = JSON.stringify([patient, date]);
    const turn = (turns.get(key) || 0) + 1;
    turns.set(key, turn);
    const html = await page.ask(`/visit?${new URLSearchParams({ patient, date: date || "" })}`);
    if (turns.get(key) !== turn) return;
    const made = page.piece(html);
    place(made, document.getElementById(made.id));
  }

  function place(made, old) {
    const first = !results.children.length;
    if (old) old.replaceWith(made);
    else results.append(made);
    viewers.start(made);
    if (first) made.scrollIntoView({ block: "start" });
  }

  function complain(job, why) {
    const reason = Object.assign(document.createElement("p"), { className: "why", textContent: why });
    job.line.querySelector(".why")?.remove();
    job.line.append(reason);
  }

  function fail(job, why) {
    job.state = "failed";
    show(job, say("failed"));
    complain(job, why);
    button(job, say("retry"), say("retry_name", { name: job.file.name }), () => {
      if (job.subject === null) { // never graded as nobody's: its name is asked about again
        jobs.splice(jobs.indexOf(job), 1);
        job.line.remove();
        add([job.file]);
        return;
      }
      job.line.querySelector(".why")?.remove();
      job.state = "waiting";
      job.tries = 0;
      show(job, say("waiting"));
      button(job, "×", say("remove", { name: job.file.name }), () => stop(job));
      update();
      next();
    });
  }

  function stop(job) {
    if (over(job)) return;
    job.state = "stopped";
    job.request?.abort();
    show(job, say("stopped"));
    job.tools.replaceChildren();
    update();
    next();
  }

  function update() {
    const total = jobs.length;
    const done = jobs.filter(over).length;
    const failed = jobs.filter((job) => job.state === "failed").length;
    progress.hidden = !total;
    overall.max = total || 1;
    overall.value = done;
    document.getElementById("stop").hidden = done === total;
    const last = jobs.findLast((job) => job.state === "done");
    summary.textContent = say(failed ? "done_failed" : "done", { done, total, failed })
      + (done === total && last ? `. ${say("finished", { name: last.file.name, verdict: last.verdict })}` : "");
  }

  // The day of the visit is the one on this clock, which may not be the server's.
  const now = new Date();
  const today = [now.getFullYear(), now.getMonth() + 1, now.getDate()].map((part) => String(part).padStart(2, "0")).join("-");
  date.max = today;
  if ("today" in date.dataset) date.value = today;

  // Files are chosen; the same file may be chosen again.
  for (const input of [chooser, document.getElementById("camera")]) {
    input.addEventListener("change", () => { add([...input.files]); input.value = ""; });
    input.addEventListener("keydown", (event) => { // by itself a file input knows the space bar alone
      if (event.key !== "Enter") return;
      event.preventDefault();
      input.click();
    });
  }
  document.getElementById("stop").addEventListener("click", () => jobs.forEach(stop));
  form.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dragging"); });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dragging"); });
  addEventListener("drop", async (event) => {
    event.preventDefault();
    document.body.classList.remove("dragging");
    add(await filesOf(event.dataTransfer));
  });
  addEventListener("paste", (event) => { if (event.clipboardData.files.length) add([...event.clipboardData.files]); });
  addEventListener("beforeunload", (event) => { if (jobs.some((job) => !over(job))) event.preventDefault(); });
  results.addEventListener("click", (event) => {
    const link = event.target.closest(".add-eye");
    if (!link) return;
    event.preventDefault();
    const known = new URL(link.href).searchParams;
    form.elements.patient.value = known.get("patient") || "";
    date.value = known.get("date") || "";
    form.querySelector(`[name=eye][value="${known.get("eye") || ""}"]`).checked = true;
    chooser.click();
  });
})();
