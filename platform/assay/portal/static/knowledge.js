/* Searches a knowledge base through the same /v1 as every application does. */
"use strict";

(() => {
  const form = document.getElementById("ask");
  if (!form) return;
  const results = document.getElementById("found");

  const token = async () => {
    const fields = new URLSearchParams();
    for (const name of ["csrfmiddlewaretoken", "deployment", "department"]) fields.set(name, form.elements[name].value);
    const response = await fetch(form.action, { method: "POST", body: fields, redirect: "manual" });
    if (response.type === "opaqueredirect") throw new Error("You are signed out. Sign in again.");
    const answer = await response.json().catch(() => ({}));
    if (!response.ok) throw new Error(answer.error ?? `The portal answered ${response.status}. Reload the page.`);
    return answer.token;
  };

  const paragraph = (text, css) => {
    const element = document.createElement("p");
    element.textContent = text;
    element.className = css;
    return element;
  };

  const articleOf = (result) => {
    const place = result.attributes;
    const item = document.createElement("article");
    const link = document.createElement("a");
    link.href = place.url;
    link.textContent = `${place.document} v${place.document_version}`;
    item.className = "mt-3";
    item.append(link, paragraph(`Score ${result.score.toFixed(3)} · ${place.classification}`, "subtle mb-1"));
    item.append(paragraph(result.content[0].text, "document-text"));
    return item;
  };

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    results.replaceChildren(paragraph("Searching…", "subtle mt-3"));
    try {
      const response = await fetch(form.dataset.search, {
        method: "POST",
        credentials: "same-origin",
        headers: { "Content-Type": "application/json", Authorization: `Bearer ${await token()}` },
        body: JSON.stringify({ query: form.question.value, max_num_results: 5 }),
      });
      const answer = await response.json();
      if (!response.ok) throw new Error(answer.error?.message ?? `The gateway answered ${response.status}.`);
      const items = answer.data.map(articleOf);
      results.replaceChildren(...(items.length ? items : [paragraph("No passage was found.", "subtle mt-3")]));
    } catch (error) {
      results.replaceChildren(paragraph(error.message, "is-bad mt-3"));
    }
  });
})();
