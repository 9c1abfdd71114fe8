/* Runs before the first paint: sets the chosen theme, and marks that scripts run. */
(function () {
  "use strict";
  var root = document.documentElement;
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  function chosen() {
    try {
      var value = localStorage.getItem("assay-theme");
      return value === "light" || value === "dark" ? value : "auto";
    } catch (error) {
      return "auto";
    }
  }
  function apply() {
    var choice = chosen();
    root.dataset.themeChoice = choice;
    root.setAttribute(
      "data-bs-theme",
      choice === "auto" ? (dark.matches ? "dark" : "light") : choice
    );
    document.dispatchEvent(new CustomEvent("assay:theme"));
  }
  root.classList.add("js");
  apply();
  dark.addEventListener("change", apply);
  window.assayTheme = {
    set: function (choice) {
      try {
        localStorage.setItem("assay-theme", choice);
      } catch (error) {
        /* Without storage the choice lasts for this page. */
      }
      apply();
      root.dataset.themeChoice = choice;
    },
  };
})();
