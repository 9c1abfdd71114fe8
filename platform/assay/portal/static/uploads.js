/* Sends the files of a form in parts, with progress, before the form itself. An upload that was cut
   off continues at the server's offset, also after the page was reloaded. */
"use strict";

(() => {
  const API = "/api/v1/uploads";
  const PART = 4 * 1024 * 1024;
  const ATTEMPTS = 8;
  const LONGEST_WAIT = 15000;

  class Refused extends Error {}
  class Paused extends Error {}

  const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
  const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

  /* Key of the upload of a file in this browser's storage; the same file has the same key. */
  const keyOf = (sending, file) =>
    ["assay-upload", sending.kind, sending.target(), file.name, file.size, file.lastModified].join(":");
  function remember(key, id) {
    try {
      if (id) localStorage.setItem(key, id);
      else localStorage.removeItem(key);
    } catch {
      /* Without storage, a reloaded page starts the upload again. */
    }
  }
  function remembered(key) {
    try {
      return localStorage.getItem(key);
    } catch {
      return null;
    }
  }

  async function call(sending, method, path, options = {}) {
    const response = await fetch(path, {
      method,
      body: options.body,
      signal: sending.abort.signal,
      headers: {
        "X-CSRFToken": sending.form.elements.csrfmiddlewaretoken.value,
        "Tus-Resumable": "1.0.0",
        ...options.headers,
      },
    });
    if (response.ok) return response;
    const problem = await response.json().catch(() => ({}));
    const words = [problem.detail || `The server answered ${response.status}.`, problem.hint];
    const error = response.status >= 500 || response.status === 429 ? Error : Refused;
    throw Object.assign(new error(words.filter(Boolean).join(" ")), { status: response.status });
  }

  /* Retry while the server cannot be reached or is busy; a refusal is final. */
  async function withRetries(sending, work) {
    for (let failures = 1; ; failures += 1) {
      try {
        return await work();
      } catch (error) {
        if (sending.abort.signal.aborted) throw new Paused();
        if (error instanceof Refused || failures > ATTEMPTS) throw error;
        sending.say("The connection broke. Trying again…");
        await sleep(Math.min(2 ** failures * 250, LONGEST_WAIT));
      }
    }
  }

  async function begin(sending, file, key) {
    const earlier = remembered(key);
    if (earlier) {
      try {
        const head = await call(sending, "HEAD", `${API}/${earlier}`);
        return { id: earlier, offset: Number(head.headers.get("Upload-Offset")) };
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
      }
    }
    const created = await call(sending, "POST", API, {
      body: JSON.stringify({
        kind: sending.kind,
        target: sending.target(),
        filename: file.name,
        size: file.size,
      }),
      headers: { "Content-Type": "application/json" },
    });
    const { id } = await created.json();
    remember(key, id);
    return { id, offset: 0 };
  }

  async function checksum(bytes) {
    /* Browsers hash only on secure addresses. */
    if (!window.crypto || !crypto.subtle) return {};
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
    return { "Upload-Checksum": `sha256 ${btoa(String.fromCharCode(...digest))}` };
  }

  async function send(sending, file, show) {
    const key = keyOf(sending, file);
    let { id, offset } = await withRetries(sending, () => begin(sending, file, key));
    show(offset);
    while (offset < file.size) {
      const bytes = await file.slice(offset, offset + PART).arrayBuffer();
      const headers = {
        "Content-Type": "application/offset+octet-stream",
        "Upload-Offset": String(offset),
        ...(await checksum(bytes)),
      };
      offset = await withRetries(sending, async () => {
        try {
          const done = await call(sending, "PATCH", `${API}/${id}`, { body: bytes, headers });
          return Number(done.headers.get("Upload-Offset"));
        } catch (error) {
          if (error.status !== 409) throw error;
          /* The bytes had arrived, and only the answer was lost. */
          const head = await call(sending, "HEAD", `${API}/${id}`);
          return Number(head.headers.get("Upload-Offset"));
        }
      });
      show(offset);
    }
    return id;
  }

  function lineFor(list, file) {
    const line = document.createElement("li");
    const words = document.createElement("div");
    const bar = document.createElement("progress");
    bar.max = file.size;
    bar.setAttribute("aria-label", `Upload of ${file.name}`);
    line.append(words, bar);
    list.append(line);
    return (offset) => {
      bar.value = offset;
      words.textContent = `${file.name}: ${megabytes(offset)} of ${megabytes(file.size)}`;
    };
  }

  /* Uploads of a refused form that these files replace: all of them, or those of the same name if
     the form takes several files. */
  function replaced(sending, files) {
    const names = new Set(files.map((file) => file.name));
    const lines = [...sending.form.querySelectorAll("[data-upload-attached]")];
    return lines.filter((line) => !sending.input.multiple || names.has(line.dataset.uploadAttached));
  }

  function discard(sending, line) {
    const id = line.querySelector("input").value;
    line.remove();
    sending.abort ??= new AbortController();
    /* If this fails, the server deletes the upload when it expires. */
    return call(sending, "DELETE", `${API}/${id}`).catch(() => {});
  }

  async function run(sending, files) {
    const ids = [];
    sending.panel.hidden = false;
    sending.list.replaceChildren();
    sending.say("Uploading. You can leave the page and continue later with the same files.");
    const shows = files.map((file) => {
      const show = lineFor(sending.list, file);
      show(0);
      return show;
    });
    for (const [place, file] of files.entries()) {
      ids.push(await send(sending, file, shows[place]));
    }
    files.forEach((file) => remember(keyOf(sending, file), null));
    await Promise.all(replaced(sending, files).map((line) => discard(sending, line)));
    for (const id of ids) {
      const input = document.createElement("input");
      input.type = "hidden";
      input.name = "uploads";
      input.value = id;
      sending.form.append(input);
    }
    sending.input.disabled = true;
    sending.say("All files are uploaded. Checking…");
    sending.running = false;
    sending.form.submit();
  }

  function arm(form) {
    const panel = form.querySelector("[data-upload-progress]");
    const sending = {
      form,
      panel,
      kind: form.dataset.uploadKind,
      input: form.querySelector("input[type=file]"),
      list: panel.querySelector("ul"),
      target: () => form.dataset.uploadTarget || form.elements.model.selectedOptions[0].text,
      say: (words) => (panel.querySelector("[role=status]").textContent = words),
      running: false,
    };
    const button = form.querySelector("button[type=submit]");
    const pause = panel.querySelector("[data-upload-pause]");
    pause.addEventListener("click", () => sending.abort.abort());
    form.querySelectorAll("[data-upload-remove]").forEach((remove) => {
      remove.addEventListener("click", () => {
        discard(sending, remove.closest("[data-upload-attached]"));
        sending.input.required = !form.querySelector("[data-upload-attached]");
        sending.input.focus();
      });
    });
    window.addEventListener("beforeunload", (event) => {
      if (sending.running) event.preventDefault();
    });
    form.addEventListener("submit", async (event) => {
      const files = Array.from(sending.input.files);
      if (!files.length || files.some((file) => !file.size)) return;
      event.preventDefault();
      if (sending.running) return;
      sending.abort = new AbortController();
      sending.running = button.disabled = true;
      pause.hidden = false;
      try {
        await run(sending, files);
      } catch (error) {
        const paused = error instanceof Paused || sending.abort.signal.aborted;
        sending.say(paused ? "Paused. Submit the form again to continue." : error.message);
        button.disabled = false;
      } finally {
        sending.running = false;
        pause.hidden = true;
      }
    });
  }

  document.querySelectorAll("form[data-upload-kind]").forEach(arm);
})();
