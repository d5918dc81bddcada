// What the address says, what the visitor does, and the loop. Comes last. Knows the element ids of
// index.html.
(() => {
  "use strict";
  const $ = (id) => document.getElementById(id);
  const { page } = reelbank;
  let isListening = false;

  const show = () => {
    const match = /^\/film\/([^/]+)$/.exec(location.pathname);
    const isWall = location.pathname === "/live";
    page.tell("");
    $("library").hidden = Boolean(match) || isWall;
    $("stage").hidden = !match;
    $("wall").hidden = !isWall;
    const current = (id, is) => {
      if (is) $(id).setAttribute("aria-current", "page");
      else $(id).removeAttribute("aria-current");
    };
    current("to-library", !match && !isWall);
    current("to-wall", isWall);
    if (match) {
      const id = decodeURIComponent(match[1]);
      if (page.film && page.film.id === id) page.goTo(page.second());
      else page.showFilm(id);
    } else {
      $("player").pause();
      page.film = null;
      document.title = isWall ? "Live – Reelbank" : "Reelbank";
      if (isWall) page.showWall();
      page.drawAlerts();
    }
    page.drawAbout();
  };
  // in one column, what belongs to the film stands behind the questions: also for the Tab key
  const narrow = matchMedia("(max-width: 899px)");
  const arrange = () => {
    const place = $(narrow.matches ? "below" : "stage");
    place.append($("figures"), $("chapters-of-film"), $("words-of-film"));
  };
  narrow.addEventListener("change", arrange);
  arrange();
  page.visit = (href) => {
    history.pushState(null, "", href);
    show();
  };
  const reload = async () => {
    try {
      if (document.hidden) return;
      await page.loadVideos();
      const { film } = page;
      if (film && (film.stream || film.encoded < 1)) await page.loadFilm(film.id);
      page.drawAbout();
      if (!isListening && page.videos.some((video) => video.stream)) {
        isListening = true;
        page.listen();
      }
    } catch { /* said at the start; the server may be back in a moment */ }
  };
  const begin = async () => {
    page.rememberKey();
    try {
      page.models = (await page.call("GET", "/v1/models")).data.map((model) => model.id);
      await page.loadVideos();
    } catch (error) {
      return page.tell(error.message, true);
    }
    $("key-form").hidden = true;
    show();
    await reload();
  };
  const followDarkMode = () => {
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const set = () => document.documentElement.classList.toggle("dark", dark.matches);
    dark.addEventListener("change", set);
    set();
  };

  const onLink = (event, link) => {
    event.preventDefault();
    const [path, time] = link.getAttribute("href").split("#t=");
    if (page.film && path === page.addressOf(page.film.id) && time !== undefined) {
      const turn = link.closest(".turn");
      if (turn) page.highlight(turn);
      page.seek(Number(time), link.dataset.end ? Number(link.dataset.end) : undefined);
    } else {
      page.visit(link.href);
    }
  };
  const buttons = {
    pick: () => $("file").click(),
    camera: () => page.share("camera"),
    screen: () => page.share("screen"),
    back: () => page.visit(page.addressOf(page.film.id)),
    stop: () => page.stopWatching(),
    play: () => page.play(page.film.id, $("play-speed").value),
    summarize: () => page.summarize(),
    quiet: () => page.stopAnswer(),
    fresh: () => page.forgetTalk(),
  };
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href]");
    if (link && link.origin === location.origin && !event.ctrlKey && !event.metaKey) {
      if (!link.hasAttribute("download")) onLink(event, link);
      return;
    }
    const target = event.target.closest("button, #track, .turn");
    if (!target) return;
    if (target.matches(".turn")) page.highlight(target);
    else if (target.id === "track") {
      const box = target.getBoundingClientRect();
      page.seekShare((event.clientX - box.left) / box.width);
    } else if (target.dataset.number) {
      page.removeAlert(target.dataset.stream, target.dataset.number)
        .catch((error) => page.refuse(error.message));
    } else if (target.dataset.start) page.seek(Number(target.dataset.start));
    else if (Object.hasOwn(buttons, target.id)) {
      Promise.resolve().then(buttons[target.id]).catch((error) => page.tell(error.message, true));
    }
  });
  document.addEventListener("keydown", (event) => { // Tab and Enter choose an answer
    if (event.key === "Enter" && event.target.matches(".turn")) page.highlight(event.target);
  });
  const forms = {
    "key-form": () => {
      page.key = $("key").value.trim();
      sessionStorage.setItem("reelbank-key", page.key);
      return begin();
    },
    "search-form": page.search,
    "address-form": page.watchAddress,
    "request-form": page.addAlert,
    asking: () => {
      const text = $("question").value.trim();
      $("question").value = "";
      return text ? page.ask(text) : undefined;
    },
  };
  document.addEventListener("submit", (event) => {
    event.preventDefault();
    const { id } = event.target;
    const complain = id === "request-form" ? page.refuse : (text) => page.tell(text, true);
    Promise.resolve().then(() => forms[id]()).catch((error) => complain(error.message));
  });
  document.addEventListener("input", (event) => {
    if (event.target.closest("#film-filters")) page.drawFilms();
  });
  document.addEventListener("change", (event) => {
    if (event.target.id === "only-channel") return page.drawMoments();
    if (event.target.id !== "file" || !event.target.files.length) return;
    const files = [...event.target.files];
    event.target.value = "";
    page.addFilms(files);
  });
  window.addEventListener("popstate", show);
  window.addEventListener("hashchange", show);
  followDarkMode();
  begin();
  setInterval(reload, 2000);
  setInterval(() => { page.refreshStill(); page.refreshWall(); }, 500);
})();
