// The player, the timeline, and the source buttons of the page. Polls /watch/state once a second.
// Knows the element ids of pipeline/demo/page.py, and common.js of the server. Gradio renders the
// conversation; this script only reads its data-... attributes.
(() => {
  "use strict";
  const $ = (id) => document.getElementById(id);
  const { formatClock, formatBytes, element, requestJson, upload, drawTrack, thumbButton } = reelbank;

  let state = {}; // latest answer of /watch/state
  let highlighted = ""; // data-id of the exchange whose spans are highlighted
  let newest = ""; // data-id of the newest exchange
  let pastSecond = null; // second of a live source that is shown instead of the live picture
  let unplayable = ""; // id of a feed whose file this browser cannot play; stills are shown instead
  let capture = null; // MediaStream of this browser's camera or screen
  let pauseAt = null; // second at which a cited span ends
  let thumbsKey = ""; // what the thumbnails were drawn for
  const feedLength = () => Math.max(state.duration || 0, state.now || 0, state.seen_until || 0);

  // ---- requests to the server

  const notify = (text, bad = false) => {
    const status = $("told");
    if (!status) return;
    status.textContent = text;
    status.classList.toggle("bad", bad);
  };
  const post = (path, body) => requestJson("POST", path, body || {});
  const start = async (command) => {
    if (command.browser === undefined) stopCapture();
    notify("Starting…");
    try {
      const feed = await post("watch/start", command);
      notify("");
      await poll();
      return feed;
    } catch (error) {
      notify(error.message, true);
      throw error;
    }
  };

  // ---- sources

  const send = (file) => upload(file, "watch/upload", notify, (reply) => {
    start({ file: reply.file, real_time: $("real-time").checked }).catch(() => {});
  });

  const stopCapture = () => {
    if (capture) capture.getTracks().forEach((track) => track.stop());
    capture = null;
  };
  const openCapture = (kind) => {
    if (kind === "screen") {
      return navigator.mediaDevices.getDisplayMedia({ video: { frameRate: 5 } });
    }
    const video = { width: 1280, height: 720, facingMode: "environment" };
    return navigator.mediaDevices.getUserMedia({ video });
  };
  const share = async (kind) => {
    if (!navigator.mediaDevices) {
      return notify("This browser gives pictures only to pages at https or localhost.", true);
    }
    stopCapture();
    try {
      capture = await openCapture(kind);
    } catch (error) {
      const camera = "There is no camera, or it may not be used.";
      return notify(kind === "camera" ? camera : "The screen may not be shown.", true);
    }
    const mine = capture;
    const feed = await start({ browser: kind }).catch(() => stopCapture());
    if (!feed) return;
    const player = $("player");
    player.srcObject = mine;
    player.controls = false;
    player.play().catch(() => {});
    const onEnded = () => post("watch/stop").catch(() => {});
    mine.getVideoTracks()[0].addEventListener("ended", onEnded);
    await sendPictures(feed, mine, player);
    if (capture === mine) stopCapture();
  };
  const sendPictures = async (feed, mine, player) => {
    const canvas = document.createElement("canvas");
    while (capture === mine && mine.active) {
      if (player.videoWidth) {
        canvas.width = Math.min(640, player.videoWidth);
        canvas.height = Math.round((canvas.width * player.videoHeight) / player.videoWidth);
        canvas.getContext("2d").drawImage(player, 0, 0, canvas.width, canvas.height);
        const body = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.8));
        const path = `watch/frame/${feed.id}`;
        const response = await fetch(path, { method: "POST", body }).catch(() => null);
        if (response && response.status === 404) break; // another feed is current
      }
      await new Promise((done) => setTimeout(done, 400));
    }
  };

  // ---- the player

  const isPlayable = () => state.kind === "file" && unplayable !== state.id;
  const usesStills = () => state.kind === "live" || (state.kind === "file" && !isPlayable());
  const showPlayer = () => {
    const player = $("player"), still = $("still");
    if (!player) return;
    const stills = usesStills(), past = pastSecond !== null;
    player.hidden = !state.id || stills || past;
    still.hidden = !(stills || past);
    $("empty").hidden = Boolean(state.id);
    $("back").hidden = !past;
    $("badge").hidden = !(state.id && state.kind !== "file" && state.state === "running");
    $("badge").textContent = past ? formatClock(pastSecond) : "Live";
    $("badge").classList.toggle("back", past);
    $("back").textContent = state.kind === "file" ? "Back to the newest" : "Back to live";
    if (state.kind === "file" && player.dataset.watch !== state.id) {
      player.dataset.watch = state.id;
      player.srcObject = null;
      player.controls = true;
      player.src = state.media;
      if ($("real-time").checked) player.play().catch(() => {});
    }
    if (state.kind !== "file") player.removeAttribute("src");
  };
  const seek = (seconds, end) => {
    if (isPlayable()) {
      const player = $("player");
      pauseAt = end === undefined ? null : end;
      player.currentTime = seconds;
      player.play().catch(() => {});
    } else {
      pastSecond = seconds;
      $("still").src = `watch/picture/${state.id}?at=${seconds}`;
      $("still").alt = `Picture at ${formatClock(seconds)}`;
      showPlayer();
    }
    $("screen-box").scrollIntoView({ block: "nearest", behavior: "smooth" });
  };
  const refreshStill = () => {
    if (!usesStills() || pastSecond !== null || !state.id || document.hidden) return;
    const next = new Image();
    const query = state.kind === "live" ? `t=${Date.now()}` : `at=${state.seen_until || 0}`;
    next.onload = () => {
      if (pastSecond !== null) return;
      $("still").src = next.src;
      $("still").alt = "Live picture";
    };
    next.src = `watch/picture/${state.id}?${query}`;
  };

  // ---- the timeline

  const spans = (name) => {
    const selector = `#talk .turn[data-id="${highlighted}"]`;
    const exchange = highlighted && document.querySelector(selector);
    return exchange ? JSON.parse(exchange.dataset[name] || "[]") : [];
  };
  const drawTimeline = () => {
    const box = $("timeline");
    if (!box) return;
    const length = feedLength();
    box.hidden = !state.id || length <= 0;
    if (box.hidden) return;
    const segments = state.segments || [];
    drawTrack($("track"), $("ticks"), length, [
      ["seen", 0, state.seen_until || 0],
      ...spans("recalled").map(([a, b]) => ["read", a, b]),
      ...spans("cited").map(([a, b]) => ["cited", a, b]),
      ...segments.slice(1).map(([a]) => ["cut", a, a]),
    ]);
    movePlayhead();
    drawThumbs(length);
  };
  const thumbTimes = (length) => { // [second, cited], cited spans first, gaps filled evenly
    const count = window.innerWidth < 600 ? 4 : 6, end = state.seen_until || 0;
    const middle = ([a, b]) => [Math.min((a + b) / 2, end), true];
    const cited = spans("cited").map(middle).slice(0, count);
    const even = Array.from({ length: count }, (_, i) => [((i + 0.5) * length) / count, false]);
    const step = length / count / 2;
    const isFree = ([t]) => t <= end && cited.every(([c]) => Math.abs(c - t) > step);
    const all = [...cited, ...even.filter(isFree)].sort((x, y) => x[0] - y[0]);
    return all.map(([t, isCited]) => [Math.round(t * 2) / 2, isCited]);
  };
  const thumb = ([second, isCited]) => {
    const item = element("li");
    item.append(thumbButton(second, `watch/picture/${state.id}?at=${second}`, isCited));
    return item;
  };
  const drawThumbs = (length) => {
    const times = thumbTimes(length);
    const key = JSON.stringify([state.id, times]);
    if (key === thumbsKey) return;
    thumbsKey = key;
    const active = document.activeElement;
    const focused = active && active.closest("#thumbs") ? active.dataset.start : null;
    $("thumbs").replaceChildren(...times.map(thumb));
    if (focused === null) return;
    const same = document.querySelector(`#thumbs [data-start="${focused}"]`);
    if (same) same.focus();
  };
  const movePlayhead = () => {
    const head = $("playhead"), player = $("player");
    if (!head || !player) return;
    const past = pastSecond !== null ? pastSecond : state.seen_until || 0;
    const now = isPlayable() ? player.currentTime : past;
    head.style.left = `${Math.min(100, (100 * now) / Math.max(feedLength(), 1e-6))}%`;
    const end = state.kind === "file" ? ` / ${formatClock(state.duration || 0)}` : "";
    $("clock").textContent = state.id ? `${formatClock(now)}${end}` : "";
  };

  // ---- the figures

  const STATES = {
    waiting: "waiting for pictures",
    running: "watching",
    ended: "all seen",
    stopped: "stopped",
    failed: "failed",
  };
  const drawFigures = () => {
    const list = $("figures");
    if (!list) return;
    const memory = state.in_memory || {}, bank = state.in_bank || {};
    const rows = !state.id ? [["On disk", formatBytes(state.bank_bytes || 0)]] : [
      ["State", STATES[state.state] || state.state],
      ["Seen", formatClock(state.seen_until || 0)],
      ["Speed", `${(state.speed || 0).toFixed(1)}×`],
      ["Frames", `${state.frames}`],
      ["Dropped", `${state.dropped}`],
      ["Reconnected", `${state.reconnects}×`],
      ["On disk", formatBytes(bank.bytes || 0)],
      ["In RAM", formatBytes((memory.ram || 0) + (memory.index || 0))],
      ["On the GPU", formatBytes(memory.device || 0)],
    ];
    if (list.children.length !== rows.length) {
      list.replaceChildren(...rows.map(() => {
        const row = element("div");
        row.append(element("dt"), element("dd"));
        return row;
      }));
    }
    rows.forEach(([name, value], i) => {
      const [term, detail] = list.children[i].children;
      if (term.textContent !== name) term.textContent = name;
      // an unchanged text is not set again, so that it stays selected
      if (detail.textContent !== value) detail.textContent = value;
    });
  };

  // ---- alerts

  const refuse = (text) => {
    $("refused").textContent = text;
    $("refused").classList.toggle("bad", Boolean(text));
  };
  const alertItem = (text, i) => {
    const item = element("li");
    const attributes = {
      type: "button", class: "act small", "data-remove": i, "aria-label": `Remove: ${text}`,
    };
    item.append(element("span", {}, text), element("button", attributes, "Remove"));
    return item;
  };
  const noticeItem = (notice) => {
    const item = element("li", { "data-key": `${state.id}-${notice.id}` });
    const time = formatClock(notice.at);
    const attributes = {
      type: "button", class: "cite", "data-start": notice.at, title: `Show ${time}`,
    };
    item.append(element("span", {}, notice.request), element("button", attributes, time));
    return item;
  };
  const drawAlerts = () => {
    const alerts = state.standing || { requests: [], told: [] };
    const requests = $("requests"), notices = $("notices");
    if (!requests) return;
    const key = JSON.stringify([state.id, alerts]);
    if (requests.dataset.key === key) return;
    requests.dataset.key = key;
    requests.replaceChildren(...alerts.requests.map(alertItem));
    const problem = alerts.problem || "";
    if (problem !== (requests.dataset.problem || "")) {
      requests.dataset.problem = problem;
      refuse(problem && `Not checked: ${problem}`);
    }
    for (const item of [...notices.children]) {
      if (!item.dataset.key.startsWith(`${state.id}-`)) item.remove();
    }
    // only new notices are added, so that a screen reader reads each one once
    const present = new Set([...notices.children].map((item) => item.dataset.key));
    const isNew = (notice) => !present.has(`${state.id}-${notice.id}`);
    for (const notice of alerts.told.filter(isNew).reverse()) notices.prepend(noticeItem(notice));
  };

  // ---- the loop

  const poll = async () => {
    try {
      const response = await fetch("watch/state");
      if (!response.ok) return;
      const before = state.id;
      state = await response.json();
      if (before !== state.id) { pastSecond = null; pauseAt = null; thumbsKey = ""; }
    } catch { return; } // the server is unreachable; try again in a second
    const running = state.id && ["waiting", "running"].includes(state.state);
    if ($("title")) $("title").textContent = state.title || "";
    if ($("stop")) $("stop").hidden = !running;
    if (state.error) notify(state.error, true);
    showPlayer();
    drawTimeline();
    drawFigures();
    drawAlerts();
  };
  const highlight = (id) => {
    highlighted = id;
    for (const exchange of document.querySelectorAll("#talk .turn")) {
      exchange.classList.toggle("lit", exchange.dataset.id === id);
    }
    drawTimeline();
  };
  // Gradio reuses elements and rewrites their attributes: set the class and draw the spans again
  const onConversationChange = () => {
    const exchange = document.querySelector("#talk .turn.newest");
    const isNew = Boolean(exchange) && exchange.dataset.id !== newest;
    newest = exchange ? exchange.dataset.id : "";
    highlight(isNew ? newest : highlighted);
    const list = exchange && exchange.parentElement;
    if (list && isNew) list.scrollTop = list.scrollHeight;
  };

  const onCitation = (button) => {
    const exchange = button.closest(".turn"); // null for the citation of an alert's notice
    if (exchange) highlight(exchange.dataset.id);
    seek(Number(button.dataset.start), exchange ? Number(button.dataset.end) : undefined);
  };
  const onRemove = (number) => {
    const removed = post("watch/request", { remove: number });
    removed.then(poll).catch((error) => refuse(error.message));
  };
  const onTrack = (track, x) => {
    const box = track.getBoundingClientRect();
    seek(((x - box.left) / box.width) * feedLength());
  };
  const buttons = {
    pick: () => $("file").click(),
    camera: () => share("camera"),
    screen: () => share("screen"),
    back: () => { pastSecond = null; showPlayer(); refreshStill(); },
    stop: () => {
      stopCapture();
      post("watch/stop").then(poll).catch((error) => notify(error.message, true));
    },
  };
  document.addEventListener("click", (event) => {
    const target = event.target.closest("button, .turn, #track");
    if (!target) return;
    if (target.matches(".cite")) onCitation(target);
    else if (target.dataset.remove) onRemove(Number(target.dataset.remove));
    else if (target.matches(".thumb")) seek(Number(target.dataset.start));
    else if (target.matches(".turn")) highlight(target.dataset.id);
    else if (target.id === "track") onTrack(target, event.clientX);
    else if (Object.hasOwn(buttons, target.id)) buttons[target.id]();
  });
  document.addEventListener("keydown", (event) => { // Tab and Enter select an exchange
    if (event.key === "Enter" && event.target.matches(".turn")) highlight(event.target.dataset.id);
  });
  document.addEventListener("submit", (event) => {
    if (!["address-form", "request-form"].includes(event.target.id)) return;
    event.preventDefault();
    if (event.target.id === "address-form") {
      return start({ url: $("address").value }).catch(() => {});
    }
    refuse("");
    const clear = () => { $("request").value = ""; return poll(); };
    const added = post("watch/request", { request: $("request").value });
    added.then(clear).catch((error) => refuse(error.message));
  });
  document.addEventListener("change", (event) => {
    if (event.target.id !== "file" || !event.target.files.length) return;
    send(event.target.files[0]);
    event.target.value = "";
  });
  document.addEventListener("timeupdate", (event) => {
    const player = event.target;
    if (player.id !== "player") return;
    if (pauseAt !== null && player.currentTime >= pauseAt) { pauseAt = null; player.pause(); }
    movePlayhead();
  }, true);

  // error events do not bubble, so this listens in the capture phase
  document.addEventListener("error", (event) => {
    if (event.target.id !== "player" || state.kind !== "file" || !event.target.error) return;
    unplayable = state.id;
    notify("This browser cannot play this file's format; its pictures are shown instead.");
    showPlayer();
  }, true);

  const init = () => {
    if (!$("talk") || !$("player")) return setTimeout(init, 50);
    const attributeFilter = ["data-id", "data-cited"];
    const options = { childList: true, subtree: true, attributes: true, attributeFilter };
    new MutationObserver(onConversationChange).observe($("talk"), options);
    const canShareScreen = navigator.mediaDevices && navigator.mediaDevices.getDisplayMedia;
    $("screen").hidden = !canShareScreen; // phones cannot
    poll();
    setInterval(poll, 1000);
    setInterval(refreshStill, 500);
  };
  init();
})();
