/* Answers of the playground, drawn by the modality of the task's output. */
"use strict";

const playgroundResults = (() => {
  const bar = (label, score) => {
    const row = document.createElement("div");
    row.className = "score";
    const name = document.createElement("span");
    name.textContent = label;
    const meter = document.createElement("meter");
    meter.max = 1;
    meter.value = score;
    meter.setAttribute("aria-label", label);
    const value = document.createElement("span");
    value.className = "mono";
    value.textContent = score.toFixed(3);
    row.append(name, meter, value);
    return row;
  };

  const scoresOf = (answer) => {
    const first = answer.data?.[0]?.scores ?? answer;
    return Array.isArray(first?.[0]) ? first[0] : first;
  };

  const image = (entry) => {
    const bytes = Uint8Array.from(atob(entry.b64_json), (letter) => letter.charCodeAt(0));
    const blob = new Blob([bytes], { type: "image/png" });
    const figure = playgroundMedia.element(blob, "Generated image");
    const caption = document.createElement("figcaption");
    caption.className = "turn-foot sub";
    if (entry.seed !== undefined) caption.append(`Seed ${entry.seed}`);
    caption.append(playgroundFoot.download(blob, "image"));
    figure.append(caption);
    return figure;
  };

  const ranked = (answer, documents) => {
    const list = document.createElement("ol");
    list.className = "ranked";
    for (const result of answer.results) {
      const item = document.createElement("li");
      item.append(bar(documents[result.index] ?? `Document ${result.index}`, result.relevance_score));
      list.append(item);
    }
    return list;
  };

  /* Return the request's text with the passages that the answer marks. */
  const marked = (answer, input) => {
    const letters = [...input];
    const parts = [];
    let at = 0;
    for (const each of [...answer].sort((a, b) => a.start - b.start)) {
      if (each.start < at) continue;
      parts.push(letters.slice(at, each.start).join(""));
      const mark = document.createElement("mark");
      mark.className = "passage";
      const label = document.createElement("span");
      label.className = "passage-label";
      label.textContent = `${each.entity_group ?? each.entity ?? "answer"} ${each.score.toFixed(2)}`;
      mark.append(letters.slice(each.start, each.end).join(""), label);
      parts.push(mark);
      at = each.end;
    }
    return [...parts, letters.slice(at).join("")];
  };

  const text = (words) => document.createTextNode(words);

  /* Return the only value whose name has this ending, such as `translation_text`. */
  const onlyNamed = (answer, ending) => {
    const names = Object.keys(answer).filter((name) => name.endsWith(ending));
    return names.length === 1 ? answer[names[0]] : undefined;
  };

  const draw = (output, answer, documents, numbers, input) => {
    if (output === "series" && answer.predictions) return answer.predictions.map((each) => playgroundSeries.figure(numbers, each));
    if (output === "label" && Array.isArray(scoresOf(answer))) return scoresOf(answer).map((each) => bar(each.label, each.score));
    if (output === "image" && answer.data) return answer.data.map(image);
    if (output === "ranking" && answer.results) return [ranked(answer, documents)];
    if (output === "spans" && input) return marked([answer].flat(), input);
    if (output === "vector") {
      const vector = answer.data[0].embedding;
      return [text(`${vector.length} dimensions\n[${vector.slice(0, 8).map((v) => v.toFixed(4)).join(", ")}, …]`)];
    }
    if (output === "text") {
      const first = [answer].flat()[0] ?? {};
      const written = first.text ?? first.answer ?? onlyNamed(first, "_text");
      if (typeof written === "string") return [text(written)];
    }
    return [text(JSON.stringify(answer, null, 2))];
  };

  /* Fill `element` with the answer in `response`; return its usage, or null. */
  const show = async (response, output, element, documents, numbers, file, input) => {
    const type = response.headers.get("content-type") ?? "";
    if (!type.startsWith("application/json")) {
      element.replaceChildren(playgroundMedia.element(await response.blob(), "Answer"));
      return null;
    }
    const answer = await response.json();
    const isRegions = (output === "boxes" || output === "masks") && Array.isArray(answer);
    if (isRegions && file) element.replaceChildren(await playgroundRegions.draw(output, answer, file));
    else element.replaceChildren(...draw(output, answer, documents, numbers, input));
    return answer.usage ?? null;
  };

  return { show };
})();
