/* The line under an answer: its duration, use and cost, and a download link. */
"use strict";

const playgroundFoot = (() => {
  const RECORDED_MS = 1000;
  const ATTEMPTS = 8;

  const pause = (milliseconds) => new Promise((done) => { setTimeout(done, milliseconds); });

  /* Return the use and cost of a request, which the ledger has some seconds after the answer; else null. */
  const costOf = async (address, requestId) => {
    for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
      await pause(RECORDED_MS);
      const response = await fetch(`${address}?request=${encodeURIComponent(requestId)}`, { headers: { Accept: "application/json" } });
      if (!response.ok || response.redirected) return null;
      const known = await response.json();
      if (known.cost) return known;
    }
    return null;
  };

  const extensionOf = (type) => {
    const kind = type.split(";")[0];
    return { "application/json": "json", "text/plain": "txt", "audio/wav": "wav", "audio/mpeg": "mp3" }[kind] ?? kind.split("/")[1] ?? "bin";
  };

  /* Return a link that saves `blob` as a file. */
  const download = (blob, name) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${name}.${extensionOf(blob.type)}`;
    link.textContent = "Download";
    link.setAttribute("aria-label", `Download ${link.download}`);
    return link;
  };

  /* Add the line to `talk`. With `address`, use and cost are added once they are known. */
  const add = (talk, { seconds, blob, name, requestId, address }) => {
    const foot = document.createElement("p");
    foot.className = "turn-foot sub";
    const use = document.createElement("span");
    use.textContent = `${seconds.toFixed(2)} s`;
    foot.append(use, download(blob, name));
    talk.append(foot);
    if (!address || !requestId) return;
    costOf(address, requestId).then((known) => {
      if (known) use.textContent += ` · ${known.use} · ${known.cost}`;
    }).catch(() => {});
  };

  return { add, download };
})();
