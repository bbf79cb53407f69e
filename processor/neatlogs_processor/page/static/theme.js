// Before anything is painted: the colours that were chosen here before, and that scripts run.
(function () {
  "use strict";
  var root = document.documentElement;
  root.classList.add("script");
  try {
    var theme = localStorage.getItem("theme");
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  } catch (_) { /* No storage: as the system says. */ }
})();
