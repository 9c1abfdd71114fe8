/* Draws the boxes and masks of an answer over the image of its request. */
"use strict";

const playgroundRegions = (() => {
  const HUES = 8;
  const SVG = "http://www.w3.org/2000/svg";
  const LISTED = 50;

  const hueOf = (labels) => {
    const names = [...new Set(labels)].sort();
    return (label) => names.indexOf(label) % HUES;
  };

  const legend = (entries, hue) => {
    const list = document.createElement("ul");
    list.className = "legend";
    for (const entry of entries.slice(0, LISTED)) {
      const item = document.createElement("li");
      const dot = document.createElement("span");
      dot.className = `dot hue-${hue(entry.label)}`;
      const score = typeof entry.score === "number" ? ` ${entry.score.toFixed(3)}` : "";
      item.append(dot, `${entry.label}${score}`);
      list.append(item);
    }
    if (entries.length > LISTED) list.append(`and ${entries.length - LISTED} more`);
    return list;
  };

  const rectangle = (entry, hue) => {
    const { xmin, ymin, xmax, ymax } = entry.box;
    const box = document.createElementNS(SVG, "rect");
    const sides = { x: xmin, y: ymin, width: Math.max(0, xmax - xmin), height: Math.max(0, ymax - ymin) };
    for (const [name, value] of Object.entries(sides)) box.setAttribute(name, value);
    box.setAttribute("class", `region hue-${hue(entry.label)}`);
    const title = document.createElementNS(SVG, "title");
    title.textContent = entry.label;
    box.append(title);
    return box;
  };

  const boxesOver = (image, entries, hue) => {
    const layer = document.createElementNS(SVG, "svg");
    layer.setAttribute("viewBox", `0 0 ${image.naturalWidth} ${image.naturalHeight}`);
    layer.setAttribute("preserveAspectRatio", "none");
    layer.setAttribute("class", "drawn-over");
    layer.setAttribute("role", "img");
    layer.setAttribute("aria-label", `${entries.length} boxes`);
    layer.append(...entries.map((entry) => rectangle(entry, hue)));
    return layer;
  };

  /* Return the color of a hue from the style sheet. */
  const colorOf = (number) => {
    const probe = document.createElement("span");
    probe.className = `hue-${number}`;
    document.body.append(probe);
    const color = getComputedStyle(probe).color;
    probe.remove();
    return color;
  };

  const maskImage = (entry) => {
    const bytes = Uint8Array.from(atob(entry.mask), (letter) => letter.charCodeAt(0));
    return createImageBitmap(new Blob([bytes], { type: "image/png" }));
  };

  /* Draw masks: white pixels get the color of their label, all others are transparent. */
  const masksOver = async (image, entries, hue) => {
    const scale = Math.min(1, 1024 / Math.max(image.naturalWidth, image.naturalHeight));
    const layer = document.createElement("canvas");
    layer.width = Math.max(1, Math.round(image.naturalWidth * scale));
    layer.height = Math.max(1, Math.round(image.naturalHeight * scale));
    layer.className = "drawn-over";
    layer.setAttribute("role", "img");
    layer.setAttribute("aria-label", `${entries.length} masks`);
    const brush = layer.getContext("2d");
    for (const entry of entries) {
      const stamp = new OffscreenCanvas(layer.width, layer.height);
      const context = stamp.getContext("2d");
      context.drawImage(await maskImage(entry), 0, 0, stamp.width, stamp.height);
      const pixels = context.getImageData(0, 0, stamp.width, stamp.height);
      for (let at = 0; at < pixels.data.length; at += 4) pixels.data[at + 3] = pixels.data[at] > 127 ? 150 : 0;
      context.putImageData(pixels, 0, 0);
      context.globalCompositeOperation = "source-in";
      context.fillStyle = colorOf(hue(entry.label));
      context.fillRect(0, 0, stamp.width, stamp.height);
      brush.drawImage(stamp, 0, 0);
    }
    return layer;
  };

  /* Return a figure: the image with the entries drawn over it, and their labels and scores. */
  const draw = async (kind, entries, file) => {
    const hue = hueOf(entries.map((entry) => entry.label));
    const figure = document.createElement("figure");
    figure.className = "media";
    const drawn = document.createElement("span");
    drawn.className = "drawn";
    const image = await playgroundMedia.load(file, file.name ?? "Image");
    drawn.append(image, kind === "boxes" ? boxesOver(image, entries, hue) : await masksOver(image, entries, hue));
    figure.append(drawn, entries.length ? legend(entries, hue) : "The model found no regions.");
    return figure;
  };

  return { draw };
})();
