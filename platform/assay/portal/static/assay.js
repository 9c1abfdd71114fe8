/* Features without htmx: menu, theme, copying, confirmations, charts, following a job, keys. */
"use strict";

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const announce = (text) => {
  const region = document.getElementById("announcements");
  if (region) region.textContent = text;
};

/* ---- menu, theme, copying, confirmations ---- */

function markTheme() {
  const choice = document.documentElement.dataset.themeChoice;
  document.querySelectorAll("[data-theme-choice]").forEach((button) => {
    if (button !== document.documentElement) {
      button.setAttribute("aria-pressed", String(button.dataset.themeChoice === choice));
    }
  });
}

async function copy(button) {
  const target = button.dataset.copyFrom && document.getElementById(button.dataset.copyFrom);
  const text = target ? target.textContent : button.dataset.copy;
  try {
    await navigator.clipboard.writeText(text);
    button.classList.add("copied");
    announce("Copied.");
    setTimeout(() => button.classList.remove("copied"), 1500);
  } catch {
    announce("Copying is not allowed here; select the text instead.");
  }
}

function confirmFirst(event) {
  const form = event.target;
  const dialog = document.getElementById("confirmation");
  if (!form.dataset.confirm || form.dataset.confirmed || !dialog) return;
  event.preventDefault();
  const submitter = event.submitter;
  dialog.querySelector("[data-confirm-text]").textContent = form.dataset.confirm;
  const go = dialog.querySelector("[data-confirm-go]");
  go.textContent = form.dataset.confirmLabel || "Continue";
  dialog.returnValue = "";
  dialog.addEventListener(
    "close",
    () => {
      if (dialog.returnValue !== "go") return;
      form.dataset.confirmed = "yes";
      form.requestSubmit(submitter);
    },
    { once: true }
  );
  dialog.showModal();
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.copy !== undefined || button.dataset.copyFrom) copy(button);
  if (button.dataset.themeChoice) {
    window.assayTheme.set(button.dataset.themeChoice);
    markTheme();
  }
  if (button.id === "menu-button") {
    const open = document.body.classList.toggle("menu-open");
    button.setAttribute("aria-expanded", String(open));
  }
});
document.addEventListener("submit", confirmFirst);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && document.body.classList.contains("menu-open")) {
    document.getElementById("menu-button").click();
    document.getElementById("menu-button").focus();
  }
});
document.addEventListener("change", (event) => {
  if (event.target.matches("[data-submit-on-change]")) event.target.form.requestSubmit();
});

/* ---- filters of lists, which apply as they are chosen ---- */

const TYPING_MS = 250;
let typing = 0;

document.addEventListener("input", (event) => {
  if (!event.target.matches("[data-filter=typed] input[type=search]")) return;
  clearTimeout(typing);
  typing = setTimeout(() => event.target.form.requestSubmit(), TYPING_MS);
});
document.addEventListener("htmx:beforeSwap", (event) => {
  const { requestConfig, xhr, pathInfo } = event.detail;
  if (!requestConfig.elt.matches("[data-filter]")) return;
  if (xhr.status < 400 && xhr.responseText.includes('id="results"')) return;
  // Signed out, or an error: show that page.
  event.detail.shouldSwap = false;
  location.href = pathInfo.finalRequestPath;
});
document.addEventListener("htmx:afterSettle", (event) => {
  const count = event.detail.elt.id === "results" && event.detail.elt.querySelector("[data-count]");
  if (count) announce(count.textContent.trim());
});

/* ---- forms that act on selected rows: of this page of the list, and of its other pages ---- */

/* Without a stored selection, the rows that the server has checked are selected. */
const selectionKey = (form) => `assay-selected ${location.pathname} ${form.dataset.choose}`;
const boxesOf = (form) => [...form.elements].filter((field) => field.type === "checkbox" && field.name === form.dataset.choose);

function selectionOf(form) {
  const stored = sessionStorage.getItem(selectionKey(form));
  return new Set(stored ? JSON.parse(stored) : boxesOf(form).filter((box) => box.checked).map((box) => box.value));
}

/* Return the selected rows that are on other pages. */
function selectedElsewhere(form) {
  const here = new Set(boxesOf(form).map((box) => box.value));
  return [...selectionOf(form)].filter((value) => !here.has(value));
}

/* Enable the buttons once enough rows are selected, and no more rows than they take. */
function choose(form) {
  const boxes = boxesOf(form);
  const selection = selectionOf(form);
  const full = selection.size >= Number(form.dataset.most);
  boxes.forEach((box) => {
    box.checked = selection.has(box.value);
    box.disabled = !box.checked && full;
  });
  form.querySelectorAll("button[type=submit]").forEach((button) => {
    button.disabled = selection.size < Number(form.dataset.least);
  });
  const elsewhere = selectedElsewhere(form).length;
  form.querySelector("[data-chosen]").textContent = selection.size
    ? `${selection.size} selected${elsewhere ? ` (${elsewhere} on other pages)` : ""}`
    : form.dataset.hint;
  form.querySelector("[data-choose-none]").hidden = !selection.size;
  const page = form.querySelector("[data-choose-page]");
  if (!page) return;
  const count = boxes.filter((box) => box.checked).length;
  page.checked = count > 0 && count === boxes.length;
  page.indeterminate = count > 0 && count < boxes.length;
}

function select(form, values) {
  sessionStorage.setItem(selectionKey(form), JSON.stringify([...values].slice(0, Number(form.dataset.most))));
  choose(form);
}

function chooseAll(scope) {
  scope.querySelectorAll("form[data-choose]").forEach(choose);
}

document.addEventListener("change", ({ target }) => {
  const form = target.form;
  if (!form?.matches("[data-choose]")) return;
  const changed = target.matches("[data-choose-page]") ? boxesOf(form).map((box) => box.value) : [target.value];
  const selection = selectionOf(form);
  for (const value of changed) {
    if (target.checked) selection.add(value);
    else selection.delete(value);
  }
  select(form, selection);
});
document.addEventListener("click", (event) => {
  const form = event.target.closest("[data-choose-none]")?.form;
  if (form) select(form, []);
});
document.addEventListener("formdata", ({ target, formData }) => {
  if (!target.matches("[data-choose]")) return;
  selectedElsewhere(target).forEach((value) => formData.append(target.dataset.choose, value));
  // A comparison changes nothing: its rows stay selected for the next one.
  if (target.method === "post") sessionStorage.removeItem(selectionKey(target));
});
// A page that the browser restores may have other boxes checked.
window.addEventListener("pageshow", () => chooseAll(document));
document.addEventListener("htmx:afterSettle", (event) => chooseAll(event.detail.elt));

/* ---- charts ---- */

const SERIES = ["--assay-series-1", "--assay-series-2", "--assay-series-3", "--assay-series-4"];
// Lines beyond the last color repeat the colors with dashes.
const DASHES = [5, 4];
const charts = new Map();

function chartOptions(spec) {
  const grid = css("--assay-grid");
  const axis = { grid: { color: grid }, border: { color: grid }, ticks: { color: css("--assay-muted"), font: { size: 11 } } };
  const titled = (text) => ({ ...axis, title: { display: Boolean(text), text, color: css("--assay-muted"), font: { size: 11 } } });
  return {
    responsive: true,
    maintainAspectRatio: false,
    animation: false,
    layout: { padding: { top: spec.marks?.length ? 16 : 0 } },
    interaction: { mode: "index", intersect: false },
    // A line of one point is invisible without a marker.
    elements: { point: { radius: (context) => (spec.points || context.dataset.data.length === 1 ? 3 : 0), hitRadius: 8 }, line: { borderWidth: 2, tension: spec.smooth ? 0.25 : 0 } },
    plugins: {
      legend: { display: spec.series.length > 1, position: "bottom", labels: { color: css("--assay-text"), boxWidth: 10, boxHeight: 10, usePointStyle: true, pointStyle: spec.type === "bar" ? "rectRounded" : "line", pointStyleWidth: 18, generateLabels: legendLabels } },
      tooltip: { boxPadding: 4 },
    },
    scales: {
      x: { ...titled(spec.x), stacked: Boolean(spec.stacked), type: spec.linear ? "linear" : "category", bounds: "data", min: spec.linear ? 0 : undefined, grid: { display: false }, ticks: { ...axis.ticks, maxRotation: 0, autoSkip: true, maxTicksLimit: 10 } },
      y: { ...titled(spec.y), stacked: Boolean(spec.stacked), beginAtZero: Boolean(spec.zero), ticks: { ...axis.ticks, maxTicksLimit: 6 } },
    },
  };
}

/* Dashed lines where something changed, with the numbers of the changes above them. */
function drawMarks(chart, marks) {
  const { ctx, chartArea, scales } = chart;
  ctx.save();
  ctx.strokeStyle = ctx.fillStyle = css("--assay-muted");
  ctx.font = `11px ${Chart.defaults.font.family}`;
  ctx.textAlign = "center";
  ctx.setLineDash([4, 3]);
  for (const { index, label } of marks) {
    const x = scales.x.getPixelForValue(index);
    ctx.beginPath();
    ctx.moveTo(x, chartArea.top);
    ctx.lineTo(x, chartArea.bottom);
    ctx.stroke();
    const half = ctx.measureText(label).width / 2;
    ctx.fillText(label, Math.min(x, chart.width - half), chartArea.top - 4);
  }
  ctx.restore();
}

/* Name series with a short name by it in the legend, with their dashes; the tooltip has the long name. */
function legendLabels(chart) {
  return Chart.defaults.plugins.legend.labels.generateLabels(chart).map((label) => {
    const { short, borderDash } = chart.data.datasets[label.datasetIndex];
    return short ? { ...label, text: short, lineDash: borderDash, lineWidth: 2 } : label;
  });
}

function draw(canvas) {
  const source = document.getElementById(canvas.dataset.chart);
  if (!source || !window.Chart) return;
  const spec = JSON.parse(source.textContent);
  Chart.defaults.font.family = css("--tblr-font-sans-serif") || "sans-serif";
  charts.get(canvas)?.destroy();
  const datasets = spec.series.map((series, index) => {
    const place = series.color ?? index;
    const color = css(SERIES[place % SERIES.length]);
    const dashed = series.dashed || place >= SERIES.length;
    const radius = series.dashed ? 0 : spec.marked && spec.labels.map((_, at) => (spec.marked.includes(at) ? 6 : 3));
    const label = series.short ? series.name : series.name.replaceAll("_", " ");
    return { name: series.name, short: series.short, label, data: series.data, borderColor: color, borderDash: dashed ? DASHES : [], pointRadius: radius, backgroundColor: spec.type === "bar" ? color : color + "22", fill: series.fill ?? (spec.fill || false), borderRadius: 3, maxBarThickness: 34, spanGaps: !spec.gaps };
  });
  const marks = { id: "marks", afterDatasetsDraw: (chart) => drawMarks(chart, spec.marks || []) };
  const chart = new Chart(canvas, { type: spec.type, data: { labels: spec.labels, datasets }, options: chartOptions(spec), plugins: [marks] });
  charts.set(canvas, chart);
}

function drawAll(scope) {
  scope.querySelectorAll("canvas[data-chart]").forEach(draw);
}

/* ---- polling: not while the tab is hidden, less often while the server refuses ---- */

const POLL_MS = 1500;
const BACK_OFF_MS = 4000;
const BACK_OFF_MAX_MS = 60000;
const refusing = new Map();

function mayPoll(address) {
  return !document.hidden && Date.now() >= (refusing.get(address)?.until ?? 0);
}

function polled(address, succeeded) {
  if (succeeded) {
    refusing.delete(address);
    return;
  }
  const times = (refusing.get(address)?.times ?? 0) + 1;
  const wait = Math.min(BACK_OFF_MS * 2 ** (times - 1), BACK_OFF_MAX_MS);
  // Random, so that many tabs do not return in the same second.
  refusing.set(address, { times, until: Date.now() + wait * (1 + Math.random() / 2) });
}

const polls = (element) => Boolean(element.getAttribute("hx-trigger")?.startsWith("every"));

document.addEventListener("htmx:beforeRequest", (event) => {
  if (polls(event.detail.elt) && !mayPoll(event.detail.requestConfig.path)) event.preventDefault();
});
document.addEventListener("htmx:afterRequest", (event) => {
  // After a success, the element that sent the request has been replaced.
  const { elt, requestConfig, successful } = event.detail;
  if (successful || polls(elt)) polled(requestConfig.path, successful);
});

/* ---- following a job: curve and log from one JSON endpoint ---- */

function appendPoint(chart, step, values) {
  for (const [name, value] of Object.entries(values)) {
    const series = chart.data.datasets.find((candidate) => candidate.name === name);
    if (series && series.data.at(-1)?.x !== step) series.data.push({ x: step, y: value });
  }
}

function follow(panel) {
  const canvas = panel.querySelector("canvas[data-chart]");
  const log = panel.querySelector("[data-log]");
  const count = panel.querySelector("[data-log-count]");
  let after = Number(panel.dataset.after);
  const address = panel.dataset.follow;
  const tick = async () => {
    if (!mayPoll(address)) {
      setTimeout(tick, POLL_MS);
      return;
    }
    let reply;
    try {
      const response = await fetch(`${address}?after=${after}`, { headers: { Accept: "application/json" } });
      if (response.status >= 400 && response.status < 500) return;
      reply = await response.json();
      polled(address, response.ok);
    } catch {
      polled(address, false);
    }
    if (!reply) {
      setTimeout(tick, POLL_MS);
      return;
    }
    const chart = charts.get(canvas);
    const hasSeries = chart && Object.keys(reply.names).every((name) => chart.data.datasets.some((d) => d.name === name));
    if (reply.events.some((event) => event.points) && !hasSeries) {
      location.reload();
      return;
    }
    for (const event of reply.events) {
      after = event.id;
      if (event.points && chart) appendPoint(chart, event.step, event.points);
      if (event.message && log) {
        const atEnd = log.scrollTop + log.clientHeight > log.scrollHeight - 40;
        log.append(`${event.at}  ${event.message}\n`);
        const lines = parseInt(count.textContent, 10) + 1;
        count.textContent = `${lines} line${lines === 1 ? "" : "s"}`;
        if (atEnd) log.scrollTop = log.scrollHeight;
      }
    }
    if (reply.events.length && chart) chart.update("none");
    // A pause, for example, changes the actions on the page.
    if (reply.live && reply.state === panel.dataset.state) setTimeout(tick, POLL_MS);
    else location.reload();
  };
  if (log) log.scrollTop = log.scrollHeight;
  if (panel.dataset.live === "yes") setTimeout(tick, 1000);
}

/* ---- keys on the review page: see its “Keys” ---- */

const KEYS_OFF = "assay-keys-off";
const STOPS = "[data-stop], .check, details.anchor";
const EDITED = "input, textarea, select, [contenteditable]";

function openAncestors(element) {
  for (let each = element; each; each = each.parentElement) {
    if (each.tagName === "DETAILS") each.open = true;
  }
}

function step(selector, by) {
  const stops = [...document.querySelectorAll(selector)].filter((stop) => stop.checkVisibility());
  if (!stops.length) return;
  const here = document.activeElement;
  const side = by > 0 ? Node.DOCUMENT_POSITION_FOLLOWING : Node.DOCUMENT_POSITION_PRECEDING;
  const isOnSide = (stop) => here.compareDocumentPosition(stop) & side;
  // Stops can be nested: the last one that contains the focus is the innermost.
  const at = stops.findLastIndex((stop) => stop.contains(here));
  const next = at >= 0 ? at + by : by > 0 ? Math.max(stops.findIndex(isOnSide), 0) : stops.findLastIndex(isOnSide);
  const stop = stops[(next + stops.length) % stops.length];
  const target = stop.tagName === "DETAILS" ? stop.querySelector("summary") : stop;
  if (target === stop) stop.tabIndex = -1;
  target.focus();
}

function comment() {
  const stop = document.activeElement.closest(STOPS);
  const place = stop?.matches("details.anchor") ? stop : stop?.querySelector("details.anchor, .entry-forms details");
  const text = (place || document.querySelector("#conversation > .card-body > details.anchor"))?.querySelector("textarea");
  if (!text) return;
  openAncestors(text);
  text.focus();
}

function finish() {
  const link = document.querySelector("[data-finish]");
  if (!link) return;
  link.click();
  document.querySelector("#decision [name=verdict]:not(:disabled)")?.focus();
}

/* Select the current checklist item for attestation; elsewhere, focus the reasons. */
function attest() {
  const box = document.activeElement.closest(".check")?.querySelector("input[form=attest]");
  if (box) {
    box.checked = !box.checked;
    announce(box.checked ? "Selected." : "Not selected.");
    return;
  }
  document.getElementById("attest-note")?.focus();
}

function approve() {
  const choice = document.querySelector("#verdict-approve:not(:disabled)");
  if (!choice) return;
  choice.checked = true;
  document.getElementById("reason").focus();
}

function leave(box) {
  const stop = box.closest(STOPS) || document.getElementById("main");
  const target = stop.tagName === "DETAILS" ? stop.querySelector("summary") : stop;
  if (target === stop) stop.tabIndex = -1;
  target.focus();
}

const KEYS = {
  j: () => step(STOPS, 1),
  k: () => step(STOPS, -1),
  n: () => step("[data-open]", 1),
  a: attest,
  y: approve,
  c: comment,
  f: finish,
  "?": () => {
    const help = document.querySelector(".keys");
    help.open = !help.open;
    help.querySelector("summary").focus();
  },
};

function pressed(event) {
  if (!document.querySelector("[data-keys]") || localStorage.getItem(KEYS_OFF)) return;
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (event.key === "Escape" && event.target.matches(EDITED)) {
    leave(event.target);
    return;
  }
  if (event.target.closest(EDITED) || document.querySelector("dialog[open]") || !Object.hasOwn(KEYS, event.key)) return;
  event.preventDefault();
  KEYS[event.key]();
}

function targeted() {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (target) openAncestors(target);
}

/* Focus the first invalid field of a form that was refused. */
function focusInvalid() {
  const field = document.querySelector("[aria-invalid=true]");
  if (!field) return;
  openAncestors(field);
  field.focus();
}

document.addEventListener("keydown", pressed);
document.addEventListener("change", (event) => {
  if (!event.target.matches("[data-keys-on]")) return;
  if (event.target.checked) localStorage.removeItem(KEYS_OFF);
  else localStorage.setItem(KEYS_OFF, "yes");
});
window.addEventListener("hashchange", targeted);

document.addEventListener("DOMContentLoaded", () => {
  markTheme();
  document.querySelectorAll("[data-keys-on]").forEach((box) => {
    box.checked = !localStorage.getItem(KEYS_OFF);
  });
  targeted();
  focusInvalid();
  drawAll(document);
  document.querySelectorAll("[data-follow]").forEach(follow);
});
/* ---- the review page's forms: sent by htmx, so that the page does not jump ---- */

const TYPED = "textarea[id], input[id]:not([type=hidden], [type=radio], [type=checkbox])";
let typedElsewhere = [];

document.addEventListener("htmx:beforeSwap", (event) => {
  if (!event.detail.boosted) return;
  const reply = event.detail.xhr;
  if (!reply.responseText.includes('id="main"')) {
    // Signed out, or another kind of page.
    event.detail.shouldSwap = false;
    location.href = reply.responseURL || location.href;
    return;
  }
  // A refusal is a page with the reason: show it.
  if (reply.status >= 400) {
    event.detail.shouldSwap = true;
    event.detail.isError = false;
  }
  const sent = event.detail.requestConfig.elt;
  typedElsewhere = [...document.querySelectorAll(TYPED)]
    .filter((box) => box.value !== box.defaultValue && !sent.contains(box) && box.form !== sent)
    .map((box) => [box.id, box.value]);
});
document.addEventListener("htmx:afterSettle", (event) => {
  if (event.target.id !== "main") return;
  for (const [id, value] of typedElsewhere) {
    const box = document.getElementById(id);
    if (box && !box.value) {
      box.value = value;
      openAncestors(box);
    }
  }
  typedElsewhere = [];
  document.querySelectorAll("[data-keys-on]").forEach((box) => {
    box.checked = !localStorage.getItem(KEYS_OFF);
  });
  announce(document.querySelector("#main .alert[role]")?.textContent.trim() || "");
});
document.addEventListener("assay:theme", () => charts.forEach((_, canvas) => draw(canvas)));
document.addEventListener("htmx:afterSettle", (event) => drawAll(event.detail.elt));
