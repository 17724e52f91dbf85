// The photograph under its map: slider, zoom and pan, and the reading of a grading.
"use strict";

const viewers = (() => {
  const photos = new Map(); // address of the browser's own copy, by grading
  const MOST = 12;
  const STEP = 1.4;
  const READER = "retigrade.reader";

  function start(root) {
    for (const figure of root.querySelectorAll(".viewer")) view(figure);
    for (const form of root.querySelectorAll(".read form")) reads(form);
  }

  function view(figure) {
    const box = figure.querySelector(".stage-box");
    const moved = figure.querySelector(".moved");
    const photo = figure.querySelector(".photo");
    const heat = figure.querySelector(".heat");
    const slider = figure.querySelector(".opacity");
    const level = figure.querySelector(".level");
    const at = { scale: 1, x: 0, y: 0 };

    function apply() {
      const reach = [(at.scale - 1) * box.clientWidth / 2, (at.scale - 1) * box.clientHeight / 2];
      at.x = Math.max(-reach[0], Math.min(reach[0], at.x));
      at.y = Math.max(-reach[1], Math.min(reach[1], at.y));
      moved.style.transform = `translate(${at.x}px, ${at.y}px) scale(${at.scale})`;
      box.classList.toggle("zoomed", at.scale > 1);
      level.textContent = `${Math.round(at.scale * 100)}%`;
    }

    // Zoom so that the point (x, y), from the middle of the box, stays where it is.
    function zoom(factor, x = 0, y = 0) {
      const scale = Math.max(1, Math.min(MOST, at.scale * factor));
      const ratio = scale / at.scale;
      at.x = x - (x - at.x) * ratio;
      at.y = y - (y - at.y) * ratio;
      at.scale = scale;
      apply();
    }

    function whole() {
      Object.assign(at, { scale: 1, x: 0, y: 0 });
      apply();
    }

    function fromMiddle(event) {
      const frame = box.getBoundingClientRect();
      return [event.clientX - frame.left - frame.width / 2, event.clientY - frame.top - frame.height / 2];
    }

    function setAspect(image) {
      if (image.naturalWidth) box.style.aspectRatio = `${image.naturalWidth} / ${image.naturalHeight}`;
    }

    const keys = {
      "+": () => zoom(STEP), "=": () => zoom(STEP), "-": () => zoom(1 / STEP), "_": () => zoom(1 / STEP), "0": whole,
      ArrowLeft: () => { at.x += 40; apply(); }, ArrowRight: () => { at.x -= 40; apply(); },
      ArrowUp: () => { at.y += 40; apply(); }, ArrowDown: () => { at.y -= 40; apply(); },
    };
    box.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key.toLowerCase() === "h") figure.classList.add("peek");
      else if (!(event.key in keys) || (event.key.startsWith("Arrow") && at.scale === 1)) return;
      else keys[event.key]();
      event.preventDefault();
    });
    box.addEventListener("keyup", () => figure.classList.remove("peek"));
    box.addEventListener("blur", () => figure.classList.remove("peek"));
    box.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && document.activeElement !== box) return; // else the page scrolls
      event.preventDefault();
      zoom(Math.exp(-event.deltaY / 300), ...fromMiddle(event));
    }, { passive: false });
    box.addEventListener("dblclick", (event) => (at.scale > 1 ? whole() : zoom(2.5, ...fromMiddle(event))));

    const fingers = new Map();
    box.addEventListener("pointerdown", (event) => {
      if (event.pointerType === "mouse" && event.button !== 0) return;
      fingers.set(event.pointerId, [event.clientX, event.clientY]);
      if (at.scale > 1 || fingers.size > 1) box.setPointerCapture(event.pointerId);
    });
    box.addEventListener("pointermove", (event) => {
      const before = fingers.get(event.pointerId);
      if (!before) return;
      const now = [event.clientX, event.clientY];
      if (fingers.size === 1 && at.scale > 1) {
        at.x += now[0] - before[0];
        at.y += now[1] - before[1];
        apply();
      } else if (fingers.size === 2) {
        const [other] = [...fingers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
        const apart = (place) => Math.hypot(place[0] - other[0], place[1] - other[1]);
        const middle = { clientX: (now[0] + other[0]) / 2, clientY: (now[1] + other[1]) / 2 };
        zoom(apart(now) / Math.max(apart(before), 1), ...fromMiddle(middle));
      }
      fingers.set(event.pointerId, now);
    });
    for (const end of ["pointerup", "pointercancel", "pointerleave"]) {
      box.addEventListener(end, (event) => fingers.delete(event.pointerId));
    }

    figure.querySelector(".larger").addEventListener("click", () => zoom(STEP));
    figure.querySelector(".smaller").addEventListener("click", () => zoom(1 / STEP));
    figure.querySelector(".whole").addEventListener("click", whole);
    slider?.addEventListener("input", () => figure.style.setProperty("--heat", slider.value / 100));
    figure.querySelector(".choose")?.addEventListener("change", (event) => match(event.target, figure));
    if (heat) shows(heat, figure.querySelector(".slide > span"), slider, () => setAspect(heat));
    photo.addEventListener("load", () => {
      setAspect(photo);
      photo.hidden = false;
      figure.classList.remove("alone");
      figure.querySelector(".absent")?.remove();
      figure.querySelector(".pick")?.remove();
    });
    photo.addEventListener("error", () => {
      photo.hidden = true;
      const absent = figure.querySelector(".absent");
      if (absent) absent.textContent = page.say(heat ? "no_preview" : "no_preview_at_all");
    });
    if (!photo.getAttribute("src")) {
      figure.classList.add("alone");
      const known = photos.get(figure.dataset.grading);
      if (known) photo.src = known;
    }
  }

  // A map that is not there must not look like a cool one.
  function shows(heat, label, slider, then) {
    const words = label.textContent;
    function arrived() {
      const isThere = heat.naturalWidth > 0;
      label.textContent = isThere ? words : page.say("no_map");
      slider.disabled = !isThere;
      if (isThere) then();
    }
    if (heat.complete) return arrived();
    label.textContent = page.say("loading");
    heat.addEventListener("load", arrived);
    heat.addEventListener("error", arrived);
    return undefined;
  }

  function attach(grading, file) {
    if (!photos.has(grading)) photos.set(grading, URL.createObjectURL(file));
  }

  // Shows chosen files under the maps that were made of them: the digest says which belongs to which.
  async function match(input, figure) {
    const absent = figure.querySelector(".absent");
    if (!window.crypto?.subtle) {
      absent.textContent = page.say("no_digest");
      return;
    }
    let count = 0;
    for (const file of input.files) {
      const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await file.arrayBuffer()));
      const text = [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
      for (const other of document.querySelectorAll(`.viewer[data-sha256="${text}"]`)) {
        attach(other.dataset.grading, file);
        other.querySelector(".photo").src = photos.get(other.dataset.grading);
        count += 1;
      }
    }
    if (count) page.announce(page.say("matched", { count }));
    else absent.textContent = page.say("other_photograph");
    input.value = "";
  }

  function reads(form) {
    const button = form.querySelector("button.primary");
    const reason = form.elements.reason;
    const problem = form.querySelector(".problem");
    if (!form.elements.reader.value) form.elements.reader.value = localStorage.getItem(READER) || "";

    function update() {
      const grade = form.elements.grade.value;
      const same = grade === form.dataset.machine || (grade === "ungradable" && form.dataset.machine === "");
      reason.required = grade !== "" && !same;
      if (grade === "") return;
      const stage = form.querySelector("[name=grade]:checked + .stage").textContent;
      button.textContent = (same ? button.dataset.confirm : button.dataset.change).replace("{stage}", stage);
    }
    form.addEventListener("change", update);
    update();
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      button.disabled = true;
      problem.hidden = true;
      localStorage.setItem(READER, form.elements.reader.value);
      const article = form.closest("article");
      try {
        await page.ask(form.action, { method: "POST", body: new URLSearchParams(new FormData(form)) });
        const made = await refresh(article);
        made.focus();
        page.announce(page.say("saved"));
      } catch (error) {
        problem.textContent = error.message;
        problem.hidden = false;
        button.disabled = false;
      }
    });
  }

  async function refresh(article) {
    const address = `/gradings/${article.dataset.grading}/card?level=${article.dataset.level}`;
    const made = page.piece(await page.ask(address));
    article.replaceWith(made);
    start(made);
    return made;
  }

  start(document);
  return { attach, start };
})();
