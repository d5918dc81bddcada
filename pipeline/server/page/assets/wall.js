// All that is being watched at once: the newest picture of each, how it is doing, and how far behind.
// Knows the element ids of index.html.
(() => {
  "use strict";
  const $ = (id) => document.getElementById(id);
  const { formatClock, element, page } = reelbank;
  const lagOf = (stream) => stream.lag === null ? "" : `, ${stream.lag.toFixed(1)} s behind`;
  const moreOf = (video) => {
    const { stream } = video, lost = stream.dropped + stream.left_out;
    const frames = lost === 1 ? "frame" : "frames";
    return page.stateOf(video) + lagOf(stream) + (lost ? `, ${lost} ${frames} left out` : "");
  };
  const streams = () => page.videos.filter(
    (video) => video.kind === "stream" || page.isWatched(video),
  );
  const newest = (video) => video.kind === "stream"
    ? `${page.pictureOf(video.id)}?t=${Date.now()}`
    : page.pictureOf(video.id, Math.floor(video.stream.seen_until));
  const draw = () => {
    if ($("wall").hidden) return;
    const shown = streams(), list = $("screens");
    $("no-streams").hidden = shown.length > 0;
    const wanted = JSON.stringify(shown.map((video) => video.id));
    if (list.dataset.key !== wanted) {
      list.dataset.key = wanted;
      list.replaceChildren(...shown.map((video) => {
        const item = page.card(page.addressOf(video.id), "", "", video.title, "");
        item.querySelector(".frame").prepend(element("img", { alt: "" }));
        item.querySelector("img").hidden = true;
        page.addLive(item, video);
        return item;
      }));
    }
    shown.forEach((video, i) => {
      const item = list.children[i], badge = item.querySelector(".live");
      const { healthy, seen_until: seen } = video.stream;
      item.querySelector(".time").textContent = seen > 0 ? formatClock(seen) : "";
      item.querySelector(".more").textContent = moreOf(video);
      badge.textContent = healthy ? "Live" : "Not live";
      badge.classList.toggle("ill", !healthy);
    });
  };
  const isCalm = matchMedia("(prefers-reduced-motion: reduce)");
  let ticks = 0;
  page.refreshWall = () => {
    if (document.hidden || $("wall").hidden) return;
    if (isCalm.matches && ticks++ % 10) return; // a new picture every five seconds
    streams().forEach((video, i) => {
      const item = $("screens").children[i], next = new Image();
      if (!item || (!video.stream.healthy && !item.querySelector("img").hidden)) return;
      next.onload = () => { // a picture replaces the last one only once it is there
        const img = item.querySelector("img");
        img.src = next.src;
        img.hidden = false;
      };
      next.src = newest(video);
    });
  };
  page.showWall = () => {
    draw();
    page.refreshWall();
    $("wall-title").focus();
  };
  page.onVideos.push(draw);
})();
