// The player, the timeline and the sources of the page. Asks /watch/state once a second and draws what it says.
// Knows the elements of pipeline/demo/page.py by id; the conversation is Gradio's, this only reads its data-... marks.
(() => {
  "use strict";
  const $ = (id) => document.getElementById(id);
  const clock = (seconds) => {
    const whole = Math.max(0, Math.floor(seconds)), h = Math.floor(whole / 3600), m = Math.floor(whole / 60) % 60;
    const two = (n) => String(n).padStart(2, "0");
    return h ? `${h}:${two(m)}:${two(whole % 60)}` : `${two(m)}:${two(whole % 60)}`;
  };
  const bytes = (n) => (n >= 1e9 ? `${(n / 1e9).toFixed(1)} GB` : n >= 1e6 ? `${(n / 1e6).toFixed(1)} MB` : `${Math.round(n / 1e3)} kB`);
  const make = (tag, attributes = {}, text = "") => {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.textContent = text;
    return node;
  };

  let state = {}; // what /watch/state said last
  let lit = ""; // data-id of the answer whose moments are lit up
  let latest = ""; // data-id of the newest answer
  let looking = null; // second of a live source that is looked back at
  let unplayable = ""; // id of a watch whose file this browser cannot play: its pictures are shown instead
  let stream = null; // of this browser's camera or screen
  let until = null; // second at which a cited moment ends
  let drawn = ""; // what the thumbnails were drawn for

  // ---- talking to the server

  const tell = (text, bad = false) => {
    const told = $("told");
    if (!told) return;
    told.textContent = text;
    told.classList.toggle("bad", bad);
  };
  const post = async (path, body) => {
    const sent = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body || {}) };
    const answer = await fetch(path, sent);
    const told = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error((told.error && told.error.message) || `The server answered ${answer.status}.`);
    return told;
  };
  const start = async (what) => {
    if (what.browser === undefined) hang();
    tell("Starting…");
    try {
      const watch = await post("watch/start", what);
      tell("");
      await look();
      return watch;
    } catch (error) {
      tell(error.message, true);
      throw error;
    }
  };

  // ---- what to watch

  const upload = (file) => {
    const form = new FormData();
    form.append("file", file);
    const request = new XMLHttpRequest();
    request.upload.onprogress = (event) => tell(`Sending ${file.name}: ${Math.round((100 * event.loaded) / event.total)} %`);
    request.onload = () => {
      let told = {};
      try { told = JSON.parse(request.responseText); } catch { /* told below */ }
      if (request.status !== 200) return tell((told.error && told.error.message) || "The video could not be sent.", true);
      start({ file: told.file, real_time: $("real-time").checked }).catch(() => {});
    };
    request.onerror = () => tell("The video could not be sent: the connection broke off.", true);
    request.open("POST", "watch/upload");
    request.send(form);
    tell(`Sending ${file.name}…`);
  };

  const hang = () => {
    if (stream) stream.getTracks().forEach((track) => track.stop());
    stream = null;
  };
  const share = async (kind) => {
    if (!navigator.mediaDevices) return tell("This browser gives pictures only to pages at https or localhost.", true);
    hang();
    try {
      stream = kind === "camera"
        ? await navigator.mediaDevices.getUserMedia({ video: { width: 1280, height: 720, facingMode: "environment" } })
        : await navigator.mediaDevices.getDisplayMedia({ video: { frameRate: 5 } });
    } catch (error) {
      return tell(kind === "camera" ? "There is no camera, or it may not be used." : "The screen may not be shown.", true);
    }
    const mine = stream;
    const watch = await start({ browser: kind }).catch(() => hang());
    if (!watch) return;
    const player = $("player"), canvas = document.createElement("canvas");
    player.srcObject = mine;
    player.controls = false;
    player.play().catch(() => {});
    mine.getVideoTracks()[0].addEventListener("ended", () => post("watch/stop").catch(() => {}));
    while (stream === mine && mine.active) {
      if (player.videoWidth) {
        canvas.width = Math.min(640, player.videoWidth);
        canvas.height = Math.round((canvas.width * player.videoHeight) / player.videoWidth);
        canvas.getContext("2d").drawImage(player, 0, 0, canvas.width, canvas.height);
        const picture = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.8));
        const answer = await fetch(`watch/frame/${watch.id}`, { method: "POST", body: picture }).catch(() => null);
        if (answer && answer.status === 404) break; // something else is watched now
      }
      await new Promise((done) => setTimeout(done, 400));
    }
    if (stream === mine) hang();
  };

  // ---- the player

  const plays = () => state.kind === "file" && unplayable !== state.id;
  const pictured = () => state.kind === "live" || (state.kind === "file" && !plays());
  const show = () => {
    const player = $("player"), still = $("still");
    if (!player) return;
    const live = pictured(), back = looking !== null;
    player.hidden = !state.id || live || back;
    still.hidden = !(live || back);
    $("empty").hidden = Boolean(state.id);
    $("back").hidden = !back;
    $("badge").hidden = !(state.id && state.kind !== "file" && state.state === "running");
    $("badge").textContent = back ? clock(looking) : "Live";
    $("badge").classList.toggle("back", back);
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
    if (plays()) {
      const player = $("player");
      until = end === undefined ? null : end;
      player.currentTime = seconds;
      player.play().catch(() => {});
    } else {
      looking = seconds;
      $("still").src = `watch/picture/${state.id}?at=${seconds}`;
      $("still").alt = `Picture at ${clock(seconds)}`;
      show();
    }
    $("screen-box").scrollIntoView({ block: "nearest", behavior: "smooth" });
  };
  const refresh = () => {
    if (pictured() && looking === null && state.id && !document.hidden) {
      const next = new Image(), when = state.kind === "live" ? `t=${Date.now()}` : `at=${state.seen_until || 0}`;
      next.onload = () => { if (looking === null) { $("still").src = next.src; $("still").alt = "Live picture"; } };
      next.src = `watch/picture/${state.id}?${when}`;
    }
  };

  // ---- the timeline

  const spans = (name) => {
    const turn = lit && document.querySelector(`#talk .turn[data-id="${lit}"]`);
    return turn ? JSON.parse(turn.dataset[name] || "[]") : [];
  };
  const draw = () => {
    const box = $("timeline");
    if (!box) return;
    const length = Math.max(state.duration || 0, state.now || 0, state.seen_until || 0);
    box.hidden = !state.id || length <= 0;
    if (box.hidden) return;
    const track = $("track"), at = (seconds) => `${((100 * seconds) / length).toFixed(3)}%`;
    const piece = (kind, a, b) => {
      const node = make("i", { class: kind });
      node.style.left = at(a);
      node.style.width = at(Math.max(b - a, 0));
      return node;
    };
    const parts = [piece("seen", 0, state.seen_until || 0)];
    for (const [a, b] of spans("recalled")) parts.push(piece("read", a, Math.min(b, length)));
    for (const [a, b] of spans("cited")) parts.push(piece("cited", a, Math.min(b, length)));
    for (const [a] of (state.segments || []).slice(1)) parts.push(piece("cut", a, a));
    const head = piece("head", 0, 0);
    head.id = "playhead";
    parts.push(head);
    track.replaceChildren(...parts);
    move();
    const ticks = [0, 0.25, 0.5, 0.75, 1].map((share) => make("span", {}, clock(share * length)));
    $("ticks").replaceChildren(...ticks);
    thumbs(length);
  };
  const thumbs = (length) => {
    const count = window.innerWidth < 600 ? 4 : 6, seen = state.seen_until || 0;
    const cited = spans("cited").map(([a, b]) => [Math.min((a + b) / 2, seen), true]).slice(0, count);
    const even = Array.from({ length: count }, (_, i) => [((i + 0.5) * length) / count, false]).filter(([t]) => t <= seen);
    const step = length / count / 2;
    const all = [...cited, ...even.filter(([t]) => cited.every(([c]) => Math.abs(c - t) > step))].sort((x, y) => x[0] - y[0]);
    const shown = all.map(([t, hot]) => [Math.round(t * 2) / 2, hot]);
    const key = JSON.stringify([state.id, shown]);
    if (key === drawn) return;
    drawn = key;
    const focused = document.activeElement && document.activeElement.closest("#thumbs") ? document.activeElement.dataset.start : null;
    $("thumbs").replaceChildren(...shown.map(([t, hot]) => {
      const item = make("li"), button = make("button", { type: "button", class: hot ? "thumb hot" : "thumb", "data-start": t, "aria-label": `Show ${clock(t)}` });
      const picture = make("img", { src: `watch/picture/${state.id}?at=${t}`, alt: "", loading: "lazy" });
      button.append(picture, make("span", {}, clock(t)));
      item.append(button);
      return item;
    }));
    if (focused !== null) { const same = document.querySelector(`#thumbs [data-start="${focused}"]`); if (same) same.focus(); }
  };
  const move = () => {
    const head = $("playhead"), player = $("player");
    if (!head || !player) return;
    const length = Math.max(state.duration || 0, state.now || 0, state.seen_until || 0);
    const now = plays() ? player.currentTime : looking !== null ? looking : state.seen_until || 0;
    head.style.left = `${Math.min(100, (100 * now) / Math.max(length, 1e-6))}%`;
    const end = state.kind === "file" ? ` / ${clock(state.duration || 0)}` : "";
    $("clock").textContent = state.id ? `${clock(now)}${end}` : "";
  };

  // ---- the figures

  const NAMES = { waiting: "waiting for pictures", running: "watching", ended: "all seen", stopped: "stopped", failed: "failed" };
  const figures = () => {
    const list = $("figures");
    if (!list) return;
    const memory = state.in_memory || {}, bank = state.in_bank || {};
    const rows = !state.id ? [["On disk", bytes(state.bank_bytes || 0)]] : [
      ["State", NAMES[state.state] || state.state],
      ["Seen", clock(state.seen_until || 0)],
      ["Speed", `${(state.speed || 0).toFixed(1)}×`],
      ["Frames", `${state.frames}`],
      ["Dropped", `${state.dropped}`],
      ["Reconnected", `${state.reconnects}×`],
      ["On disk", bytes(bank.bytes || 0)],
      ["In RAM", bytes((memory.ram || 0) + (memory.retrieval.frame_index || 0))],
      ["On the GPU", bytes(memory.device || 0)],
    ];
    if (list.children.length !== rows.length) {
      list.replaceChildren(...rows.map(() => { const row = make("div"); row.append(make("dt"), make("dd")); return row; }));
    }
    rows.forEach(([name, value], i) => {
      const [term, told] = list.children[i].children;
      if (term.textContent !== name) term.textContent = name;
      if (told.textContent !== value) told.textContent = value; // unchanged ones stay selectable
    });
  };

  // ---- standing requests

  const refuse = (text) => { $("refused").textContent = text; $("refused").classList.toggle("bad", Boolean(text)); };
  const standing = () => {
    const told = state.standing || { requests: [], told: [] };
    const requests = $("requests"), notices = $("notices");
    if (!requests) return;
    const key = JSON.stringify([state.id, told]);
    if (requests.dataset.key === key) return;
    requests.dataset.key = key;
    requests.replaceChildren(...told.requests.map((text, i) => {
      const item = make("li");
      item.append(make("span", {}, text), make("button", { type: "button", class: "act small", "data-remove": i, "aria-label": `Remove: ${text}` }, "Remove"));
      return item;
    }));
    const known = new Set([...notices.children].map((item) => item.dataset.key));
    const fresh = told.told.filter((notice) => !known.has(`${state.id}-${notice.id}`)).reverse();
    for (const item of [...notices.children]) if (!item.dataset.key.startsWith(`${state.id}-`)) item.remove();
    for (const notice of fresh) { // only what is new is added, so that it is read out once
      const item = make("li", { "data-key": `${state.id}-${notice.id}` });
      item.append(make("span", {}, notice.request), make("button", { type: "button", class: "cite", "data-start": notice.at, title: `Show ${clock(notice.at)}` }, clock(notice.at)));
      notices.prepend(item);
    }
  };

  // ---- the loop

  const look = async () => {
    try {
      const answer = await fetch("watch/state");
      if (!answer.ok) return;
      const before = state.id;
      state = await answer.json();
      if (before !== state.id) { looking = null; until = null; drawn = ""; }
    } catch { return; } // the server is away for the moment
    $("title") && ($("title").textContent = state.title || "");
    $("stop") && ($("stop").hidden = !(state.id && ["waiting", "running"].includes(state.state)));
    if (state.error) tell(state.error, true);
    show();
    draw();
    figures();
    standing();
  };
  const light = (id) => {
    lit = id;
    for (const turn of document.querySelectorAll("#talk .turn")) turn.classList.toggle("lit", turn.dataset.id === id);
    draw();
  };
  const changed = () => { // Gradio keeps elements and rewrites their attributes: the class is put back, the moments are drawn again
    const turn = document.querySelector("#talk .turn.newest");
    const fresh = Boolean(turn) && turn.dataset.id !== latest;
    latest = turn ? turn.dataset.id : "";
    light(fresh ? latest : lit);
    if (turn && turn.parentElement) turn.parentElement.scrollTop = fresh ? turn.parentElement.scrollHeight : turn.parentElement.scrollTop;
  };

  document.addEventListener("click", (event) => {
    const target = event.target.closest("button, .turn, #track");
    if (!target) return;
    if (target.matches(".cite")) {
      const turn = target.closest(".turn");
      if (turn) light(turn.dataset.id);
      seek(Number(target.dataset.start), turn ? Number(target.dataset.end) : undefined);
    }
    else if (target.dataset.remove) post("watch/request", { remove: Number(target.dataset.remove) }).then(look).catch((error) => refuse(error.message));
    else if (target.matches(".thumb")) seek(Number(target.dataset.start));
    else if (target.matches(".turn")) light(target.dataset.id);
    else if (target.id === "track") {
      const box = target.getBoundingClientRect(), length = Math.max(state.duration || 0, state.now || 0, state.seen_until || 0);
      seek(((event.clientX - box.left) / box.width) * length);
    }
    else if (target.id === "pick") $("file").click();
    else if (target.id === "camera" || target.id === "screen") share(target.id);
    else if (target.id === "back") { looking = null; show(); refresh(); }
    else if (target.id === "stop") { hang(); post("watch/stop").then(look).catch((error) => tell(error.message, true)); }
  });
  document.addEventListener("keydown", (event) => { // a conversation can be walked through with Tab and Enter
    if (event.key === "Enter" && event.target.matches(".turn")) light(event.target.dataset.id);
  });
  document.addEventListener("submit", (event) => {
    if (!["address-form", "request-form"].includes(event.target.id)) return;
    event.preventDefault();
    if (event.target.id === "address-form") return start({ url: $("address").value }).catch(() => {});
    refuse("");
    post("watch/request", { request: $("request").value }).then(() => { $("request").value = ""; return look(); }).catch((error) => refuse(error.message));
  });
  document.addEventListener("change", (event) => {
    if (event.target.id === "file" && event.target.files.length) { upload(event.target.files[0]); event.target.value = ""; }
  });
  document.addEventListener("timeupdate", (event) => {
    const player = event.target;
    if (player.id !== "player") return;
    if (until !== null && player.currentTime >= until) { until = null; player.pause(); }
    move();
  }, true);

  document.addEventListener("error", (event) => { // does not bubble, so it is caught on the way down
    if (event.target.id !== "player" || state.kind !== "file" || !event.target.error) return;
    unplayable = state.id;
    tell("This browser cannot play this file's format; its pictures are shown instead.");
    show();
  }, true);

  const ready = () => {
    if (!$("talk") || !$("player")) return setTimeout(ready, 50);
    const watching = { childList: true, subtree: true, attributes: true, attributeFilter: ["data-id", "data-cited"] };
    new MutationObserver(changed).observe($("talk"), watching);
    $("screen").hidden = !(navigator.mediaDevices && navigator.mediaDevices.getDisplayMedia); // phones cannot
    look();
    setInterval(look, 1000);
    setInterval(refresh, 500);
  };
  ready();
})();
