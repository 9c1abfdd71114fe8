/* One record of the playground: a field for each feature that the model takes. */
"use strict";

const playgroundTable = (() => {
  const box = document.getElementById("features");
  let fields = [];

  const option = (text, chosen) => {
    const element = document.createElement("option");
    element.value = text;
    element.textContent = text || "(missing)";
    element.selected = text === chosen;
    return element;
  };

  const control = (feature) => {
    if (feature.kind === "category") {
      const select = document.createElement("select");
      select.className = "form-select";
      select.append(...["", ...feature.categories].map((each) => option(each, feature.example ?? "")));
      return select;
    }
    const input = document.createElement("input");
    input.className = "form-control";
    input.type = "number";
    input.step = "any";
    input.value = feature.example ?? "";
    return input;
  };

  /* Show fields for these features, filled in with usual values. */
  const show = (features) => {
    fields = features.map((feature, index) => {
      const field = document.createElement("div");
      const label = document.createElement("label");
      const input = control(feature);
      input.id = `feature-${index}`;
      label.htmlFor = input.id;
      label.className = "form-label";
      label.textContent = feature.name;
      field.append(label, input);
      return { feature, input, field };
    });
    box.replaceChildren(...fields.map((each) => each.field));
  };

  const valueOf = ({ feature, input }) => {
    if (!input.checkValidity()) throw new Error(`${feature.name} is not a number.`);
    if (input.value === "") return null;
    return feature.kind === "number" ? Number(input.value) : input.value;
  };

  /* Return {feature: [value]}, a table of one row. */
  const table = () => Object.fromEntries(fields.map((each) => [each.feature.name, [valueOf(each)]]));

  const SHOWN = 6;
  const words = () => {
    const pairs = fields.slice(0, SHOWN).map(({ feature, input }) => `${feature.name} ${input.value || "–"}`);
    return pairs.join(", ") + (fields.length > SHOWN ? ", …" : "");
  };

  return { show, table, words };
})();
