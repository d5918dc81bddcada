// The page of `reelbank serve`: the library, one film or stream, the visitor's own conversation, and
// alerts. Uses the API of clients, and /v1/videos. The address says what is shown: / or /film/ID, with
// #t=SECONDS for a moment. Knows the element ids of index.html.
(() => {
  "use strict";
  const $ = (id) => document.getElementById(id);
  const { formatClock, element, requestJson, upload, drawTrack, thumbButton } = reelbank;
  const CHANNELS = { // a channel of /v1/search, such as picture:conse -> what the visitor reads
    speech: "speech", ocr: "print", subtitle: "subtitles", caption: "captions", picture: "pictures",
    object: "things", label: "scenes", detection: "detections",
  };
  const channelsOf = (moment) => [...new Set(moment.channels.map((each) => {
    const kind = each.split(":")[0];
    return CHANNELS[kind] || kind;
  }))];

  let key = sessionStorage.getItem("reelbank-key") || "";
  let videos = []; // of GET /v1/videos
  let film = null; // of GET /v1/videos/ID; null: the library is shown
  let models = []; // names in the API: of one film, and of the whole bank where it may be asked
  let moments = []; // of the last search
  let messages = []; // of this visitor's conversation
  let asking = null; // AbortController of the running answer
  let cited = []; // spans of the newest answer about the film
  let pauseAt = null; // second at which a cited span ends
  let unplayable = ""; // id of a film that this browser cannot play; pictures are shown instead

  // ---- requests

  const headers = () => (key ? { Authorization: `Bearer ${key}` } : {});
  const tell = (text, bad = false) => {
    $("told").textContent = text;
    $("told").classList.toggle("bad", bad);
  };
  const rememberKey = () => { // pictures and films come without a header
    const secure = location.protocol === "https:" ? "; Secure" : "";
    document.cookie = `reelbank_key=${encodeURIComponent(key)}; Path=/v1/videos; ` +
      `SameSite=Strict${key ? "" : "; Max-Age=0"}${secure}`;
  };
  const call = async (method, path, body) => {
    try {
      return await requestJson(method, path, body, headers());
    } catch (error) {
      if (error.status === 401) {
        $("key-form").hidden = false;
        $("key").focus();
      }
      throw error;
    }
  };
  const pictureOf = (id, at) => `/v1/videos/${encodeURIComponent(id)}/picture?at=${at}`;
  const addressOf = (id, at) => `/film/${encodeURIComponent(id)}` +
    (at === undefined ? "" : `#t=${Math.round(at * 10) / 10}`);

  // ---- the library

  const picture = (src) => {
    const img = element("img", { src, alt: "", loading: "lazy" });
    img.addEventListener("error", () => img.remove());
    return img;
  };
  const card = (href, src, time, name, more) => {
    const item = element("li"), link = element("a", { class: "card", href });
    const frame = element("span", { class: "frame" });
    if (src) frame.append(picture(src));
    frame.append(element("span", { class: "time" }, time));
    link.append(
      frame, element("span", { class: "name" }, name), element("span", { class: "more" }, more),
    );
    item.append(link);
    return item;
  };
  const moreOf = (video) => {
    if (video.stream) {
      return video.stream.healthy ? "stream" : `stream: ${video.stream.error || "waiting"}`;
    }
    if (video.encoded < 1) return `encoding: ${Math.round(100 * video.encoded)} %`;
    return video.began ? new Date(1000 * video.began).toLocaleString() : "film";
  };
  const filmCard = (video) => {
    const end = video.stream ? video.stream.seen_until || video.duration : video.duration;
    const at = video.stream ? end : Math.min(end / 3, 60);
    const src = end > 0 && pictureOf(video.id, Math.round(at)); // a stream may have none yet
    const item = card(addressOf(video.id), src, formatClock(end), video.title, moreOf(video));
    if (video.stream) {
      const state = video.stream.healthy ? "live" : "live ill";
      item.querySelector(".frame").append(
        element("span", { class: state }, video.stream.healthy ? "Live" : "Not live"),
      );
    }
    return item;
  };
  const drawFilms = () => {
    // what did not change stays, with its focus
    const wanted = JSON.stringify(videos.map((video) => [
      video.id, video.encoded, video.stream ? [video.stream.healthy, video.stream.error] : 0,
    ]));
    if ($("films").dataset.key === wanted) return;
    $("films").dataset.key = wanted;
    $("films").replaceChildren(...videos.map(filmCard));
    const chosen = $("only-film").value;
    $("only-film").replaceChildren(
      element("option", { value: "" }, "all"),
      ...videos.map((video) => element("option", { value: video.id }, video.title)),
    );
    $("only-film").value = chosen;
  };
  const loadVideos = async () => {
    const reply = await call("GET", "/v1/videos");
    videos = reply.data;
    $("nothing").hidden = videos.length > 0;
    $("nothing").textContent = reply.whole_bank
      ? "The bank holds no film yet." : "Nobody has added a film yet. A server that is started " +
        "with whole_bank=true also shows what its bank holds.";
    drawFilms();
    drawAlerts();
  };

  // ---- search

  const parseTime = (text, name) => {
    if (!text.trim()) return undefined;
    const parts = text.trim().split(":").map(Number);
    if (parts.length > 3 || parts.some((part) => !(part >= 0))) {
      throw new Error(`${name} is no time; write it such as 01:30.`);
    }
    return parts.reduce((sum, part) => 60 * sum + part, 0);
  };
  const search = async () => {
    const query = $("words").value.trim(), only = $("only-film").value;
    if (!query) return tell("Say what to look for.", true);
    tell("Searching…");
    const body = {
      query, top: 24, videos: only ? [only] : [],
      start: parseTime($("from").value, "From"), end: parseTime($("to").value, "To"),
    };
    const reply = await call("POST", "/v1/search", body);
    moments = reply.data;
    const channels = [...new Set(moments.flatMap(channelsOf))];
    $("only-channel").replaceChildren(
      element("option", { value: "" }, "anything"),
      ...channels.map((each) => element("option", { value: each }, each)),
    );
    tell(reply.warning || "");
    drawMoments();
    $("found-title").focus();
  };
  const drawMoments = () => {
    const channel = $("only-channel").value;
    const shown = moments.filter((moment) => !channel || channelsOf(moment).includes(channel));
    $("found").hidden = false;
    const count = shown.length === 1 ? "1 moment" : `${shown.length} moments`;
    $("found-title").textContent = `Found: ${count}`;
    $("hits").replaceChildren(...shown.map((moment) => card(
      addressOf(moment.video_id, moment.start), pictureOf(moment.video_id, moment.frame_at),
      formatClock(moment.start), moment.filename,
      moment.text || channelsOf(moment).join(", "),
    )));
  };

  // ---- a film or stream

  const filmLength = () => film.stream
    ? Math.max(film.stream.seen_until, film.duration) : film.duration;
  const isPlayable = () => film.has_media && unplayable !== film.id;
  const second = () => {
    const match = /(?:^|&)t=([0-9.]+)/.exec(location.hash.slice(1));
    return match ? Number(match[1]) : undefined;
  };
  const at = () => (isPlayable() ? $("player").currentTime : second() ?? filmLength());
  const showFilm = (id) => {
    film = null;
    cited = [];
    $("library").hidden = true;
    $("stage").hidden = false;
    loadFilm(id).then(() => {
      $("title").focus();
      goTo(second());
    }).catch((error) => tell(error.message, true));
  };
  const loadFilm = async (id) => {
    film = await call("GET", `/v1/videos/${encodeURIComponent(id)}`);
    document.title = `${film.title} – Reelbank`;
    $("title").textContent = film.title;
    const src = `/v1/videos/${encodeURIComponent(film.id)}/content`;
    if (isPlayable() && $("player").getAttribute("src") !== src) $("player").src = src;
    $("player").hidden = !isPlayable();
    drawFilm();
    drawAlerts();
  };
  const drawFilm = () => {
    const length = filmLength();
    $("timeline").hidden = length <= 0;
    if (length > 0) {
      const end = film.segments.length ? film.segments[film.segments.length - 1][1] : 0;
      drawTrack($("track"), $("ticks"), length, [
        ["seen", 0, end],
        ...cited.map(([a, b]) => ["cited", a, b]),
        ...film.segments.slice(1).map(([a]) => ["cut", a, a]),
      ]);
      drawThumbs(length);
      movePlayhead();
    }
    drawFigures();
    $("words-of-film").hidden = film.lines.length === 0;
    if ($("lines").dataset.key !== `${film.id}-${film.lines.length}`) {
      $("lines").dataset.key = `${film.id}-${film.lines.length}`;
      $("lines").replaceChildren(...film.lines.map((line) => {
        const item = element("li");
        const button = element("button", { type: "button", "data-start": line.start });
        button.append(
          element("time", {}, formatClock(line.start)), element("span", {}, line.text),
        );
        item.append(button);
        return item;
      }));
    }
  };
  const drawThumbs = (length) => {
    const count = window.innerWidth < 600 ? 4 : 6;
    const hot = cited.map(([a, b]) => Math.round(a + b) / 2).slice(0, count);
    const step = length / count;
    const even = Array.from({ length: count }, (_, i) => Math.floor((i + 0.5) * step));
    const isFree = (time) => hot.every((other) => Math.abs(other - time) > step / 2);
    const times = [...hot, ...even.filter(isFree)].sort((a, b) => a - b);
    const wanted = JSON.stringify([film.id, times, hot]);
    if ($("thumbs").dataset.key === wanted) return;
    $("thumbs").dataset.key = wanted;
    $("thumbs").replaceChildren(...times.map((time) => {
      const item = element("li");
      item.append(thumbButton(time, pictureOf(film.id, time), hot.includes(time)));
      return item;
    }));
  };
  const drawFigures = () => {
    const stream = film.stream;
    const rows = !stream ? [] : [
      ["State", stream.healthy ? "live" : stream.error || stream.state],
      ["Sampled", `${stream.sampled_fps} a second`],
      ["Dropped", stream.dropped],
      ["Reconnected", `${stream.reconnects}×`],
    ];
    if (film.encoded < 1) rows.push(["Encoded", `${Math.round(100 * film.encoded)} %`]);
    $("figures").hidden = rows.length === 0;
    $("figures").replaceChildren(...rows.map(([name, value]) => {
      const row = element("div");
      row.append(element("dt", {}, name), element("dd", {}, value));
      return row;
    }));
  };
  const movePlayhead = () => {
    const head = $("playhead");
    if (!film || !head) return;
    const length = Math.max(filmLength(), 1e-6);
    head.style.left = `${Math.min(100, (100 * at()) / length)}%`;
    $("clock").textContent = `${formatClock(at())} / ${formatClock(filmLength())}`;
    $("link").href = addressOf(film.id, at());
  };
  // undefined: the beginning of a film, the newest picture of a stream
  const goTo = (time, end) => {
    pauseAt = end === undefined ? null : end;
    if (isPlayable()) {
      $("still").hidden = true;
      if (time !== undefined) $("player").currentTime = time;
      if (end !== undefined) $("player").play().catch(() => {});
    } else {
      showStill(time === undefined ? filmLength() : time);
    }
    movePlayhead();
  };
  const showStill = (time) => {
    const next = new Image();
    next.onload = () => {
      $("still").src = next.src;
      $("still").alt = `Picture at ${formatClock(time)}`;
      $("still").hidden = false;
      $("empty").hidden = true;
    };
    next.onerror = () => { $("empty").hidden = !$("still").hidden; };
    next.src = pictureOf(film.id, Math.round(time * 10) / 10);
  };
  const seek = (time, end) => {
    history.replaceState(null, "", addressOf(film.id, time));
    goTo(time, end);
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    $("screen-box").scrollIntoView({ block: "nearest", behavior: calm ? "auto" : "smooth" });
  };

  // ---- the conversation

  const subject = () => { // the model and the part of a message that name what is asked about
    if (!film) return { model: models[1], part: null };
    if (film.stream) return { model: models[0], part: urlPart(`stream:${film.id}`) };
    if (!film.file_id) return { model: models[0], part: urlPart(`video:${film.id}`) };
    return { model: models[0], part: { type: "file", file: { file_id: film.file_id } } };
  };
  const urlPart = (url) => ({ type: "video_url", video_url: { url } });
  const drawAbout = () => {
    const canAsk = Boolean(film || models[1]);
    $("question").disabled = $("send").disabled = !canAsk;
    if ($("about")) {
      $("about").textContent = canAsk
        ? "Answers appear here, with the moments that they rest on."
        : "Open a film to ask about it. A server that is started with whole_bank=true also answers " +
          "from all films.";
    }
  };
  const ask = async (text) => {
    const { model, part } = subject();
    if (asking) asking.abort();
    const mine = (asking = new AbortController());
    const turn = element("article", { class: "turn newest" });
    const said = element("p", { class: "said running" });
    turn.append(element("p", { class: "asked" }, text), said);
    if ($("about")) $("talk").replaceChildren();
    $("talk").classList.remove("empty");
    $("talk").append(turn);
    $("fresh").hidden = $("quiet").hidden = false;
    $("send").hidden = true;
    const content = part ? [part, { type: "text", text }] : text;
    const sent = [...messages, { role: "user", content }];
    try {
      const body = { model, messages: sent, stream: true, cite_in_text: false };
      const end = await readAnswer(body, mine.signal, (piece) => { said.textContent += piece; });
      messages = [
        ...messages, { role: "user", content: text },
        { role: "assistant", content: said.textContent },
      ].slice(-16);
      drawEnd(turn, end);
    } catch (error) {
      const stopped = error.name === "AbortError";
      said.classList.add(stopped ? "cancelled" : "failed");
      if (!stopped || !said.textContent) said.textContent = stopped ? "Stopped." : error.message;
    }
    said.classList.remove("running");
    if (asking === mine) {
      asking = null;
      $("quiet").hidden = true;
      $("send").hidden = false;
    }
    $("talk").scrollTop = $("talk").scrollHeight;
  };
  // the fields of the end of an answer; onPiece: gets each piece of its text
  const readAnswer = async (body, signal, onPiece) => {
    const response = await fetch("/v1/chat/completions", {
      method: "POST", signal, body: JSON.stringify(body),
      headers: { "Content-Type": "application/json", ...headers() },
    });
    if (!response.ok) {
      const reply = await response.json().catch(() => ({}));
      throw new Error(reelbank.errorMessage(reply, `The server answered ${response.status}.`));
    }
    let end = {};
    await readEvents(response, (event) => {
      if (event.error) throw new Error(event.error.message);
      const choice = (event.choices || [])[0];
      if (!choice) return;
      if (choice.delta.content) onPiece(choice.delta.content);
      if (choice.finish_reason) end = choice.delta;
    });
    return end;
  };
  const readEvents = async (response, onEvent) => {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const rows = (rest + value).split("\n");
      rest = rows.pop();
      for (const row of rows) {
        if (row.startsWith("data: {")) onEvent(JSON.parse(row.slice(6)));
      }
    }
  };
  const drawEnd = (turn, end) => {
    const citations = end.citations || [];
    if (citations.length) {
      const row = element("p", { class: "cites" });
      row.append(element("span", {}, "Seen at"));
      for (const one of citations) {
        const owner = videos.find((video) => one.file_id && video.file_id === one.file_id);
        const id = one.video_id || (owner && owner.id) || (film && film.id);
        const where = film && film.id === id ? "" : `${one.filename || ""} `;
        const text = `${where}${formatClock(one.start)}–${formatClock(one.end)}`;
        row.append(element("a", {
          class: "cite", href: addressOf(id, one.start), "data-end": one.end,
        }, text));
      }
      turn.append(row);
    }
    if (end.warning) turn.append(element("p", { class: "note" }, end.warning));
    cited = film ? citations.map((one) => [one.start, one.end]) : [];
    if (film) drawFilm();
  };

  // ---- alerts

  const streams = () => videos.filter((video) => video.stream && (!film || video.id === film.id));
  const refuse = (text) => {
    $("refused").textContent = text;
    $("refused").classList.toggle("bad", Boolean(text));
  };
  const drawAlerts = () => {
    const own = streams();
    $("request-form").hidden = !(film && film.stream);
    const rows = own.flatMap((video) => Object.entries(video.stream.alerts)
      .map(([number, text]) => [video.id, number, text]));
    $("standing").hidden = !(film && film.stream) && rows.length === 0 &&
      $("notices").children.length === 0;
    const wanted = JSON.stringify([film && film.id, rows]);
    if ($("requests").dataset.key === wanted) return;
    $("requests").dataset.key = wanted;
    $("requests").replaceChildren(...rows.map(([name, number, text]) => {
      const item = element("li"), label = film ? text : `${name}: ${text}`;
      item.append(element("span", {}, label), element("button", {
        type: "button", class: "act small", "data-stream": name, "data-number": number,
        "aria-label": `Remove: ${label}`,
      }, "Remove"));
      return item;
    }));
  };
  const removeAlert = async (name, number) => {
    await call("DELETE", `/v1/streams/${encodeURIComponent(name)}/alerts/${number}`);
    await loadVideos();
  };
  const listen = async () => {
    for (;;) {
      try {
        const response = await fetch("/v1/notices", { headers: headers() });
        if (response.ok) await readEvents(response, addNotice);
        else if ([401, 403, 404].includes(response.status)) return; // no streams, or not for this key
      } catch { /* the server is unreachable; try again */ }
      await new Promise((done) => setTimeout(done, 3000));
    }
  };
  const addNotice = (notice) => {
    const item = element("li");
    item.append(element("span", {}, `${notice.stream}: ${notice.request}`), element("a", {
      class: "cite", href: addressOf(notice.stream, notice.time),
    }, formatClock(notice.time)));
    $("notices").prepend(item);
    drawAlerts();
    while ($("notices").children.length > 20) $("notices").lastChild.remove();
  };

  // ---- what the address says, and what the visitor does

  const show = () => {
    const match = /^\/film\/([^/]+)$/.exec(location.pathname);
    tell("");
    if (match) {
      const id = decodeURIComponent(match[1]);
      if (film && film.id === id) goTo(second());
      else showFilm(id);
    } else {
      $("player").pause();
      film = null;
      $("library").hidden = false;
      $("stage").hidden = true;
      document.title = "Reelbank";
      drawAlerts();
    }
    drawAbout();
  };
  const visit = (href) => {
    history.pushState(null, "", href);
    show();
  };
  const reload = async () => {
    try {
      if (document.hidden) return;
      await loadVideos();
      const isMoving = film && (film.stream || film.encoded < 1);
      if (isMoving) await loadFilm(film.id);
      if (film && film.stream && second() === undefined) showStill(filmLength());
      drawAbout();
    } catch { /* said at the start; the server may be back in a moment */ }
  };
  const begin = async () => {
    rememberKey();
    try {
      models = (await call("GET", "/v1/models")).data.map((model) => model.id);
      await loadVideos();
    } catch (error) {
      return tell(error.message, true);
    }
    $("key-form").hidden = true;
    show();
    if (videos.some((video) => video.stream)) listen();
  };
  const followDarkMode = () => {
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const set = () => document.documentElement.classList.toggle("dark", dark.matches);
    dark.addEventListener("change", set);
    set();
  };

  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href]");
    if (link && link.origin === location.origin && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      const [path, time] = link.getAttribute("href").split("#t=");
      if (film && path === addressOf(film.id)) {
        seek(Number(time), link.dataset.end ? Number(link.dataset.end) : undefined);
      } else {
        visit(link.href);
      }
      return;
    }
    const target = event.target.closest("button, #track");
    if (!target) return;
    if (target.id === "track") {
      const box = target.getBoundingClientRect();
      seek(((event.clientX - box.left) / box.width) * filmLength());
    } else if (target.dataset.number) {
      removeAlert(target.dataset.stream, target.dataset.number)
        .catch((error) => refuse(error.message));
    } else if (target.dataset.start) seek(Number(target.dataset.start));
    else if (target.id === "pick") $("file").click();
    else if (target.id === "quiet" && asking) asking.abort();
    else if (target.id === "fresh") {
      if (asking) asking.abort();
      messages = [];
      $("talk").replaceChildren(element("p", { id: "about" }));
      $("talk").classList.add("empty");
      $("fresh").hidden = true;
      drawAbout();
    }
  });
  const forms = {
    "key-form": () => {
      key = $("key").value.trim();
      sessionStorage.setItem("reelbank-key", key);
      return begin();
    },
    "search-form": search,
    asking: () => {
      const text = $("question").value.trim();
      $("question").value = "";
      return text ? ask(text) : undefined;
    },
    "request-form": async () => {
      refuse("");
      await call("POST", `/v1/streams/${encodeURIComponent(film.id)}/alerts`, {
        request: $("request").value,
      });
      $("request").value = "";
      await loadVideos();
    },
  };
  document.addEventListener("submit", (event) => {
    event.preventDefault();
    const complain = event.target.id === "request-form" ? refuse : (text) => tell(text, true);
    Promise.resolve().then(() => forms[event.target.id]()).catch((error) => complain(error.message));
  });
  document.addEventListener("change", (event) => {
    if (event.target.id === "only-channel") return drawMoments();
    if (event.target.id !== "file" || !event.target.files.length) return;
    upload(event.target.files[0], "/v1/files", tell, () => {
      tell("The film is being encoded; it can be asked about when that is done.");
      loadVideos().catch(() => {});
    }, headers(), { purpose: "user_data" });
    event.target.value = "";
  });
  const player = $("player");
  player.addEventListener("timeupdate", () => {
    if (pauseAt !== null && player.currentTime >= pauseAt) {
      pauseAt = null;
      player.pause();
    }
    movePlayhead();
  });
  player.addEventListener("error", () => {
    if (!film || !player.error) return;
    unplayable = film.id;
    player.hidden = true;
    tell("This browser cannot play this film's format; its pictures are shown instead.");
    showStill(second() || 0);
  });
  window.addEventListener("popstate", show);
  window.addEventListener("hashchange", show);
  followDarkMode();
  begin();
  setInterval(reload, 2000);
})();
