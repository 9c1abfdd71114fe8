/* The command palette: Ctrl-K or Cmd-K. Without it, “Search” in the menu leads to a page. */
"use strict";

(() => {
  const WAIT_MS = 120;
  const MAC = /Mac|iPhone|iPad/.test(navigator.platform);
  const SVG = "http://www.w3.org/2000/svg";
  const dialog = document.getElementById("palette");
  if (!dialog) return;
  const input = document.getElementById("palette-input");
  const list = document.getElementById("palette-list");
  const empty = document.getElementById("palette-empty");
  const announcement = document.getElementById("palette-said");
  let timer = 0;
  let request = null;
  // Text whose results are shown; Enter waits for the results of the typed text.
  let shown = null;
  // The results in the list, in its order.
  let offered = [];
  let entered = false;

  /* ---- actions of the open page: marked elements, and the links and buttons of its head and tabs ---- */

  const MARKED = "[data-palette-action]";
  const OFFERED = `#main :is(.head-actions, .tabs-page) :is(a:not([aria-current]), button), ${MARKED}`;

  const FIELD = ":is(input:not([type=hidden]), select, textarea, button):not(:disabled)";

  /* Return the actions that match the meanings of the typed words; without words, those outside the menu. */
  function pageActions(meanings) {
    return [...document.querySelectorAll(OFFERED)]
      .filter((element) => !element.disabled && !element.hidden)
      .filter((element) => meanings.length || element.closest("#main"))
      .map((element) => ({
        kind: element.closest("#main") ? "This page" : "Action",
        icon: element.querySelector("use")?.getAttribute("href").split("#")[1] ?? "arrow-right",
        title: element.dataset.paletteAction ?? element.textContent.trim().replace(/\s+/g, " "),
        element,
      }))
      .filter(({ title }) => {
        const words = ` ${title.toLowerCase()}`;
        return meanings.every(([typed, ...titleWords]) => words.includes(typed) || titleWords.some((each) => words.includes(` ${each}`)));
      });
  }

  /* Follow a link, press a button, or go to a form. */
  function act(element) {
    dialog.close();
    if (element.matches("a, button")) {
      element.click();
      return;
    }
    openAncestors(element);
    const field = element.querySelector(FIELD) ?? element;
    field.scrollIntoView({ block: "center" });
    field.focus();
  }

  const selected = () => list.querySelector("[aria-selected=true]");

  function point(option) {
    selected()?.setAttribute("aria-selected", "false");
    if (!option) {
      input.removeAttribute("aria-activedescendant");
      return;
    }
    option.setAttribute("aria-selected", "true");
    option.scrollIntoView({ block: "nearest" });
    input.setAttribute("aria-activedescendant", option.id);
  }

  function icon(name) {
    const svg = document.createElementNS(SVG, "svg");
    const use = document.createElementNS(SVG, "use");
    svg.setAttribute("class", "icon");
    svg.setAttribute("aria-hidden", "true");
    use.setAttribute("href", `${dialog.dataset.icons}#${name}`);
    svg.append(use);
    return svg;
  }

  function text(kind, words) {
    const span = document.createElement("span");
    span.className = kind;
    span.textContent = words;
    return span;
  }

  function option(result, index) {
    const item = document.createElement("li");
    item.id = `palette-${index}`;
    item.setAttribute("role", "option");
    item.setAttribute("aria-selected", "false");
    if (result.href) item.dataset.href = result.href;
    const words = text("grow", "");
    words.append(text("title", result.title));
    if (result.detail) words.append(" ", text("subtle", result.detail));
    item.append(icon(result.icon), words, " ", text("kind", result.kind));
    return item;
  }

  function show(typed, results) {
    shown = typed;
    offered = results;
    list.replaceChildren(...results.map(option));
    input.setAttribute("aria-expanded", String(results.length > 0));
    empty.hidden = results.length > 0;
    announcement.textContent = results.length === 1 ? "1 result" : `${results.length || "No"} results`;
    point(list.firstElementChild);
    if (entered) take(false);
  }

  async function ask() {
    const typed = input.value;
    request?.abort();
    request = new AbortController();
    const { signal } = request;
    try {
      const address = `${dialog.dataset.results}?q=${encodeURIComponent(typed)}`;
      const answer = await fetch(address, { signal, headers: { Accept: "application/json" } });
      if (signal.aborted) return;
      // Signed out: the search page asks to sign in.
      if (answer.redirected || !answer.ok) throw new Error(String(answer.status));
      const { results, meanings } = await answer.json();
      show(typed, [...pageActions(meanings), ...results]);
    } catch (error) {
      if (error.name === "AbortError") return;
      announcement.textContent = "The search failed. Press Enter to open the search page.";
      list.replaceChildren();
      offered = [];
      shown = typed;
    }
  }

  function take(elsewhere) {
    entered = false;
    const element = offered[[...list.children].indexOf(selected())]?.element;
    const href = selected()?.dataset.href;
    if (element) act(element);
    else if (!href) input.form.submit();
    else if (elsewhere) window.open(href, "_blank", "noopener");
    else location.href = href;
  }

  function reset() {
    clearTimeout(timer);
    request?.abort();
    input.value = "";
    list.replaceChildren();
    offered = [];
    shown = null;
    entered = false;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  }

  function open() {
    if (dialog.open || document.querySelector("dialog[open]")) return;
    reset();
    dialog.showModal();
    input.focus();
    ask();
  }

  document.addEventListener("keydown", (event) => {
    const isShortcut = MAC ? event.metaKey && !event.ctrlKey : event.ctrlKey && !event.metaKey;
    if (!isShortcut || event.altKey || event.shiftKey || event.key.toLowerCase() !== "k") return;
    event.preventDefault();
    if (dialog.open) dialog.close();
    else open();
  });
  document.addEventListener("click", (event) => {
    const link = event.target.closest("[data-palette]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    open();
  });
  input.addEventListener("input", () => {
    clearTimeout(timer);
    request?.abort();
    entered = false;
    timer = setTimeout(ask, WAIT_MS);
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (event.target === input && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
      const options = [...list.children];
      const step = event.key === "ArrowDown" ? 1 : options.length - 1;
      if (options.length) point(options[(options.indexOf(selected()) + step) % options.length]);
      event.preventDefault();
    }
    // Keep these keys from the page's own shortcuts.
    event.stopPropagation();
    if (event.key === "k" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      dialog.close();
    }
  });
  input.form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (shown === input.value) take(false);
    else entered = true;
  });
  list.addEventListener("click", (event) => {
    const chosen = event.target.closest("[role=option]");
    if (!chosen) return;
    point(chosen);
    take(event.ctrlKey || event.metaKey);
  });
  dialog.addEventListener("click", (event) => {
    // On the backdrop, or the button.
    if (event.target === dialog || event.target.closest("[data-palette-close]")) dialog.close();
  });
  // The event comes after the dialog has closed: by then it may be open again.
  dialog.addEventListener("close", () => {
    if (!dialog.open) reset();
  });
})();
