// Chapters and a summary of a film, and the clip of the span that an answer cites. Knows the element
// ids of index.html.
(() => {
  "use strict";
  const $ = (id) => document.getElementById(id);
  const { formatClock, element, page } = reelbank;
  let shown = ""; // id of the film whose chapters are there

  const clear = () => {
    shown = "";
    $("summary").replaceChildren();
    $("chapters").replaceChildren();
    $("summary-told").textContent = "";
    $("summarize").hidden = false;
  };
  const sentence = (one) => {
    const item = element("li");
    item.append(
      element("span", {}, one.is_quoted ? `“${one.text}” ` : `${one.text} `),
      element("a", { class: "cite", href: page.addressOf(page.film.id, one.start) },
        formatClock(one.start)),
    );
    return item;
  };
  const chapter = (one) => {
    const item = element("li"), button = element("button", {
      type: "button", "data-start": one.start,
    });
    const img = element("img", {
      alt: "", loading: "lazy",
      src: page.pictureOf(page.film.id, one.pictures.length ? one.pictures[0] : one.start),
    });
    img.addEventListener("error", () => img.remove());
    button.append(img, element("time", {}, formatClock(one.start)), element("span", {}, one.title));
    item.append(button);
    return item;
  };
  page.summarize = async () => {
    const { id } = page.film;
    $("summary-told").textContent = "Summarizing…";
    $("summarize").hidden = true;
    try {
      const reply = await page.call("GET", `${page.pathOf(id)}/summary`);
      if (!page.film || page.film.id !== id) return;
      shown = id;
      $("summary-told").textContent = reply.notes.join(" ");
      $("summary").replaceChildren(...reply.sentences.map(sentence));
      $("chapters").replaceChildren(...reply.chapters.map(chapter));
    } catch (error) {
      clear();
      $("summary-told").textContent = error.message;
    }
  };
  page.onFilm.push(() => {
    const { film, spans } = page;
    $("chapters-of-film").hidden = film.segments.length === 0;
    if (shown && shown !== film.id) clear();
    const [first] = spans.cited;
    $("clip").hidden = !(film.has_media && first);
    if (first) {
      $("clip").href = `${page.pathOf(film.id)}/clip?start=${first[0]}&end=${first[1]}`;
      $("clip").textContent =
        `Download the clip ${formatClock(first[0])}–${formatClock(first[1])}`;
    }
  });
})();
