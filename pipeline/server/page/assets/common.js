// What the scripts of the page of `reelbank serve` are made of: times, elements, requests, the
// timeline. Knows no page.
const reelbank = (() => {
  "use strict";
  const formatClock = (seconds) => {
    const whole = Math.max(0, Math.floor(seconds));
    const h = Math.floor(whole / 3600), m = Math.floor(whole / 60) % 60;
    const two = (n) => String(n).padStart(2, "0");
    return h ? `${h}:${two(m)}:${two(whole % 60)}` : `${two(m)}:${two(whole % 60)}`;
  };
  const formatBytes = (n) => {
    if (n >= 1e9) return `${(n / 1e9).toFixed(1)} GB`;
    return n >= 1e6 ? `${(n / 1e6).toFixed(1)} MB` : `${Math.round(n / 1e3)} kB`;
  };
  const element = (tag, attributes = {}, text = "") => {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.textContent = text;
    return node;
  };
  const errorMessage = (reply, fallback) => (reply.error && reply.error.message) || fallback;
  const requestJson = async (method, path, body, headers = {}) => {
    const sent = body === undefined ? {} : {
      headers: { "Content-Type": "application/json", ...headers }, body: JSON.stringify(body),
    };
    const response = await fetch(path, { method, headers, ...sent });
    const reply = await response.json().catch(() => ({}));
    if (!response.ok) {
      const error = new Error(errorMessage(reply, `The server answered ${response.status}.`));
      error.status = response.status;
      throw error;
    }
    return reply;
  };
  // told: gets what to say of it, whether that is bad, and the share that is sent; done: gets the
  // server's reply
  const upload = (file, path, told, done, headers = {}, fields = {}) => {
    const form = new FormData();
    for (const [name, value] of Object.entries(fields)) form.append(name, value);
    form.append("file", file);
    const request = new XMLHttpRequest();
    request.upload.onprogress = (event) => {
      const share = event.loaded / event.total;
      told(`Sending ${file.name}: ${Math.round(100 * share)} %`, false, share);
    };
    request.onload = () => {
      let reply = {};
      try { reply = JSON.parse(request.responseText); } catch { /* reported below */ }
      if (request.status === 200) return done(reply);
      told(errorMessage(reply, "The video could not be sent."), true);
    };
    request.onerror = () => told("The video could not be sent: the connection broke off.", true);
    request.open("POST", path);
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.send(form);
    told(`Sending ${file.name}…`, false, 0);
  };
  // bars: [class, start, end] in seconds, the playhead at last; length: of the track, in seconds
  const drawTrack = (track, ticks, length, bars) => {
    const percent = (seconds) => `${((100 * seconds) / length).toFixed(3)}%`;
    const nodes = bars.map(([kind, start, end]) => {
      const node = element("i", { class: kind });
      node.style.left = percent(start);
      node.style.width = percent(Math.max(Math.min(end, length) - start, 0));
      return node;
    });
    const head = element("i", { class: "head", id: "playhead" });
    head.style.left = "0%";
    track.replaceChildren(...nodes, head);
    const shares = [0, 0.25, 0.5, 0.75, 1];
    ticks.replaceChildren(...shares.map((share) => element("span", {}, formatClock(share * length))));
  };
  const thumbButton = (second, src, isHot = false) => {
    const button = element("button", {
      type: "button",
      class: isHot ? "thumb hot" : "thumb",
      "data-start": second,
      "aria-label": `Show ${formatClock(second)}`,
    });
    button.append(
      element("img", { src, alt: "", loading: "lazy" }), element("span", {}, formatClock(second)),
    );
    return button;
  };
  return {
    formatClock, formatBytes, element, errorMessage, requestJson, upload, drawTrack, thumbButton,
  };
})();
