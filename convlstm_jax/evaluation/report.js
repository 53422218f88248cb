"use strict";
// The player of the report: one slider over the frames of a clip, each row (input,
// truth, prediction, error) in a panel of its own. A row is one PNG picture with its
// frames below each other; the position p of the slider shows its frame p - first.
(() => {
  const clips = JSON.parse(document.getElementById("player-data").textContent);
  const get = (name) => document.getElementById("player-" + name);
  const [choice, panels, slider, play, time, note] =
    ["clip", "panels", "slider", "play", "time", "note"].map(get);
  const frameMilliseconds = 200;
  const pauseMilliseconds = 1000;
  let clip = null;
  let views = [];
  let timer = null;

  function view(row) {
    const figure = document.createElement("figure");
    const caption = document.createElement("figcaption");
    const canvas = document.createElement("canvas");
    const hint = document.createElement("p");
    const picture = new Image();
    caption.textContent = row.name;
    figure.className = "panel " + row.kind;
    [canvas.width, canvas.height] = [row.width, row.height];
    canvas.setAttribute("role", "img");
    figure.append(caption, canvas, hint);
    picture.onload = show;
    picture.src = row.picture;
    return { row, figure, canvas, hint, picture };
  }

  function show() {
    const position = Number(slider.value);
    time.textContent = clip.times[position];
    slider.setAttribute("aria-valuetext", clip.times[position]);
    for (const { row, figure, canvas, hint, picture } of views) {
      const frame = Math.min(position - row.first, row.count - 1);
      const now = frame === position - row.first && frame >= 0;
      const context = canvas.getContext("2d");
      figure.classList.toggle("away", !now);
      canvas.setAttribute("aria-label", row.name + " " + clip.times[position]);
      context.clearRect(0, 0, row.width, row.height);
      if (frame >= 0 && picture.complete && picture.naturalWidth) {
        context.drawImage(picture, 0, frame * row.height, row.width, row.height,
          0, 0, row.width, row.height);
      }
      hint.textContent = (now && row.notes[frame]) || row.hint || "\u00a0";
    }
  }

  function step(change) {
    slider.value = Number(slider.value) + change;
    show();
  }

  function choose(index, position) {
    choice.value = index;
    clip = clips[index];
    note.textContent = clip.note;
    slider.max = clip.times.length - 1;
    slider.value = position;
    views = clip.rows.map(view);
    panels.replaceChildren(...views.map(({ figure }) => figure));
    show();
  }

  function next() {
    const last = slider.value === slider.max;
    slider.value = last ? 0 : Number(slider.value) + 1;
    show();
    const wait = slider.value === slider.max ? pauseMilliseconds : frameMilliseconds;
    timer = setTimeout(next, wait);
  }

  function pause() {
    clearTimeout(timer);
    timer = null;
    play.textContent = "▶ Play";
  }

  function toggle() {
    if (timer !== null) {
      pause();
      return;
    }
    play.textContent = "❚❚ Pause";
    timer = setTimeout(next, frameMilliseconds);
  }

  choice.addEventListener("change", () => choose(Number(choice.value), slider.value));
  slider.addEventListener("input", () => { pause(); show(); });
  play.addEventListener("click", toggle);
  document.addEventListener("keydown", (event) => {
    const change = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    // The slider and the list of clips have the arrows for themselves.
    if (!change || event.target === slider || event.target === choice) return;
    pause();
    step(change);
  });
  // The first frame that was predicted: all rows have something to show there.
  choose(0, clips[0].rows[1].first);
  get("box").hidden = false;
})();
