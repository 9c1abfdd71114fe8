/* Passkeys: a form with data-passkey="create" or "get" fetches its challenge from data-options, asks
   the device, and is sent with the answer in its field `credential`. */
"use strict";

(() => {
  const supported = Boolean(window.webauthnJSON && window.webauthnJSON.supported());

  const say = (form, text) => {
    const place = form.querySelector("[data-passkey-said]");
    if (!place) return;
    place.textContent = text;
    place.hidden = !text;
  };

  const words = (error) => {
    if (error.name === "NotAllowedError") return "The device did not confirm; nothing was sent. Try again.";
    if (error.name === "InvalidStateError") return "This device already has a passkey for this account.";
    if (error.name === "SecurityError") return "Passkeys need a host name and HTTPS; on this machine, use http://localhost.";
    return "The passkey could not be used; nothing was sent. Try again.";
  };

  const ask = async (form) => {
    const response = await fetch(form.dataset.options, { headers: { Accept: "application/json" } });
    if (!response.ok || response.redirected) throw new Error("no challenge");
    const options = await response.json();
    return form.dataset.passkey === "create"
      ? window.webauthnJSON.create(options)
      : window.webauthnJSON.get(options);
  };

  document.querySelectorAll("form[data-passkey]").forEach((form) => {
    const button = form.querySelector("button[type=submit]");
    if (!supported) {
      button.disabled = true;
      say(form, "Passkeys are not available here; they need HTTPS or localhost.");
      return;
    }
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      say(form, "");
      button.disabled = true;
      try {
        form.elements.credential.value = JSON.stringify(await ask(form));
        // A field that is called "submit" would hide the form's own method.
        HTMLFormElement.prototype.submit.call(form);
      } catch (error) {
        say(form, words(error));
        button.disabled = false;
        button.focus();
      }
    });
  });
})();
