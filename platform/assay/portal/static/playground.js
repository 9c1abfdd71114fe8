/* Calls the same /v1 as every application does. The token for it is kept in this closure, is good for
   one deployment and ten minutes, and is worth nothing without the session's cookie. */
"use strict";

(() => {
  const form = document.getElementById("playground");
  if (!form) return;
  const talk = document.getElementById("talk");
  const facts = document.getElementById("facts");
  const stop = document.getElementById("stop");
  const history = [];
  let running = null;
  let held = null;

  /* A token for the deployment and department that are chosen; the one held, while it lasts. */
  const token = async (signal) => {
    const wanted = `${form.deployment.value} ${form.department.value}`;
    if (held && held.wanted === wanted && held.until > performance.now()) return held.token;
    const fields = new URLSearchParams();
    for (const name of ["csrfmiddlewaretoken", "deployment", "department"]) fields.set(name, form.elements[name].value);
    const response = await fetch(form.action, { method: "POST", body: fields, signal, redirect: "manual" });
    if (response.type === "opaqueredirect") throw new Error("You are signed out. Sign in again.");
    const answer = await response.json().catch(() => ({}));
    if (!response.ok) throw new Error(answer.error ?? `The portal answered ${response.status}. Reload the page.`);
    held = { token: answer.token, wanted, until: performance.now() + (answer.expires_in - 30) * 1000 };
    return held.token;
  };

  const request = async (option, body, signal) => {
    const headers = { "Content-Type": "application/json", "Assay-Data-Classification": form.classification.value };
    for (let attempt = 0; ; attempt += 1) {
      headers.Authorization = `Bearer ${await token(signal)}`;
      const response = await fetch(option.dataset.endpoint, {
        method: "POST",
        signal,
        credentials: "same-origin",
        headers,
        body: JSON.stringify(body),
      });
      if (response.ok) return response;
      /* The token may have ended with an address or a renewed session: once more, with another. */
      held = null;
      if (response.status !== 401 || attempt) {
        const problem = await response.json().catch(() => ({}));
        throw new Error(problem.error?.message ?? `The gateway answered ${response.status}.`);
      }
    }
  };

  const turn = (role, text) => {
    const element = document.createElement("div");
    element.className = `turn turn-${role}`;
    element.textContent = text;
    talk.querySelector(".empty")?.remove();
    talk.append(element);
    element.scrollIntoView({ block: "nearest" });
    return element;
  };

  const headersOf = (response) => {
    const shown = {};
    for (const [name, value] of response.headers) {
      if (name.startsWith("x-assay-") || name === "x-request-id" || name.startsWith("x-ratelimit-")) shown[name] = value;
    }
    return shown;
  };

  const showFacts = (entries) => {
    facts.replaceChildren();
    for (const [name, value] of Object.entries(entries)) {
      const term = document.createElement("dt");
      const detail = document.createElement("dd");
      term.textContent = name;
      detail.textContent = value;
      detail.className = "mono";
      facts.append(term, detail);
    }
  };

  const bodyFor = (task, deployment, text) => {
    if (task === "text-generation") {
      history.push({ role: "user", content: text });
      return { model: deployment, messages: history, stream: true, stream_options: { include_usage: true }, max_tokens: Number(form.max_tokens.value), temperature: Number(form.temperature.value) };
    }
    return { model: deployment, input: text };
  };

  const readStream = async (response, element) => {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let waiting = "";
    let usage = null;
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return usage;
      waiting += value;
      const lines = waiting.split("\n");
      waiting = lines.pop();
      for (const line of lines) {
        if (!line.startsWith("data: ") || line === "data: [DONE]") continue;
        const chunk = JSON.parse(line.slice(6));
        if (chunk.error) throw new Error(chunk.error.message);
        element.textContent += chunk.choices?.[0]?.delta?.content ?? "";
        usage = chunk.usage ?? usage;
      }
    }
  };

  const describe = (task, answer) => {
    if (task === "embeddings") {
      const vector = answer.data[0].embedding;
      return `${vector.length} dimensions\n[${vector.slice(0, 8).map((v) => v.toFixed(4)).join(", ")}, …]`;
    }
    return JSON.stringify(answer.data ?? answer.results ?? answer, null, 2);
  };

  const ask = async () => {
    const option = form.deployment.selectedOptions[0];
    const task = option.dataset.task;
    const text = form.text.value.trim();
    if (!text) return;
    turn("user", text);
    const element = turn("assistant", "");
    element.setAttribute("aria-busy", "true");
    const started = performance.now();
    running = new AbortController();
    stop.hidden = false;
    try {
      const response = await request(option, bodyFor(task, option.value, text), running.signal);
      let usage;
      if (task === "text-generation") {
        usage = await readStream(response, element);
        history.push({ role: "assistant", content: element.textContent });
      } else {
        const answer = await response.json();
        usage = answer.usage;
        element.textContent = describe(task, answer);
      }
      form.text.value = "";
      showFacts({ ...headersOf(response), "prompt tokens": usage?.prompt_tokens ?? "–", "completion tokens": usage?.completion_tokens ?? "–", "time": `${((performance.now() - started) / 1000).toFixed(2)} s` });
    } catch (error) {
      if (task === "text-generation") history.pop();
      if (error.name === "AbortError") element.textContent += " (stopped)";
      else {
        element.classList.add("turn-error");
        element.textContent = error.message;
      }
    } finally {
      element.removeAttribute("aria-busy");
      stop.hidden = true;
      running = null;
    }
  };

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!running) ask();
  });
  stop.addEventListener("click", () => running?.abort());
  /* What the chosen deployment takes: its sample, its fields, the departments that may pay. */
  const settle = () => {
    history.length = 0;
    const { task, sample, departments } = form.deployment.selectedOptions[0].dataset;
    form.text.value = sample || "";
    document.querySelectorAll("[data-for-chat]").forEach((field) => { field.hidden = task !== "text-generation"; });
    const paying = departments.split(" ");
    for (const option of form.department.options) option.disabled = !paying.includes(option.value);
    if (!paying.includes(form.department.value)) form.department.value = paying[0];
  };
  form.deployment.addEventListener("change", settle);
  addEventListener("pagehide", () => { held = null; });
  settle();
})();
