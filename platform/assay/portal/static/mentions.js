/* Completes “@an” in a comment with people who may see the review. Without this script, people type handles. */
"use strict";

(() => {
  const WAIT_MS = 150;
  const TYPED = /(^|[^\w@.+'-])@([\w.+'-]{1,64})$/;
  let list = null;
  let box = null;
  let timer = 0;
  let request = null;

  function close() {
    clearTimeout(timer);
    request?.abort();
    list?.remove();
    list = null;
    box?.removeAttribute("aria-activedescendant");
    box?.removeAttribute("aria-controls");
  }

  function choose(option) {
    const before = box.value.slice(0, box.selectionStart).replace(TYPED, `$1@${option.dataset.handle} `);
    const after = box.value.slice(box.selectionStart);
    box.value = before + after;
    box.setSelectionRange(before.length, before.length);
    close();
    box.focus();
  }

  function point(option) {
    list.querySelectorAll("[aria-selected=true]").forEach((each) => each.setAttribute("aria-selected", "false"));
    option.setAttribute("aria-selected", "true");
    option.scrollIntoView({ block: "nearest" });
    box.setAttribute("aria-activedescendant", option.id);
  }

  function show(people) {
    list?.remove();
    list = null;
    if (!people.length) return close();
    list = document.createElement("ul");
    list.id = "mention-list";
    list.className = "mention-list";
    list.setAttribute("role", "listbox");
    list.setAttribute("aria-label", "People to mention");
    people.forEach((person, index) => {
      const option = document.createElement("li");
      option.id = `mention-${index}`;
      option.setAttribute("role", "option");
      option.setAttribute("aria-selected", "false");
      option.dataset.handle = person.handle;
      const handle = document.createElement("span");
      handle.className = "subtle";
      handle.textContent = `@${person.handle}`;
      option.append(`${person.name} `, handle);
      list.append(option);
    });
    box.after(list);
    box.setAttribute("aria-controls", list.id);
    point(list.firstElementChild);
    const summary = `${people.length} ${people.length === 1 ? "person" : "people"}: Up and Down to choose, Enter to insert.`;
    document.getElementById("announcements").textContent = summary;
  }

  async function ask(address, typed) {
    request?.abort();
    request = new AbortController();
    const { signal } = request;
    try {
      const answer = await fetch(`${address}?q=${encodeURIComponent(typed)}`, { signal, headers: { Accept: "application/json" } });
      if (answer.ok && !signal.aborted) show((await answer.json()).people);
    } catch {
      // Aborted, or offline: the handle can be typed.
    }
  }

  document.addEventListener("input", (event) => {
    const area = event.target.matches("textarea[name=text]") && event.target.closest("[data-mentions]");
    if (!area) return;
    if (box !== event.target) close();
    box = event.target;
    box.setAttribute("aria-autocomplete", "list");
    const typed = TYPED.exec(box.value.slice(0, box.selectionStart));
    clearTimeout(timer);
    if (!typed) return close();
    timer = setTimeout(() => ask(area.dataset.mentions, typed[2]), WAIT_MS);
  });

  // Runs before the page's own keys, so that Escape closes the list and does not leave the text box.
  document.addEventListener(
    "keydown",
    (event) => {
      if (!list || event.target !== box || event.isComposing) return;
      const options = [...list.children];
      const at = options.findIndex((option) => option.getAttribute("aria-selected") === "true");
      if (event.key === "ArrowDown") point(options[(at + 1) % options.length]);
      else if (event.key === "ArrowUp") point(options[(at - 1 + options.length) % options.length]);
      else if (event.key === "Enter" || event.key === "Tab") choose(options[at]);
      else if (event.key === "Escape") close();
      else return;
      event.preventDefault();
      event.stopPropagation();
    },
    true
  );
  document.addEventListener("mousedown", (event) => {
    const option = list && event.target.closest("#mention-list [role=option]");
    if (!option) return;
    event.preventDefault();
    choose(option);
  });
  document.addEventListener("focusout", (event) => {
    if (event.target === box) close();
  });
})();
