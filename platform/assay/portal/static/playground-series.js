/* Forecasts of the playground: the history, the median, and the range between the outer quantiles. */
"use strict";

const playgroundSeries = (() => {
  const SHOWN = 120;
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  /* Return the numbers of a text, separated by spaces, commas or semicolons. */
  const parse = (text) =>
    text.split(/[\s,;]+/).filter(Boolean).map((word) => {
      const value = Number(word);
      if (!Number.isFinite(value)) throw new Error(`“${word}” is not a number.`);
      return value;
    });

  const levels = (prediction) =>
    Object.keys(prediction).filter((name) => Number(name) > 0 && Number(name) < 1).sort((a, b) => Number(a) - Number(b));

  const datasets = (history, prediction) => {
    const last = history.length - 1;
    const ahead = (values) => [{ x: last, y: history[last] }, ...values.map((y, index) => ({ x: last + 1 + index, y }))];
    const quantiles = levels(prediction);
    const low = quantiles[0];
    const high = quantiles[quantiles.length - 1];
    const middle = prediction["0.5"] ?? prediction.mean;
    const line = { pointRadius: 0, borderWidth: 2 };
    const band = { pointRadius: 0, borderWidth: 0, backgroundColor: `${css("--assay-series-2")}33` };
    const from = Math.max(0, history.length - SHOWN);
    const sets = [{ ...line, label: "history", data: history.slice(from).map((y, index) => ({ x: from + index, y })), borderColor: css("--assay-series-1") }];
    sets.push({ ...line, label: "median", data: ahead(middle), borderColor: css("--assay-series-2") });
    if (low !== high) {
      sets.push({ ...band, label: `${low} to ${high}`, data: ahead(prediction[high]), fill: "+1" });
      sets.push({ ...band, label: "", data: ahead(prediction[low]), fill: false });
    }
    return sets;
  };

  const table = (prediction) => {
    const box = document.createElement("details");
    const title = document.createElement("summary");
    title.textContent = "Numbers";
    const numbers = document.createElement("pre");
    numbers.textContent = JSON.stringify(prediction, null, 2);
    box.append(title, numbers);
    return box;
  };

  const axis = () => ({ grid: { color: css("--assay-grid") }, ticks: { color: css("--assay-muted"), maxTicksLimit: 8 } });

  /* Return a chart of one forecast, which is drawn once it is in the page. */
  const figure = (history, prediction) => {
    const box = document.createElement("figure");
    box.className = "media";
    const field = document.createElement("div");
    field.className = "chart";
    const canvas = document.createElement("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `Forecast of ${prediction.mean.length} steps after ${history.length} values`);
    field.append(canvas);
    box.append(field, table(prediction));
    requestAnimationFrame(() => {
      new Chart(canvas, {
        type: "line",
        data: { datasets: datasets(history, prediction) },
        options: {
          responsive: true,
          maintainAspectRatio: false,
          animation: false,
          scales: { x: { ...axis(), type: "linear", bounds: "data" }, y: axis() },
          plugins: { legend: { position: "bottom", labels: { color: css("--assay-text"), filter: (item) => Boolean(item.text) } } },
        },
      });
    });
    return box;
  };

  return { parse, figure };
})();
