/* Keeps the rows of variables in step with the placeholders of the texts, and shows the filled prompt. */
"use strict";

(() => {
  const form = document.getElementById("prompt-form");
  if (!form) return;
  const rows = document.getElementById("prompt-variables");
  const none = document.getElementById("prompt-no-variables");
  const blank = document.getElementById("prompt-variable");
  const values = document.getElementById("preview-values");
  const input = document.getElementById("preview-input");
  const preview = document.getElementById("preview");
  const examples = document.getElementById("prompt-examples");
  const more = document.getElementById("prompt-more");
  const MOST_EXAMPLES = 20;
  const placeholder = /\{\{\s*([A-Za-z_][A-Za-z0-9_]{0,39})\s*\}\}/g;
  const removed = new Map();

  const names = () => {
    const text = `${form.system.value} ${form.template.value}`;
    const matches = [...text.matchAll(placeholder)].map((match) => match[1]);
    return [...new Set(matches)].filter((name) => name !== "input");
  };

  const row = (name) => {
    const made = blank.content.firstElementChild.cloneNode(true);
    for (const each of [made, ...made.querySelectorAll("*")])
      for (const { name: attribute, value: text } of [...each.attributes])
        each.setAttribute(attribute, text.replaceAll("__name__", name));
    made.querySelector("legend").textContent = name;
    return made;
  };

  const sample = (name) => {
    const field = document.createElement("div");
    field.className = "form-field";
    field.dataset.sample = name;
    const label = document.createElement("label");
    label.className = "form-label mono";
    label.htmlFor = `sample-${name}`;
    label.textContent = name;
    const box = document.createElement("input");
    box.className = "form-control";
    box.id = label.htmlFor;
    box.placeholder = "Value of a caller";
    field.append(label, box);
    return field;
  };

  /* Keep the rows of removed placeholders, so that retyping a name restores its values. */
  const follow = () => {
    const current = names();
    for (const each of [...rows.querySelectorAll("[data-variable]")]) {
      const name = each.dataset.variable;
      if (current.includes(name)) continue;
      removed.set(name, each);
      each.remove();
    }
    for (const each of [...values.children]) if (!current.includes(each.dataset.sample)) each.remove();
    for (const name of current) {
      if (!rows.querySelector(`[data-variable="${name}"]`)) rows.append(removed.get(name) ?? row(name));
      if (!values.querySelector(`[data-sample="${name}"]`)) values.append(sample(name));
    }
    none.hidden = current.length > 0;
  };

  const value = (name) => {
    const typed = document.getElementById(`sample-${name}`)?.value;
    if (typed) return typed;
    const optional = form.elements[`v_${name}_optional`]?.checked;
    return optional ? form.elements[`v_${name}_default`].value : null;
  };

  const filled = (text, message) =>
    text.replace(placeholder, (whole, name) => (name === "input" ? message : value(name)) ?? whole);

  const turn = (role, text) => {
    const title = document.createElement("h3");
    title.className = "card-title mt-3";
    title.textContent = role;
    const body = document.createElement("pre");
    body.className = "mt-2";
    body.textContent = text;
    body.tabIndex = 0;
    body.setAttribute("role", "group");
    body.setAttribute("aria-label", role);
    return [title, body];
  };

  const show = () => {
    const turns = [];
    if (form.system.value) turns.push(...turn("System", filled(form.system.value, "")));
    let number = 0;
    for (const each of examples.children) {
      const [user, answer] = each.querySelectorAll("textarea");
      if (!user.value) continue;
      number += 1;
      turns.push(...turn(`Example ${number}, user`, filled(form.template.value, user.value)));
      turns.push(...turn(`Example ${number}, assistant`, answer.value));
    }
    turns.push(...turn("User", filled(form.template.value, input.value)));
    preview.replaceChildren(...turns);
  };

  more.addEventListener("click", () => {
    const last = examples.lastElementChild;
    if (!last || examples.children.length >= MOST_EXAMPLES) return;
    const number = examples.children.length + 1;
    const made = last.cloneNode(true);
    made.querySelector("legend").firstChild.textContent = `Example ${number} `;
    const [user, answer] = made.querySelectorAll("textarea");
    user.value = answer.value = "";
    user.setAttribute("aria-label", `Message of the user in example ${number}`);
    answer.setAttribute("aria-label", `Answer in example ${number}`);
    examples.append(made);
    user.focus();
  });

  const update = () => {
    follow();
    show();
  };
  form.addEventListener("input", update);
  input.addEventListener("input", show);
  values.addEventListener("input", show);
  update();
})();
