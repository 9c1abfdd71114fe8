/* Calls /v1 as every application does. This closure keeps the token, which is valid for one deployment
   and ten minutes, and only together with the session's cookie. */
"use strict";

(() => {
  const form = document.getElementById("playground");
  if (!form) return;
  const talk = document.getElementById("talk");
  const facts = document.getElementById("facts");
  const stop = document.getElementById("stop");
  const asks = JSON.parse(document.getElementById("playground-asks").textContent);
  const history = [];
  let running = null;
  let cached = null;

  /* Return a token for the chosen deployment and department; the cached one while it is valid. */
  const token = async (signal) => {
    const choice = `${form.deployment.value} ${form.department.value}`;
    if (cached && cached.choice === choice && cached.until > performance.now()) return cached.token;
    const fields = new URLSearchParams();
    for (const name of ["csrfmiddlewaretoken", "deployment", "department"]) fields.set(name, form.elements[name].value);
    const response = await fetch(form.action, { method: "POST", body: fields, signal, redirect: "manual" });
    if (response.type === "opaqueredirect") throw new Error("You are signed out. Sign in again.");
    const answer = await response.json().catch(() => ({}));
    if (!response.ok) throw new Error(answer.error ?? `The portal answered ${response.status}. Reload the page.`);
    cached = { token: answer.token, choice, until: performance.now() + (answer.expires_in - 30) * 1000 };
    return cached.token;
  };

  const request = async (ask, body, signal) => {
    const type = ask.body === null ? body.type || "application/octet-stream" : "application/json";
    const headers = { "Content-Type": type, "Assay-Data-Classification": form.classification.value };
    for (let attempt = 0; ; attempt += 1) {
      headers.Authorization = `Bearer ${await token(signal)}`;
      const response = await fetch(ask.path, {
        method: "POST",
        signal,
        credentials: "same-origin",
        headers,
        body,
      });
      if (response.ok) return response;
      /* A new address or session may have ended the token: try once more, with a new token. */
      cached = null;
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
    const headers = {};
    for (const [name, value] of response.headers) {
      if (name.startsWith("x-assay-") || name === "x-request-id" || name.startsWith("x-ratelimit-")) headers[name] = value;
    }
    return headers;
  };

  /* The words for a header: `x-assay-policy-version` is the policy version. */
  const titleOf = (name) => {
    if (name === "x-assay-units") return "Usage";
    const words = name.replace(/^x-(assay-)?/, "").replace("ratelimit", "rate limit").replaceAll("-", " ");
    return `${words[0].toUpperCase()}${words.slice(1)}`.replace(/ id$/, " ID");
  };

  /* An amount with its unit: `3 audio_seconds` are 3 s of audio. */
  const usageOf = (value) => {
    const [amount, unit] = value.split(" ");
    if (unit === "audio_seconds") return `${amount} s of audio`;
    return `${amount} ${amount === "1" ? unit.replace(/s$/, "") : unit}`;
  };

  /* The words for a header's value: `2026-12-02T01:00:24+00:00` is 2026-12-02, 01:00 UTC. */
  const wordsOf = (name, value) => {
    if (name === "x-assay-units") return usageOf(value);
    return name === "x-assay-release-expires" ? `${value.slice(0, 10)}, ${value.slice(11, 16)} UTC` : value;
  };

  const showFacts = (entries) => {
    facts.replaceChildren();
    for (const [name, value] of Object.entries(entries)) {
      const term = document.createElement("dt");
      const detail = document.createElement("dd");
      term.textContent = titleOf(name);
      detail.textContent = wordsOf(name, value);
      detail.className = "mono";
      facts.append(term, detail);
    }
  };

  /* Fill in the template of a body with the deployment, the fields and the conversation. */
  const filled = (template, values) => {
    if (Array.isArray(template)) return template.map((part) => filled(part, values));
    if (template && typeof template === "object") {
      return Object.fromEntries(Object.entries(template).map(([name, part]) => [name, filled(part, values)]));
    }
    return values[template] ?? template;
  };

  const uses = (ask, name) => ask.body !== null && JSON.stringify(ask.body).includes(`"${name}`);
  const takesFile = (ask) => ask.body === null || uses(ask, "$file");
  /* A chat may have a file with each message; other requests require theirs. */
  const mayTakeFile = (ask) => takesFile(ask) || (ask.streams && ask.accept !== "");
  const takesText = (ask) => ["$text", "$numbers", "$messages"].some((name) => uses(ask, name));
  const lines = () => form.lines.value.split("\n").filter((line) => line.trim());

  const numbersIn = (ask, text) => (uses(ask, "$numbers") ? playgroundSeries.parse(text) : []);

  const bodyFor = async (ask, deployment, text) => {
    if (ask.body === null) return playgroundMedia.file();
    const message = { role: "user", content: text };
    if (ask.streams) history.push(message);
    const file = mayTakeFile(ask) && playgroundMedia.file() ? await playgroundMedia.encoded() : {};
    const image = { type: "image_url", image_url: { url: file.$file_url } };
    if (file.$file_url) message.content = [image, { type: "text", text }];
    const system = ask.system && form.system.value.trim();
    const messages = system ? [{ role: "system", content: system }, ...history] : history;
    const body = filled(ask.body, { $model: deployment, $text: text, $lines: lines(), $lines_text: form.lines.value, $messages: messages, $numbers: numbersIn(ask, text), $table: playgroundTable.table(), ...file });
    if (ask.seed && form.seed.value) body.seed = Number(form.seed.value);
    if (ask.size && form.size.value) body.size = form.size.value;
    if (!ask.streams) return JSON.stringify(body);
    const base = ask.grounds && form.elements.knowledge_base?.value;
    if (base) body.knowledge_base = base;
    const variables = playgroundPrompt.values();
    if (Object.keys(variables).length) body.prompt_variables = variables;
    return JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true }, ...playgroundPrompt.settings() });
  };

  /* List the passages that the model received, each with a link to its place; cited ones in bold. */
  const showSources = (element, { passages, cited }) => {
    const numbers = new Set(cited.map((each) => each.index));
    const list = document.createElement("ul");
    list.className = "sources";
    for (const each of passages) {
      const item = document.createElement("li");
      const link = document.createElement("a");
      link.href = each.url;
      link.textContent = `[${each.index}] ${each.document} v${each.document_version}`;
      link.title = each.quote;
      if (numbers.has(each.index)) link.className = "cited";
      item.append(link, numbers.has(each.index) ? " cited" : " given");
      list.append(item);
    }
    if (!passages.length) list.append("No passage was found.");
    element.append(list);
  };

  /* The conversation so far as a file, with the system prompt. */
  const conversation = (body) => {
    const messages = [...JSON.parse(body).messages, history.at(-1)];
    return new Blob([JSON.stringify({ messages }, null, 2)], { type: "application/json" });
  };

  const readStream = async (response, element) => {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let waiting = "";
    let usage = null;
    let sources = null;
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return { usage, sources };
      waiting += value;
      const lines = waiting.split("\n");
      waiting = lines.pop();
      for (const line of lines) {
        if (!line.startsWith("data: ") || line === "data: [DONE]") continue;
        const chunk = JSON.parse(line.slice(6));
        if (chunk.error) throw new Error(chunk.error.message);
        const delta = chunk.choices?.[0]?.delta ?? {};
        element.textContent += delta.content ?? "";
        if (delta.knowledge) sources = { passages: delta.knowledge.passages, cited: delta.citations };
        usage = chunk.usage ?? usage;
      }
    }
  };

  const send = async () => {
    const option = form.deployment.selectedOptions[0];
    const ask = asks[option.value];
    const text = form.text.value.trim();
    const file = playgroundMedia.file();
    if ((takesFile(ask) && !file) || (takesText(ask) && !text)) return;
    const userTurn = turn("user", takesText(ask) ? text : uses(ask, "$table") ? playgroundTable.words() : "");
    if (mayTakeFile(ask) && file) userTurn.append(playgroundMedia.element(file, file.name));
    const element = turn("assistant", "");
    element.setAttribute("aria-busy", "true");
    const started = performance.now();
    running = new AbortController();
    stop.hidden = false;
    try {
      const body = await bodyFor(ask, option.value, text);
      const response = await request(ask, body, running.signal);
      const copy = ask.streams ? null : response.clone();
      let usage;
      if (ask.streams) {
        const read = await readStream(response, element);
        usage = read.usage;
        history.push({ role: "assistant", content: element.textContent });
        if (read.sources) showSources(element, read.sources);
        form.text.value = "";
        playgroundMedia.clear();
      } else usage = await playgroundResults.show(response, ask.output, element, lines(), numbersIn(ask, text), file, text);
      const tokens = usage?.prompt_tokens === undefined ? {} : { "prompt tokens": usage.prompt_tokens, "completion tokens": usage.completion_tokens ?? "–" };
      const requestId = response.headers.get("x-request-id");
      const answer = ask.streams ? element.textContent : await playgroundFeedback.bestOf(copy.clone());
      const seconds = (performance.now() - started) / 1000;
      playgroundFoot.add(talk, {
        seconds,
        blob: copy ? await copy.blob() : conversation(body),
        name: ask.streams ? "conversation" : "answer",
        requestId,
        address: form.dataset.cost,
      });
      playgroundFeedback.offer(talk, { id: requestId, body: ask.teaches ? body : null, answer, token });
      showFacts({ ...headersOf(response), ...tokens, "time": `${seconds.toFixed(2)} s` });
    } catch (error) {
      if (ask.streams) history.pop();
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
    if (!running) send();
  });
  stop.addEventListener("click", () => running?.abort());
  /* Show the inputs of the chosen deployment: its sample, its fields, the departments that may pay. */
  const settle = () => {
    history.length = 0;
    const option = form.deployment.selectedOptions[0];
    const ask = asks[option.value];
    form.text.value = ask.text;
    form.lines.value = ask.lines;
    form.seed.value = form.size.value = "";
    playgroundTable.show(ask.features);
    playgroundPrompt.show(ask);
    playgroundMedia.clear();
    form.file.accept = ask.accept;
    document.getElementById("file-kinds").textContent = ask.file_kinds;
    document.getElementById("record").hidden = ask.accept !== "audio/*";
    document.querySelector("label[for=lines]").textContent = ask.lines_label || "Lines";
    const fields = { file: mayTakeFile(ask), text: takesText(ask), lines: Boolean(ask.lines_label), numbers: uses(ask, "$numbers"), table: uses(ask, "$table"), messages: ask.streams, knowledge: ask.grounds, variables: ask.variables.length > 0, system: ask.system, seed: ask.seed, size: ask.size };
    document.querySelectorAll("[data-input]").forEach((field) => { field.hidden = !fields[field.dataset.input]; });
    document.querySelectorAll("[data-code-of]").forEach((code) => { code.hidden = code.dataset.codeOf !== option.value; });
    const paying = option.dataset.departments.split(" ");
    for (const each of form.department.options) each.disabled = !paying.includes(each.value);
    if (!paying.includes(form.department.value)) form.department.value = paying[0];
  };
  form.deployment.addEventListener("change", settle);
  addEventListener("pagehide", () => { cached = null; });
  playgroundMedia.setUp();
  settle();
})();
