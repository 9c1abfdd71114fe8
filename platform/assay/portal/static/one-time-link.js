/* The page behind a one-time link: takes the secret after the `#`, which browsers never send,
   removes it from the address and the history, and posts it. */
"use strict";

(() => {
  const form = document.querySelector("form[data-one-time-link]");
  const secret = window.location.hash;
  if (!form || secret.length < 2) return;
  window.history.replaceState(null, "", window.location.pathname);
  form.elements.link.value = secret;
  form.submit();
})();
