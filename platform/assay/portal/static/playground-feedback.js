/* Thumbs under an answer: POST /v1/feedback, as every application sends it. */
"use strict";

const playgroundFeedback = (() => {
  const RECORDED_MS = 1500;
  const ATTEMPTS = 4;
  const INPUT_MAX = 60000;

  /* The best label of an answer in JSON, or its text; empty for anything else. */
  const bestOf = async (response) => {
    if (!(response.headers.get("content-type") ?? "").includes("json")) return "";
    const found = (value) => {
      if (Array.isArray(value)) return value.length ? found(value[0]) : "";
      if (!value || typeof value !== "object") return "";
      for (const name of ["label", "summary_text", "translation_text", "answer"]) {
        if (typeof value[name] === "string") return value[name];
      }
      return found(value.data ?? value.results ?? null);
    };
    return found(await response.json().catch(() => null));
  };

  const pause = (milliseconds) => new Promise((done) => { setTimeout(done, milliseconds); });

  /* A request is on record some seconds after its answer. */
  const send = async (token, said) => {
    for (let attempt = 1; ; attempt += 1) {
      const response = await fetch("/v1/feedback", {
        method: "POST",
        credentials: "same-origin",
        headers: { "Content-Type": "application/json", Authorization: `Bearer ${await token()}` },
        body: JSON.stringify(said),
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
    const made = document.createElement("button");
    made.type = "button";
    made.className = "btn btn-plain btn-sm";
    made.textContent = text;
    made.addEventListener("click", act);
    return made;
  };

  /* Offers to rate the last answer in `talk`; a bad one may be corrected. */
  const offer = (talk, { id, body, answer, token }) => {
    if (!id) return;
    const bar = document.createElement("div");
    bar.className = "turn-feedback d-flex gap-2 flex-wrap align-items-center";
    bar.setAttribute("role", "group");
    bar.setAttribute("aria-label", "Feedback on this answer");
    const teaches = typeof body === "string" && body.length < INPUT_MAX;
    const give = async (rating, correction) => {
      const said = { request_id: id, rating };
      if (teaches) Object.assign(said, { input: JSON.parse(body), answer, correction });
      bar.replaceChildren("Sending…");
      try {
        await send(token, said);
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
      bar.replaceChildren(label, text, button("Send feedback", () => give("down", text.value)));
      text.focus();
    };
    bar.append(
      button("Good answer", () => give("up", "")),
      button("Bad answer", () => (teaches ? correct() : give("down", ""))),
    );
    talk.append(bar);
  };

  return { bestOf, offer };
})();
