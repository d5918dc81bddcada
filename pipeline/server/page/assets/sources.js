// What a visitor adds: films, with their progress; the pictures of this browser's camera or screen;
// addresses; and films that are watched as they play. Knows the element ids of index.html.
(() => {
  "use strict";
  const $ = (id) => document.getElementById(id);
  const { element, upload, page } = reelbank;
  let capture = null; // {id, media}: this browser's camera or screen

  // ---- films

  const rowOf = (name) => {
    const item = element("li"), told = element("span", {}, "waits");
    const bar = element("progress", { max: 1, value: 0, "aria-label": `Progress of ${name}` });
    item.append(element("strong", {}, name), bar, told);
    $("uploads").append(item);
    return (text, share, bad = false) => {
      told.textContent = text;
      told.classList.toggle("bad", bad);
      if (share === undefined) bar.remove();
      else bar.value = share;
    };
  };
  const sent = (file, purpose, row) => new Promise((done, failed) => {
    const onTold = (text, bad, share) => {
      if (bad) failed(new Error(text));
      else row(share < 1 ? `sent ${Math.round(100 * share)} %` : "is being checked", share);
    };
    upload(file, "/v1/files", onTold, done, page.headers(), { purpose });
  });
  const encoded = async (stored, row) => {
    for (;;) {
      const now = await page.call("GET", `/v1/files/${stored.id}`);
      if (now.encoded >= 1) return row("is in the bank", 1);
      row(now.encoded > 0 ? `encoded ${Math.round(100 * now.encoded)} %` : "waits", now.encoded);
      await new Promise((next) => setTimeout(next, 500));
    }
  };
  const addFilm = async (file, speed) => {
    const row = rowOf(file.name);
    try {
      const stored = await sent(file, speed === "" ? "user_data" : "live", row);
      await page.loadVideos();
      if (speed === "") await encoded(stored, row);
      else {
        row("is watched");
        const video = page.videos.find((each) => each.file_id === stored.id);
        await page.play(video.id, speed);
        page.visit(page.addressOf(video.id));
      }
      await page.loadVideos();
    } catch (error) {
      row(error.message, undefined, true);
    }
  };
  page.addFilms = async (files) => {
    const speed = $("speed").value;
    $("uploads").replaceChildren();
    for (const file of files) await addFilm(file, speed);
  };
  page.play = async (id, speed) => {
    await page.call("POST", `${page.pathOf(id)}/play`, { speed: Number(speed) });
    await page.loadVideos();
    page.onceFilm = () => { // the player shows what is being seen, where it can keep up
      const player = $("player");
      if (!page.film || page.film.id !== id || !page.isPlayable() || !Number(speed)) return;
      player.defaultPlaybackRate = player.playbackRate = Number(speed);
      player.play().catch(() => {});
    };
    if (page.film && page.film.id === id) await page.loadFilm(id);
  };
  page.stopWatching = async () => {
    const { film } = page;
    if (capture && capture.id === film.id) stopCapture();
    const isFeed = film.kind === "film" || /^browser:/.test(film.stream.url);
    await page.call("DELETE", isFeed
      ? `${page.pathOf(film.id)}/play` : `/v1/streams/${encodeURIComponent(film.id)}`);
    await page.loadVideos();
    if (isFeed) await page.loadFilm(film.id);
    else page.visit("/");
  };
  page.onFilm.push(() => {
    const { film } = page, watched = page.isWatched(film);
    const isIdle = film.file_id && film.encoded < 1 && !film.is_encoding && !watched;
    $("play-row").hidden = !isIdle || $("sources").hidden;
    $("stop").hidden = !watched;
    if (page.onceFilm) {
      const follow = page.onceFilm;
      page.onceFilm = null;
      follow();
    }
  });

  // ---- addresses

  const nameOf = (address) => { // the same address continues its stream
    const plain = address.replace(/^[a-z0-9]+:\/\/(?:[^@/]*@)?/i, "").replace(/[?#].*$/, "");
    const name = plain.replace(/[^A-Za-z0-9_.-]+/g, "-").replace(/^[-_.]+|[-_.]+$/g, "");
    return name.slice(0, 64) || "stream";
  };
  page.watchAddress = async () => {
    const url = $("address").value.trim();
    page.tell("Starting…");
    const stream = await page.call("POST", "/v1/streams", { name: nameOf(url), url });
    page.tell("");
    $("address").value = "";
    await page.loadVideos();
    page.visit(page.addressOf(stream.name));
  };

  // ---- this browser's camera and screen

  const stopCapture = () => {
    if (capture) capture.media.getTracks().forEach((track) => track.stop());
    capture = null;
  };
  const openCapture = (kind) => {
    if (kind === "screen") {
      return navigator.mediaDevices.getDisplayMedia({ video: { frameRate: 5 } });
    }
    const video = { width: 1280, height: 720, facingMode: "environment" };
    return navigator.mediaDevices.getUserMedia({ video });
  };
  page.share = async (kind) => {
    if (!navigator.mediaDevices) {
      return page.tell("This browser gives pictures only to pages at https or localhost.", true);
    }
    stopCapture();
    let media;
    try {
      media = await openCapture(kind);
    } catch {
      const camera = "There is no camera, or it may not be used.";
      return page.tell(kind === "camera" ? camera : "The screen may not be shown.", true);
    }
    try {
      const { id } = await page.call("POST", "/v1/videos", { browser: kind });
      capture = { id, media };
    } catch (error) {
      media.getTracks().forEach((track) => track.stop());
      throw error;
    }
    await page.loadVideos();
    page.visit(page.addressOf(capture.id));
    sendPictures(capture).catch((error) => page.tell(error.message, true));
  };
  const sendPictures = async (mine) => {
    const canvas = document.createElement("canvas"), view = document.createElement("video");
    view.muted = true;
    view.srcObject = mine.media;
    await view.play();
    while (capture === mine && mine.media.active) {
      if (view.videoWidth) {
        canvas.width = Math.min(640, view.videoWidth);
        canvas.height = Math.round((canvas.width * view.videoHeight) / view.videoWidth);
        canvas.getContext("2d").drawImage(view, 0, 0, canvas.width, canvas.height);
        const body = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.8));
        const response = await fetch(`${page.pathOf(mine.id)}/frame`, {
          method: "POST", body, headers: page.headers(),
        }).catch(() => null);
        if (response && response.status === 404) break; // nobody watches it any more
      }
      await new Promise((done) => setTimeout(done, 400));
    }
    if (capture === mine) stopCapture();
    stopFeed(mine.id);
  };
  const stopFeed = (id) => fetch(`${page.pathOf(id)}/play`, {
    method: "DELETE", headers: page.headers(), keepalive: true,
  }).catch(() => {});
  window.addEventListener("pagehide", () => { if (capture) stopFeed(capture.id); });
  const canShareScreen = navigator.mediaDevices && navigator.mediaDevices.getDisplayMedia;
  $("screen").hidden = !canShareScreen; // phones cannot
})();
