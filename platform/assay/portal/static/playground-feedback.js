/* Ratings under an answer, sent to POST /v1/feedback as by every application. */
"use strict";

const playgroundFeedback = (() => {
  const RECORDED_MS = 1500;
  const ATTEMPTS = 4;
  const INPUT_MAX = 60000;

  /* The best label of an answer in JSON, or its text; empty for anything else. */
  const bestOf = async (response) => {
    if (!(response.headers.get("content-type") ?? "").includes("json")) return "";
    const labelIn = (value) => {
      if (Array.isArray(value)) return value.length ? labelIn(value[0]) : "";
      if (!value || typeof value !== "object") return "";
      for (const name of ["label", "summary_text", "translation_text", "answer"]) {
        if (typeof value[name] === "string") return value[name];
      }
      return labelIn(value.data ?? value.results ?? null);
    };
    return labelIn(await response.json().catch(() => null));
  };

  const pause = (milliseconds) => new Promise((done) => { setTimeout(done, milliseconds); });

  /* The request is recorded some seconds after its answer, so retry after a 404. */
  const send = async (token, feedback) => {
    for (let attempt = 1; ; attempt += 1) {
      const response = await fetch("/v1/feedback", {
        method: "POST",
        credentials: "same-origin",
        headers: { "Content-Type": "application/json", Authorization: `Bearer ${await token()}` },
        body: JSON.stringify(feedback),
      });
      if (response.ok) return;
      const problem = await response.json().catch(() => ({}));
      if (response.status !== 404 || attempt === ATTEMPTS) {
        throw new Error(problem.error?.message ?? `The gateway answered ${response.status}.`);
      }
      await pause(RECORDED_MS);
    }
  };

  const button = (text, act) => {
    const element = document.createElement("button");
    element.type = "button";
    element.className = "btn btn-plain btn-sm";
    element.textContent = text;
    element.addEventListener("click", act);
    return element;
  };

  /* Offer to rate the last answer in `talk`, and to correct a bad one. */
  const offer = (talk, { id, body, answer, token }) => {
    if (!id) return;
    const bar = document.createElement("div");
    bar.className = "turn-feedback d-flex gap-2 flex-wrap align-items-center";
    bar.setAttribute("role", "group");
    bar.setAttribute("aria-label", "Feedback on this answer");
    const teaches = typeof body === "string" && body.length < INPUT_MAX;
    const rate = async (rating, correction) => {
      const feedback = { request_id: id, rating };
      if (teaches) Object.assign(feedback, { input: JSON.parse(body), answer, correction });
      bar.replaceChildren("Sending…");
      try {
        await send(token, feedback);
        bar.replaceChildren("Thank you. A reviewer checks it before it is used for training.");
      } catch (error) {
        bar.replaceChildren(error.message);
      }
    };
    const correct = () => {
      const label = document.createElement("label");
      label.className = "form-label mb-0";
      label.textContent = "Right answer, if you know it";
      const text = document.createElement("textarea");
      text.className = "form-control";
      text.rows = 2;
      text.maxLength = 32000;
      text.id = `right-${id}`;
      label.htmlFor = text.id;
      bar.replaceChildren(label, text, button("Send feedback", () => rate("down", text.value)));
      text.focus();
    };
    bar.append(
      button("Good answer", () => rate("up", "")),
      button("Bad answer", () => (teaches ? correct() : rate("down", ""))),
    );
    talk.append(bar);
  };

  return { bestOf, offer };
})();
