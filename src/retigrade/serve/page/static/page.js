// What every page uses: the words, what is said to a screen reader, and times as the reader's clock has them.
"use strict";

const page = (() => {
  const words = JSON.parse(document.getElementById("words").textContent);
  const csrf = document.querySelector("meta[name=csrf]").content;

  function say(key, values = {}) {
    return words[key].replace(/\{(\w+)\}/g, (whole, name) => (name in values ? values[name] : whole));
  }

  function announce(text) {
    document.getElementById("said").textContent = text;
  }

  // Returns the answer's text; throws an Error whose message is for people.
  async function ask(address, options = {}) {
    let answer;
    try {
      answer = await fetch(address, { ...options, headers: { ...options.headers, "X-CSRF-Token": csrf } });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Error(say("offline"));
    }
    const text = await answer.text();
    if (!answer.ok) throw new Error(problem(answer.status, text));
    return text;
  }

  function problem(status, text) {
    if (status === 401) return say("signed_out");
    try {
      return JSON.parse(text).detail || say("unexpected", { status });
    } catch {
      return say("unexpected", { status });
    }
  }

  function piece(html) { // made by the server's templates, which escape whatever came from outside
    const holder = document.createElement("template");
    holder.innerHTML = html;
    localTimes(holder.content);
    return holder.content.firstElementChild;
  }

  function localTimes(root) {
    for (const time of root.querySelectorAll("time[datetime*=T]")) {
      const moment = new Date(time.dateTime);
      time.title = time.textContent;
      time.textContent = moment.toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
    }
  }

  localTimes(document);
  for (const button of document.querySelectorAll("button.print")) button.addEventListener("click", () => window.print());
  return { announce, ask, csrf, piece, problem, say, stages: words.stages };
})();
