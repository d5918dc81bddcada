// The visitor's own conversation, and the alerts of streams. Knows the element ids of index.html.
(() => {
  "use strict";
  const $ = (id) => document.getElementById(id);
  const { formatClock, element, page } = reelbank;
  let messages = []; // of this visitor's conversation
  let asking = null; // AbortController of the running answer
  const spansOf = new WeakMap(); // turn -> {id of the film, cited, read}

  // ---- the conversation

  const urlPart = (url) => ({ type: "video_url", video_url: { url } });
  const subject = () => { // the model and the part of a message that name what is asked about
    const { film, models } = page;
    if (!film) return { model: models[1], part: null };
    if (film.stream) return { model: models[0], part: urlPart(`stream:${film.id}`) };
    if (!film.file_id) return { model: models[0], part: urlPart(`video:${film.id}`) };
    return { model: models[0], part: { type: "file", file: { file_id: film.file_id } } };
  };
  page.drawAbout = () => {
    const canAsk = Boolean(page.film || page.models[1]);
    $("question").disabled = $("send").disabled = !canAsk;
    if ($("about")) {
      $("about").textContent = canAsk
        ? "Answers appear here, with the moments that they rest on."
        : "Open a film to ask about it. A server that is started with whole_bank=true also answers " +
          "from all films.";
    }
  };
  page.ask = async (text) => {
    const { model, part } = subject(), about = page.film;
    if (asking) asking.abort();
    const mine = (asking = new AbortController());
    const turn = element("article", { class: "turn", tabindex: 0 });
    const said = element("p", { class: "said running" });
    turn.append(element("p", { class: "asked" }, text), said);
    if ($("about")) $("talk").replaceChildren();
    $("talk").classList.remove("empty");
    for (const each of document.querySelectorAll(".turn.newest")) each.classList.remove("newest");
    turn.classList.add("newest");
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
      said.classList.add("done");
      drawEnd(turn, end, about);
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
  page.stopAnswer = () => { if (asking) asking.abort(); };
  page.forgetTalk = () => {
    page.stopAnswer();
    messages = [];
    $("talk").replaceChildren(element("p", { id: "about" }));
    $("talk").classList.add("empty");
    $("fresh").hidden = true;
    page.drawAbout();
  };
  // the fields of the end of an answer; onPiece: gets each piece of its text
  const readAnswer = async (body, signal, onPiece) => {
    const response = await fetch("/v1/chat/completions", {
      method: "POST", signal, body: JSON.stringify(body),
      headers: { "Content-Type": "application/json", ...page.headers() },
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
  const drawEnd = (turn, end, about) => {
    const citations = end.citations || [];
    const ownerOf = (one) => {
      const file = page.videos.find((video) => one.file_id && video.file_id === one.file_id);
      return one.video_id || (file && file.id) || (about && about.id);
    };
    if (citations.length) {
      const row = element("p", { class: "cites" });
      row.append(element("span", {}, "Seen at"));
      for (const one of citations) {
        const id = ownerOf(one), where = about && about.id === id ? "" : `${one.filename || ""} `;
        const text = `${where}${formatClock(one.start)}–${formatClock(one.end)}`;
        row.append(element("a", {
          class: "cite", href: page.addressOf(id, one.start), "data-start": one.start,
          "data-end": one.end,
        }, text));
      }
      turn.append(row);
    }
    for (const note of [end.understood, end.warning].filter(Boolean)) {
      turn.append(element("p", { class: "note" }, note));
    }
    if (about) {
      spansOf.set(turn, {
        id: about.id, read: end.recalled || [],
        cited: citations.filter((one) => ownerOf(one) === about.id).map((one) => [one.start, one.end]),
      });
      page.highlight(turn);
    }
  };
  page.highlight = (turn) => { // what its answer read and cites, on the timeline
    const spans = turn && spansOf.get(turn);
    if (!spans || !page.film || page.film.id !== spans.id) return;
    for (const each of document.querySelectorAll(".turn")) {
      each.classList.toggle("lit", each === turn);
    }
    page.spans = spans;
    page.drawFilm();
  };

  // ---- alerts

  const streams = () => page.videos.filter(
    (video) => video.stream && (!page.film || video.id === page.film.id),
  );
  page.refuse = (text) => {
    $("refused").textContent = text;
    $("refused").classList.toggle("bad", Boolean(text));
  };
  const drawAlerts = () => {
    const { film } = page, isStream = Boolean(film && film.stream);
    const rows = streams().flatMap((video) => Object.entries(video.stream.alerts)
      .map(([number, text]) => [video.id, number, text]));
    $("request-form").hidden = !(isStream && page.isWatched(film));
    $("standing").hidden = !isStream && rows.length === 0 && $("notices").children.length === 0;
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
  const alertsOf = (name) => `/v1/streams/${encodeURIComponent(name)}/alerts`;
  page.addAlert = async () => {
    page.refuse("");
    await page.call("POST", alertsOf(page.film.id), { request: $("request").value });
    $("request").value = "";
    await page.loadVideos();
  };
  page.removeAlert = async (name, number) => {
    await page.call("DELETE", `${alertsOf(name)}/${number}`);
    await page.loadVideos();
  };
  page.listen = async () => {
    for (;;) {
      try {
        const response = await fetch("/v1/notices", { headers: page.headers() });
        if (response.ok) await readEvents(response, addNotice);
        else if ([401, 403, 404].includes(response.status)) return; // no streams, or not for this key
      } catch { /* the server is unreachable; try again */ }
      await new Promise((done) => setTimeout(done, 3000));
    }
  };
  const addNotice = (notice) => {
    const video = page.videos.find((each) => each.id === notice.video);
    const item = element("li"), name = video ? video.title : notice.stream;
    item.append(element("span", {}, `${name}: ${notice.request}`), element("a", {
      class: "cite", href: page.addressOf(notice.video, notice.time),
    }, formatClock(notice.time)));
    $("notices").prepend(item);
    drawAlerts();
    while ($("notices").children.length > 20) $("notices").lastChild.remove();
  };
  page.drawAlerts = drawAlerts;
  page.onVideos.push(drawAlerts);
  page.onFilm.push(drawAlerts);
})();
