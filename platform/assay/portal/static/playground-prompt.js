/* Fields for the variables of a deployment's own prompt, and the settings that it fixes. */
"use strict";

const playgroundPrompt = (() => {
  const LINE = 200;
  const box = document.getElementById("variables");
  const form = box?.closest("form");
  let fields = [];

  const control = (variable) => {
    const input = document.createElement(variable.max_length > LINE ? "textarea" : "input");
    if (input instanceof HTMLTextAreaElement) input.rows = 2;
    input.className = "form-control";
    input.maxLength = variable.max_length;
    input.required = variable.default === null;
    input.value = variable.default ?? "";
    return input;
  };

  const fieldOf = (variable, index) => {
    const field = document.createElement("div");
    const label = document.createElement("label");
    const input = control(variable);
    input.id = `variable-${index}`;
    label.htmlFor = input.id;
    label.className = "form-label";
    label.textContent = variable.name;
    field.append(label, input);
    if (variable.description) {
      const help = document.createElement("p");
      help.className = "form-help";
      help.id = `variable-${index}-help`;
      help.textContent = variable.description;
      input.setAttribute("aria-describedby", help.id);
      field.append(help);
    }
    return { variable, input, field };
  };

  /* Fields for the variables, with their defaults; the prompt's settings, closed where it fixes them. */
  const show = ({ variables, settings, fixed }) => {
    fields = variables.map(fieldOf);
    box.replaceChildren(...fields.map((each) => each.field));
    for (const input of [form.max_tokens, form.temperature]) {
      input.value = settings[input.name] ?? input.defaultValue;
      input.disabled = fixed.includes(input.name);
      /* The prompt's own value is always accepted. */
      if (input.validity.rangeOverflow) input.max = input.value;
      if (input.validity.stepMismatch) input.step = "any";
    }
  };

  /* The values that differ from their defaults, by name. */
  const values = () => {
    const changed = fields.filter(({ variable, input }) => input.value !== variable.default);
    return Object.fromEntries(changed.map(({ variable, input }) => [variable.name, input.value]));
  };

  /* The settings that the prompt leaves open. */
  const settings = () => {
    const open = [form.max_tokens, form.temperature].filter((input) => !input.disabled);
    return Object.fromEntries(open.map((input) => [input.name, Number(input.value)]));
  };

  return { show, values, settings };
})();
