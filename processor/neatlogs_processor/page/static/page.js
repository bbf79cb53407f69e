// What the page does beyond links and forms: keys, colours, proposals while a filter is typed, menus that close.
// Everything works without it.
(function () {
  "use strict";
  const root = document.documentElement;
  const one = (selector, within) => (within || document).querySelector(selector);
  const all = (selector, within) => Array.from((within || document).querySelectorAll(selector));

  // Colours: as the system, light, dark.
  const themes = { auto: "as the system", light: "light", dark: "dark" };
  function showTheme() {
    const theme = root.dataset.theme || "auto";
    for (const button of all("[data-action=theme]")) {
      button.setAttribute("aria-label", "Colours: " + themes[theme]);
      button.title = "Colours: " + themes[theme];
    }
  }
  function nextTheme() {
    const names = Object.keys(themes);
    const theme = names[(names.indexOf(root.dataset.theme || "auto") + 1) % names.length];
    if (theme === "auto") delete root.dataset.theme; else root.dataset.theme = theme;
    try { localStorage.setItem("theme", theme); } catch (_) { /* No storage: for this page only. */ }
    showTheme();
  }

  // Times: the reader's own beside UTC.
  function showTimes(within) {
    for (const time of all("time[datetime]:not([data-own])", within)) {
      const at = new Date(time.dateTime);
      time.dataset.own = "";
      if (!isNaN(at)) time.title += "\n" + at.toLocaleString() + " here";
    }
  }

  // One filter as a form: only the operators that go with its field, only the inputs that the operator takes.
  function fitEditor(form) {
    const field = one("[data-role=field]", form);
    const operator = one("[data-role=operator]", form);
    const allowed = field.selectedOptions[0].dataset.operators.split("|");
    for (const option of operator.options) option.hidden = option.disabled = !allowed.includes(option.value);
    if (!allowed.includes(operator.value)) operator.value = allowed[0];
    one("[data-role=key]", form).hidden = field.value !== "metadata";
    one("[data-role=value]", form).hidden = /is (not )?set$/.test(operator.value);
  }

  // Proposals: a listbox below the filter's text.
  const text = one("#filter");
  let box = null, proposals = [], chosen = -1, start = 0, asked = 0, timer = 0, aborter = null;
  function closeBox() {
    clearTimeout(timer);
    asked += 1;
    if (aborter) aborter.abort();
    if (box) box.remove();
    box = null;
    chosen = -1;
    if (text) { text.setAttribute("aria-expanded", "false"); text.removeAttribute("aria-activedescendant"); }
  }
  function choose(index) {
    chosen = index;
    all("li", box).forEach((item, place) => item.setAttribute("aria-selected", String(place === index)));
    const item = all("li", box)[index];
    if (item) { item.scrollIntoView({ block: "nearest" }); text.setAttribute("aria-activedescendant", item.id); }
    else text.removeAttribute("aria-activedescendant");
  }
  function take(index) {
    const end = text.selectionStart;
    const before = text.value.slice(0, start) + proposals[index].text;
    text.value = before + text.value.slice(end);
    text.setSelectionRange(before.length, before.length);
    closeBox();
    text.focus();
    propose();
  }
  function showBox(found) {
    closeBox();
    proposals = found.items;
    start = Array.from(text.value).slice(0, found.start).join("").length;
    if (!proposals.length || document.activeElement !== text) return;
    box = document.createElement("ul");
    box.className = "proposals";
    box.id = "proposals";
    box.setAttribute("role", "listbox");
    box.setAttribute("aria-label", "Proposals");
    proposals.forEach((proposal, index) => {
      const item = document.createElement("li");
      item.id = "proposal-" + index;
      item.setAttribute("role", "option");
      item.setAttribute("aria-selected", "false");
      const part = (name, said) => {
        const span = document.createElement("span");
        span.className = name;
        span.textContent = said;
        item.append(span);
      };
      part("what", proposal.text.trim());
      if (proposal.detail) part("detail", proposal.detail);
      if (proposal.traces !== null) part("seen", proposal.traces + (proposal.traces === 1 ? " trace" : " traces"));
      item.addEventListener("pointerdown", (event) => { event.preventDefault(); take(index); });
      box.append(item);
    });
    text.parentElement.append(box);
    text.setAttribute("aria-expanded", "true");
  }
  function propose() {
    clearTimeout(timer);
    timer = setTimeout(() => {
      const ask = ++asked;
      if (aborter) aborter.abort();
      aborter = new AbortController();
      const query = new URLSearchParams({ text: text.value.slice(0, text.selectionStart), state: text.dataset.state });
      fetch(text.dataset.complete + "?" + query, { signal: aborter.signal })
        .then((answer) => answer.ok ? answer.json() : { start: 0, items: [] })
        .then((found) => { if (ask === asked) showBox(found); })
        .catch(() => { /* Typing goes on without proposals. */ });
    }, 120);
  }
  if (text) {
    text.setAttribute("role", "combobox");
    text.setAttribute("aria-autocomplete", "list");
    text.setAttribute("aria-expanded", "false");
    text.setAttribute("aria-controls", "proposals");
    text.addEventListener("input", propose);
    text.addEventListener("focus", propose);
    text.addEventListener("blur", closeBox);
    text.addEventListener("keydown", (event) => {
      if (event.key === "ArrowDown" && !box) { propose(); event.preventDefault(); }
      if (!box) return;
      const last = proposals.length - 1;
      if (event.key === "ArrowDown") choose(chosen < last ? chosen + 1 : 0);
      else if (event.key === "ArrowUp") choose(chosen > 0 ? chosen - 1 : last);
      else if (event.key === "Tab" && !event.shiftKey && chosen >= 0) take(chosen);
      else if (event.key === "Enter" && chosen >= 0) take(chosen);
      else if (event.key === "Escape") { closeBox(); event.stopPropagation(); }
      else return;
      event.preventDefault();
    });
  }

  // Rows: j and k walk through what can be opened.
  const openers = () => all("[data-rows] .open");
  function walk(step) {
    const rows = openers();
    if (!rows.length) return;
    let place = rows.indexOf(document.activeElement);
    if (place < 0) place = rows.findIndex((row) => row.getAttribute("aria-current") === "true");
    const target = rows[Math.min(Math.max(place < 0 ? (step > 0 ? 0 : rows.length - 1) : place + step, 0), rows.length - 1)];
    target.focus();
    target.scrollIntoView({ block: "nearest" });
    if (target.hasAttribute("hx-get")) target.click();
  }
  function select(opener) {
    for (const row of all(".span.selected")) row.classList.remove("selected");
    for (const row of all(".span .open[aria-current]")) row.removeAttribute("aria-current");
    opener.closest(".span").classList.add("selected");
    opener.setAttribute("aria-current", "true");
  }
  function leave() {
    const menu = one("details[data-menu][open]");
    const active = document.activeElement;
    if (menu) { menu.open = false; one("summary", menu).focus(); }
    else if (active && active !== document.body && active.matches("input, select, textarea")) active.blur();
    else {
      const back = one("[data-key=Escape]");
      if (back) back.click(); else if (active && active.blur) active.blur();
    }
  }
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (one("dialog[open]")) return;
    if (event.key === "Escape") { leave(); return; }
    if (event.target.matches("input, select, textarea")) return;
    if (event.key === "/" && text) { text.focus(); text.select(); }
    else if (event.key === "j") walk(1);
    else if (event.key === "k") walk(-1);
    else if (event.key === "?") one("#help").showModal();
    else if (event.key === "n" || event.key === "p") { const link = one("[data-key=" + event.key + "]"); if (link) link.click(); else return; }
    else return;
    event.preventDefault();
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-action]");
    if (button && button.dataset.action === "theme") nextTheme();
    if (button && button.dataset.action === "help") one("#help").showModal();
    const opener = event.target.closest(".span .open");
    if (opener && !event.ctrlKey && !event.metaKey && !event.shiftKey) select(opener);
    for (const menu of all("details[data-menu][open]")) if (!menu.contains(event.target)) menu.open = false;
  });
  document.addEventListener("change", (event) => {
    const form = event.target.closest(".editor");
    if (form && event.target.matches("[data-role]")) fitEditor(form);
  });
  document.addEventListener("toggle", (event) => {
    if (!event.target.matches || !event.target.matches("details[data-menu]") || !event.target.open) return;
    for (const menu of all("details[data-menu][open]")) if (menu !== event.target) menu.open = false;
    const input = one("[name=value], [name=from]", event.target);
    if (input) input.focus();
  }, true);
  document.addEventListener("htmx:afterSwap", (event) => {
    showTimes(event.target);
    if (event.target.id === "span") {
      event.target.scrollTop = 0;
      // Where the panel stands below the spans, what was asked for comes into sight.
      if (matchMedia("(max-width: 1120px)").matches) event.target.scrollIntoView({ block: "start" });
    }
    // An empty list has nothing that could move.
    if (event.target.id === "live" && event.target.hasAttribute("data-when-empty") && one(".newer", event.target)) location.reload();
  });
  document.addEventListener("htmx:responseError", (event) => { if (event.detail.xhr.status === 401) location.reload(); });

  showTheme();
  showTimes(document);
  for (const form of all(".editor")) if (one("[data-role=field]", form)) fitEditor(form);
})();
