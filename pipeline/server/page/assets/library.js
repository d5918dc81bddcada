// The page of `reelbank serve`: what all its scripts share, the library, and one film or stream. Uses
// the API of clients, and /v1/videos. The address says what is shown: /, /live, or /film/ID, with
// #t=SECONDS for a moment. Knows the element ids of index.html.
reelbank.page = (() => {
  "use strict";
  const $ = (id) => document.getElementById(id);
  const { formatClock, formatBytes, element, requestJson, drawTrack, thumbButton } = reelbank;
  const CHANNELS = { // a channel of /v1/search, such as picture:conse -> what the visitor reads
    speech: "speech", ocr: "print", subtitle: "subtitles", caption: "captions", picture: "pictures",
    object: "things", label: "scenes", detection: "detections",
  };
  const STATES = { waiting: "waiting for pictures", ended: "all seen", stopped: "stopped" };
  const channelsOf = (moment) => [...new Set(moment.channels.map((each) => {
    const kind = each.split(":")[0];
    return CHANNELS[kind] || kind;
  }))];

  const page = {
    key: sessionStorage.getItem("reelbank-key") || "",
    videos: [], // of GET /v1/videos
    film: null, // of GET /v1/videos/ID; null: no film is shown
    models: [], // names in the API: of one film, and of the whole bank where it may be asked
    spans: { cited: [], read: [] }, // seconds of the film, of the answer that is highlighted
    onFilm: [], // functions that draw what further scripts show of a film
    onVideos: [], // the same of the list of videos
  };
  let moments = []; // of the last search
  let pauseAt = null; // second at which a cited span ends
  let unplayable = ""; // id of a film that this browser cannot play; pictures are shown instead
  let speedMeter = null; // {id, first, last}: [wall second, video second]

  // ---- requests

  page.headers = () => (page.key ? { Authorization: `Bearer ${page.key}` } : {});
  page.tell = (text, bad = false) => {
    $("told").textContent = text;
    $("told").classList.toggle("bad", bad);
  };
  page.rememberKey = () => { // pictures and films come without a header
    const secure = location.protocol === "https:" ? "; Secure" : "";
    document.cookie = `reelbank_key=${encodeURIComponent(page.key)}; Path=/v1/videos; ` +
      `SameSite=Strict${page.key ? "" : "; Max-Age=0"}${secure}`;
  };
  page.call = async (method, path, body) => {
    try {
      return await requestJson(method, path, body, page.headers());
    } catch (error) {
      if (error.status === 401) {
        $("key-form").hidden = false;
        $("key").focus();
      }
      throw error;
    }
  };
  page.pathOf = (id) => `/v1/videos/${encodeURIComponent(id)}`;
  page.pictureOf = (id, at) => `${page.pathOf(id)}/picture` + (at === undefined ? "" : `?at=${at}`);
  page.addressOf = (id, at) => `/film/${encodeURIComponent(id)}` +
    (at === undefined ? "" : `#t=${Math.round(at * 10) / 10}`);
  page.second = () => {
    const match = /(?:^|&)t=([0-9.]+)/.exec(location.hash.slice(1));
    return match ? Number(match[1]) : undefined;
  };
  page.isWatched = (video) =>
    Boolean(video.stream) && ["running", "waiting"].includes(video.stream.state);
  page.stateOf = (video) => {
    const { healthy, error, state, seen_until: seen } = video.stream;
    if (healthy) return video.kind === "film" ? "watching" : "live";
    const silent = seen > 0 ? "no new picture" : STATES.waiting; // it is connected
    return error || (state === "running" ? silent : STATES[state] || state);
  };

  // ---- the library

  const picture = (src) => {
    const img = element("img", { src, alt: "", loading: "lazy" });
    img.addEventListener("error", () => img.remove());
    return img;
  };
  page.card = (href, src, time, name, more) => {
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
  page.addLive = (item, video) => {
    const { healthy } = video.stream;
    item.querySelector(".frame").append(
      element("span", { class: healthy ? "live" : "live ill" }, healthy ? "Live" : "Not live"),
    );
  };
  const moreOf = (video) => {
    if (video.stream && (video.kind === "stream" || page.isWatched(video))) {
      return video.kind === "stream" && video.stream.healthy
        ? "stream" : `${video.kind}: ${page.stateOf(video)}`;
    }
    if (video.is_encoding) return `encoding: ${Math.round(100 * video.encoded)} %`;
    if (video.encoded < 1) return `${Math.round(100 * video.encoded)} % encoded`;
    return video.began ? new Date(1000 * video.began).toLocaleString() : "film";
  };
  const filmCard = (video) => {
    const isStream = video.kind === "stream";
    const end = isStream ? Math.max(video.stream.seen_until, video.duration) : video.duration;
    const at = isStream ? end : Math.min(end / 3, 60);
    const src = end > 0 && page.pictureOf(video.id, Math.round(at)); // a stream may have none yet
    const item = page.card(
      page.addressOf(video.id), src, formatClock(end), video.title, moreOf(video),
    );
    if (video.stream && (isStream || page.isWatched(video))) page.addLive(item, video);
    return item;
  };
  const isListed = (video) => { // by the filters below the search
    const name = $("only-name").value.trim().toLowerCase(), kind = $("only-kind").value;
    const day = (id) => ($(id).value ? new Date(`${$(id).value}T00:00`).getTime() / 1000 : null);
    const since = day("since"), until = day("until");
    if (name && !video.title.toLowerCase().includes(name)) return false;
    if (kind && video.kind !== kind) return false;
    if (since === null && until === null) return true;
    if (video.began === null) return false; // nobody knows when it was
    const end = video.began + video.duration;
    return (since === null || end >= since) && (until === null || video.began < until + 86400);
  };
  page.drawFilms = () => {
    const listed = page.videos.filter(isListed);
    // what did not change stays, with its focus
    const wanted = JSON.stringify(listed.map((video) => [
      video.id, video.encoded, video.is_encoding,
      video.stream ? [video.stream.state, video.stream.healthy, video.stream.error] : 0,
    ]));
    const isFiltered = listed.length < page.videos.length;
    $("films-title").textContent = isFiltered
      ? `Films and streams: ${listed.length} of ${page.videos.length}` : "Films and streams";
    if ($("films").dataset.key === wanted) return;
    $("films").dataset.key = wanted;
    const focused = document.activeElement && document.activeElement.closest("#films a");
    $("films").replaceChildren(...listed.map(filmCard));
    if (focused) {
      const same = [...$("films").querySelectorAll("a")].find((each) => each.href === focused.href);
      if (same) same.focus();
    }
  };
  const drawFilmChoice = () => {
    const wanted = JSON.stringify(page.videos.map((video) => [video.id, video.title]));
    if ($("only-film").dataset.key === wanted) return;
    $("only-film").dataset.key = wanted;
    const chosen = $("only-film").value;
    $("only-film").replaceChildren(
      element("option", { value: "" }, "all"),
      ...page.videos.map((video) => element("option", { value: video.id }, video.title)),
    );
    $("only-film").value = chosen;
  };
  page.loadVideos = async () => {
    const reply = await page.call("GET", "/v1/videos");
    page.videos = reply.data;
    $("sources").hidden = !reply.can_watch;
    $("model").hidden = !reply.about;
    $("model").textContent = reply.about;
    $("nothing").hidden = page.videos.length > 0;
    $("nothing").textContent = reply.whole_bank
      ? "The bank holds no film yet." : "Nobody has added a film yet. A server that is started " +
        "with whole_bank=true also shows what its bank holds.";
    page.drawFilms();
    drawFilmChoice();
    for (const draw of page.onVideos) draw();
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
  page.search = async () => {
    const query = $("words").value.trim(), only = $("only-film").value;
    if (!query) return page.tell("Say what to look for.", true);
    page.tell("Searching…");
    const body = {
      query, top: 24, videos: only ? [only] : [],
      start: parseTime($("from").value, "From"), end: parseTime($("to").value, "To"),
    };
    const reply = await page.call("POST", "/v1/search", body);
    moments = reply.data;
    const channels = [...new Set(moments.flatMap(channelsOf))];
    $("only-channel").replaceChildren(
      element("option", { value: "" }, "anything"),
      ...channels.map((each) => element("option", { value: each }, each)),
    );
    page.tell(reply.warning || "");
    page.drawMoments();
    $("found-title").focus();
  };
  page.drawMoments = () => {
    const channel = $("only-channel").value;
    const shown = moments.filter((moment) => !channel || channelsOf(moment).includes(channel));
    $("found").hidden = false;
    const count = shown.length === 1 ? "1 moment" : `${shown.length} moments`;
    $("found-title").textContent = `Found: ${count}`;
    $("hits").replaceChildren(...shown.map((moment) => page.card(
      page.addressOf(moment.video_id, moment.start),
      page.pictureOf(moment.video_id, moment.frame_at),
      formatClock(moment.start), moment.filename,
      moment.text || channelsOf(moment).join(", "),
    )));
  };

  // ---- a film or stream

  const filmLength = () => {
    const seen = page.film.stream ? page.film.stream.seen_until : 0;
    return Math.max(seen, page.film.duration);
  };
  page.isPlayable = () => page.film.has_media && unplayable !== page.film.id;
  const at = () => (page.isPlayable() ? $("player").currentTime : page.second() ?? filmLength());
  page.showFilm = (id) => {
    page.film = null;
    page.spans = { cited: [], read: [] };
    page.loadFilm(id).then(() => {
      $("title").focus();
      page.highlight(document.querySelector(".turn.lit"));
      page.goTo(page.second());
    }).catch((error) => page.tell(error.message, true));
  };
  page.loadFilm = async (id) => {
    const film = await page.call("GET", page.pathOf(id));
    if (location.pathname !== page.addressOf(id)) return; // the visitor has gone on
    page.film = film;
    document.title = `${film.title} – Reelbank`;
    $("title").textContent = film.title;
    const src = `${page.pathOf(film.id)}/content`;
    if (page.isPlayable() && $("player").getAttribute("src") !== src) $("player").src = src;
    $("player").hidden = !page.isPlayable();
    page.drawFilm();
  };
  page.drawFilm = () => {
    const { film, spans } = page, length = filmLength();
    $("timeline").hidden = length <= 0;
    if (length > 0) {
      const last = film.segments.length ? film.segments[film.segments.length - 1][1] : 0;
      const seen = film.stream ? film.stream.seen_until : 0;
      drawTrack($("track"), $("ticks"), length, [
        ["seen", 0, Math.max(last, seen)],
        ...spans.read.map(([a, b]) => ["read", a, b]),
        ...spans.cited.map(([a, b]) => ["cited", a, b]),
        ...film.segments.slice(1).map(([a]) => ["cut", a, a]),
      ]);
      drawThumbs(length);
      movePlayhead();
    }
    drawBadge();
    drawFigures();
    drawLines();
    for (const draw of page.onFilm) draw();
  };
  const drawLines = () => {
    const { film } = page;
    $("words-of-film").hidden = film.lines.length === 0;
    if ($("lines").dataset.key === `${film.id}-${film.lines.length}`) return;
    $("lines").dataset.key = `${film.id}-${film.lines.length}`;
    $("lines").replaceChildren(...film.lines.map((line) => page.lineItem(line.start, line.text)));
  };
  page.lineItem = (start, text) => {
    const item = element("li");
    const button = element("button", { type: "button", "data-start": start });
    button.append(element("time", {}, formatClock(start)), element("span", {}, text));
    item.append(button);
    return item;
  };
  const drawThumbs = (length) => {
    const { film, spans } = page;
    const end = page.isWatched(film) ? film.stream.seen_until : length;
    const count = window.innerWidth < 600 ? 4 : 6;
    const hot = spans.cited.map(([a, b]) => Math.round(a + b) / 2).slice(0, count);
    const step = length / count;
    const even = Array.from({ length: count }, (_, i) => Math.floor((i + 0.5) * step));
    const isFree = (time) =>
      time <= end && hot.every((other) => Math.abs(other - time) > step / 2);
    const times = [...hot, ...even.filter(isFree)].sort((a, b) => a - b);
    const wanted = JSON.stringify([film.id, times, hot]);
    if ($("thumbs").dataset.key === wanted) return;
    $("thumbs").dataset.key = wanted;
    const active = document.activeElement;
    const focused = active && active.closest("#thumbs") ? active.dataset.start : null;
    $("thumbs").replaceChildren(...times.map((time) => {
      const item = element("li");
      item.append(thumbButton(time, page.pictureOf(film.id, time), hot.includes(time)));
      return item;
    }));
    if (focused === null) return;
    const same = document.querySelector(`#thumbs [data-start="${focused}"]`);
    if (same) same.focus();
  };
  const drawBadge = () => {
    const { film } = page, past = page.second(), watched = page.isWatched(film);
    const stills = !page.isPlayable();
    $("badge").hidden = film.kind !== "stream" || !watched || !film.stream.healthy;
    $("badge").textContent = stills && past !== undefined ? formatClock(past) : "Live";
    $("badge").classList.toggle("back", stills && past !== undefined);
    $("back").hidden = !(watched && stills && past !== undefined);
    $("back").textContent = film.kind === "stream" ? "Back to live" : "Back to the newest";
  };
  const speedOf = (video) => { // times real time, since this page looks on
    const now = [performance.now() / 1000, video.stream.seen_until];
    if (!speedMeter || speedMeter.id !== video.id) speedMeter = { id: video.id, first: now, last: now };
    if (now[1] > speedMeter.last[1]) speedMeter.last = now;
    const [first, last] = [speedMeter.first, speedMeter.last];
    return last[0] > first[0] ? (last[1] - first[1]) / (last[0] - first[0]) : 0;
  };
  const drawFigures = () => {
    const { film } = page, { stream } = film, memory = film.in_memory || {};
    const rows = [];
    if (stream) {
      rows.push(["State", page.stateOf(film)], ["Seen", formatClock(stream.seen_until)]);
      rows.push(["Speed", `${speedOf(film).toFixed(1)}×`], ["Frames", stream.frames]);
      if (film.kind === "stream") {
        rows.push(["Sampled", `${stream.sampled_fps} a second`]);
        if (stream.lag !== null) rows.push(["Lag", `${stream.lag.toFixed(1)} s`]);
        rows.push(["Dropped", stream.dropped], ["Reconnected", `${stream.reconnects}×`]);
      }
    }
    if (film.encoded < 1 && !page.isWatched(film)) rows.push(["Encoded", `${Math.round(100 * film.encoded)} %`]);
    rows.push(["On disk", formatBytes(film.bytes)]);
    rows.push(["Bank in RAM", formatBytes((memory.ram || 0) + (memory.index || 0))]);
    if (memory.device) rows.push(["Bank on the GPU", formatBytes(memory.device)]);
    const list = $("figures");
    if (list.dataset.key !== rows.map((row) => row[0]).join()) {
      list.dataset.key = rows.map((row) => row[0]).join();
      list.replaceChildren(...rows.map(([name]) => {
        const row = element("div");
        row.append(element("dt", {}, name), element("dd"));
        return row;
      }));
    }
    rows.forEach(([, value], i) => {
      const detail = list.children[i].children[1];
      // an unchanged text is not set again, so that it stays selected
      if (detail.textContent !== String(value)) detail.textContent = value;
    });
  };
  const movePlayhead = () => {
    const head = $("playhead"), { film } = page;
    if (!film || !head) return;
    const length = Math.max(filmLength(), 1e-6);
    head.style.left = `${Math.min(100, (100 * at()) / length)}%`;
    $("clock").textContent = `${formatClock(at())} / ${formatClock(filmLength())}`;
    $("link").href = page.addressOf(film.id, at());
  };
  // undefined: the beginning of a film, the newest picture of a stream
  page.goTo = (time, end) => {
    pauseAt = end === undefined ? null : end;
    if (page.isPlayable()) {
      $("still").hidden = true;
      if (time !== undefined) $("player").currentTime = time;
      if (end !== undefined) $("player").play().catch(() => {});
    } else {
      showStill(time);
    }
    drawBadge();
    movePlayhead();
  };
  const showStill = (time) => { // undefined: the newest picture
    const { film } = page, next = new Image();
    next.onload = () => {
      if (page.film !== film && (!page.film || page.film.id !== film.id)) return;
      if (page.second() !== undefined && time === undefined) return; // another moment was chosen
      $("still").src = next.src;
      $("still").alt = time === undefined ? "Live picture" : `Picture at ${formatClock(time)}`;
      $("still").hidden = false;
      $("empty").hidden = true;
    };
    next.onerror = () => { $("empty").hidden = !$("still").hidden; };
    const isNewest = time === undefined && film.kind === "stream";
    const at = time ?? (film.stream ? film.stream.seen_until : 0);
    next.src = isNewest
      ? `${page.pictureOf(film.id)}?t=${Date.now()}`
      : page.pictureOf(film.id, Math.round(at * 10) / 10);
  };
  page.refreshStill = () => {
    const { film } = page;
    if (document.hidden || !film || page.isPlayable() || page.second() !== undefined) return;
    if (page.isWatched(film)) showStill();
  };
  page.seek = (time, end) => {
    history.replaceState(null, "", page.addressOf(page.film.id, time));
    page.goTo(time, end);
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    $("screen-box").scrollIntoView({ block: "nearest", behavior: calm ? "auto" : "smooth" });
  };
  page.seekShare = (share) => page.seek(share * filmLength());

  const player = $("player");
  player.addEventListener("timeupdate", () => {
    if (pauseAt !== null && player.currentTime >= pauseAt) {
      pauseAt = null;
      player.pause();
    }
    movePlayhead();
  });
  player.addEventListener("error", () => {
    if (!page.film || !player.error) return;
    unplayable = page.film.id;
    player.hidden = true;
    page.tell("This browser cannot play this film's format; its pictures are shown instead.");
    showStill(page.second() || 0);
  });
  return page;
})();
