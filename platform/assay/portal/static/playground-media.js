/* Files of the playground: choosing, dropping, recording and showing them. */
"use strict";

const playgroundMedia = (() => {
  const RATE = 16000;
  let chosen = null;
  let figure = null;

  /* A mono WAV file of 16-bit samples, which every speech model reads. */
  const wav = (samples, rate) => {
    const view = new DataView(new ArrayBuffer(44 + samples.length * 2));
    const text = (at, word) => [...word].forEach((letter, index) => view.setUint8(at + index, letter.charCodeAt(0)));
    text(0, "RIFF");
    view.setUint32(4, 36 + samples.length * 2, true);
    text(8, "WAVEfmt ");
    view.setUint32(16, 16, true);
    view.setUint16(20, 1, true);
    view.setUint16(22, 1, true);
    view.setUint32(24, rate, true);
    view.setUint32(28, rate * 2, true);
    view.setUint16(32, 2, true);
    view.setUint16(34, 16, true);
    text(36, "data");
    view.setUint32(40, samples.length * 2, true);
    samples.forEach((value, index) => view.setInt16(44 + index * 2, Math.max(-1, Math.min(1, value)) * 32767, true));
    return new File([view.buffer], "recording.wav", { type: "audio/wav" });
  };

  const decoded = async (file) => {
    const context = new OfflineAudioContext(1, 1, RATE);
    return (await context.decodeAudioData(await file.arrayBuffer())).getChannelData(0);
  };

  /* Loudest sample of each column, mirrored around the middle. */
  const waveform = async (file, canvas) => {
    const samples = await decoded(file);
    const brush = canvas.getContext("2d");
    const columns = canvas.width;
    brush.fillStyle = getComputedStyle(canvas).color;
    for (let column = 0; column < columns; column += 2) {
      let peak = 0;
      const end = Math.floor(((column + 2) * samples.length) / columns);
      for (let at = Math.floor((column * samples.length) / columns); at < end; at += 1) peak = Math.max(peak, Math.abs(samples[at]));
      const height = Math.max(1, peak * canvas.height);
      brush.fillRect(column, (canvas.height - height) / 2, 1, height);
    }
  };

  /* An image, a player, or a player with its waveform. */
  const element = (blob, label) => {
    const box = document.createElement("figure");
    box.className = "media";
    const url = URL.createObjectURL(blob);
    if (blob.type.startsWith("audio/")) {
      const canvas = document.createElement("canvas");
      canvas.width = 560;
      canvas.height = 56;
      canvas.className = "waveform";
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `Waveform of ${label}`);
      waveform(blob, canvas).catch(() => canvas.remove());
      const player = document.createElement("audio");
      player.controls = true;
      player.src = url;
      box.append(canvas, player);
    } else if (blob.type.startsWith("video/")) {
      const player = document.createElement("video");
      player.controls = true;
      player.src = url;
      player.setAttribute("aria-label", label);
      box.append(player);
    } else {
      const image = document.createElement("img");
      image.src = url;
      image.alt = label;
      box.append(image);
    }
    return box;
  };

  /* Return the image element of a blob, once it is decoded. */
  const load = async (blob, label) => {
    const image = document.createElement("img");
    image.src = URL.createObjectURL(blob);
    image.alt = label;
    await image.decode();
    return image;
  };

  const choose = (file, preview) => {
    chosen = file;
    figure?.remove();
    figure = file ? element(file, file.name) : null;
    if (figure) preview.replaceChildren(figure);
    else preview.replaceChildren();
  };

  const record = (button, preview) => {
    let recorder = null;
    const label = button.querySelector("span");
    button.addEventListener("click", async () => {
      if (recorder) {
        recorder.stop();
        return;
      }
      let stream;
      try {
        stream = await navigator.mediaDevices.getUserMedia({ audio: true });
      } catch {
        preview.textContent = "The microphone is not available. Choose a file.";
        return;
      }
      const parts = [];
      recorder = new MediaRecorder(stream);
      recorder.addEventListener("dataavailable", (event) => parts.push(event.data));
      recorder.addEventListener("stop", async () => {
        stream.getTracks().forEach((track) => track.stop());
        recorder = null;
        label.textContent = "Record";
        choose(wav(await decoded(new Blob(parts)), RATE), preview);
      });
      recorder.start();
      label.textContent = "Stop recording";
    });
  };

  /* Return the chosen file for a JSON body: in base64, and as a data URL. */
  const encoded = () => new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve({ $file: reader.result.split(",")[1], $file_url: reader.result }));
    reader.addEventListener("error", () => reject(new Error("The file cannot be read.")));
    reader.readAsDataURL(chosen);
  });

  const setUp = () => {
    const input = document.getElementById("file");
    const preview = document.getElementById("file-preview");
    const zone = document.querySelector(".drop-zone");
    input.addEventListener("change", () => choose(input.files[0] ?? null, preview));
    for (const name of ["dragover", "dragleave", "drop"]) {
      zone.addEventListener(name, (event) => {
        event.preventDefault();
        zone.classList.toggle("drop-zone-over", name === "dragover");
        if (name === "drop" && event.dataTransfer.files[0]) choose(event.dataTransfer.files[0], preview);
      });
    }
    record(document.getElementById("record"), preview);
  };

  const clear = () => {
    document.getElementById("file").value = "";
    choose(null, document.getElementById("file-preview"));
  };

  return { setUp, element, encoded, load, file: () => chosen, clear };
})();
