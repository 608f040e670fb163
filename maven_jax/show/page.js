"use strict";
const $ = (id) => document.getElementById(id);
const data = JSON.parse($("prediction").textContent);

/* ---------- the prediction ---------- */
function bytes(text) {
  const raw = atob(text), out = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
  return out;
}
const floats = (text) => new Float32Array(bytes(text).buffer);
const time = new Float64Array(bytes(data.time).buffer);
const raw = floats(data.va);
const bold = data.smoothed ? floats(data.smoothed) : raw;
const boxes = floats(data.boxes);
const parts = Object.entries(data.contributions).map(([name, text]) => [name, floats(text)]);
const n = time.length, end = data.end;
const DIMENSIONS = ["valence", "arousal"];

/** The last index whose value is at most t; -1 before the first. */
function lastAt(values, t) {
  let low = 0, high = values.length;
  while (low < high) {
    const mid = (low + high) >> 1;
    if (values[mid] <= t) low = mid + 1; else high = mid;
  }
  return low - 1;
}
const frameAt = (t) => Math.max(0, lastAt(time, t + 1e-6));
const there = (spans, t) => { const i = lastAt(spans.map((s) => s[0]), t + 1e-6); return i >= 0 && t < spans[i][1]; };

function clockText(t) {
  const tenths = Math.round(t * 10), s = tenths % 600, m = Math.floor(tenths / 600);
  const seconds = (s / 10).toFixed(1).padStart(4, "0");
  return m < 60 ? `${m}:${seconds}` : `${Math.floor(m / 60)}:${String(m % 60).padStart(2, "0")}:${seconds}`;
}
const signed = (v) => Number.isFinite(v) ? (v < 0 ? "−" : "+") + Math.abs(v).toFixed(2) : "–";
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}
const svg = (tag, attributes) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
};

/* ---------- what plays: the embedded video or sound, otherwise a clock of our own ---------- */
let media = null, image = null, box = null;
const STAGE = 420; // height of the picture, where the window is wide enough
let now = 0, playing = false, rate = 1, ticked = 0;

function setUpStage() {
  const kind = data.media.kind;
  if (kind === "video" || kind === "audio") {
    media = make(kind, { playsinline: "", preload: "auto" });
    media.id = "player";
    media.addEventListener("error", withoutMedia);
    media.src = URL.createObjectURL(new Blob([bytes($("media").textContent)], { type: data.media.mime }));
    for (const event of ["play", "pause", "ended"]) media.addEventListener(event, () => setPlaying(!media.paused));
    media.addEventListener("click", toggle);
    if (kind === "audio") media.controls = true;
    media.addEventListener("seeked", () => { if (Math.abs(media.currentTime - now) > 0.05) show(media.currentTime); });
    $("picture").append(media);
  } else if (data.thumbnails.length) {
    image = make("img", { alt: "Picture of the video near the present moment" });
    $("picture").append(image);
  }
  if (kind !== "audio" && (media || image)) {
    box = make("div", { id: "box", hidden: "" });
    $("picture").append(box);
    const [w, h] = data.size;
    if (w) $("picture").style.width = `${Math.round((STAGE * w) / h)}px`;
  }
  $("stage").hidden = !(media || image);
  $("top").classList.toggle("alone", !(media || image));
}
function withoutMedia() {
  media.remove();
  media = null;
  $("picture").append(make("p", {}, "This browser cannot play the embedded file; the curves play without it."));
}
function setPlaying(value) {
  playing = value;
  $("play").firstElementChild.textContent = playing ? "❚❚" : "▶";
  $("play").setAttribute("aria-label", playing ? "Pause" : "Play");
  if (playing) { ticked = performance.now(); requestAnimationFrame(tick); } else speak();
}
function toggle() {
  if (!playing && now >= end - 0.02) seek(0);
  if (media) { if (media.paused) media.play().catch(withoutMedia); else media.pause(); } else setPlaying(!playing);
}
function tick(at) {
  if (!playing) return;
  let t = media ? media.currentTime : now + (rate * Math.max(0, at - ticked)) / 1000;
  ticked = at;
  if (!media && t >= end) { t = end; setPlaying(false); }
  show(t);
  if (playing) requestAnimationFrame(tick);
}
function seek(t) {
  t = Math.min(Math.max(t, 0), end);
  if (media) media.currentTime = Math.min(t, media.duration || end);
  show(t);
}
let speaking = 0;
function speak() {
  clearTimeout(speaking);
  speaking = setTimeout(() => {
    const i = frameAt(now);
    $("spoken").textContent = `${clockText(now)}, valence ${signed(bold[2 * i])}, arousal ${signed(bold[2 * i + 1])}`;
  }, 400);
}

/* ---------- the curves ---------- */
const LANE = 118, STRIP = 24, SHARE = 58, WORDS = 22, AXIS = 18, LEFT = 76, RIGHT = 8;
const canvas = $("curves");
let view = [0, end], width = 0;
const modalities = Object.keys(data.observed);
const partHeight = parts.length ? SHARE : STRIP;
const height = 2 * LANE + (data.words.length ? WORDS : 0) + modalities.length * partHeight + AXIS + 8;
const xOf = (t) => LEFT + ((t - view[0]) / (view[1] - view[0])) * (width - LEFT - RIGHT);
const tOf = (x) => view[0] + ((x - LEFT) / (width - LEFT - RIGHT)) * (view[1] - view[0]);

function draw() {
  width = $("timeline").clientWidth;
  const scale = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  canvas.style.height = `${height}px`;
  const pen = canvas.getContext("2d");
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  const style = getComputedStyle(document.documentElement);
  // A canvas does not know light-dark(): a probe's colour is resolved by the browser.
  const probe = document.body.appendChild(document.createElement("span"));
  const colour = {};
  for (const name of ["ink", "muted", "line", "shade", "valence", "arousal"]) {
    probe.style.color = style.getPropertyValue(`--${name}`);
    colour[name] = getComputedStyle(probe).color;
  }
  probe.remove();
  pen.font = `12px ${style.fontFamily}`;
  pen.textBaseline = "middle";
  let y = 0;
  DIMENSIONS.forEach((name, d) => {
    frame(pen, colour, y, LANE - 8, 1, name, colour[name]);
    if (bold !== raw) curve(pen, raw, d, y, LANE - 8, 1, colour[name], 1, 0.45);
    curve(pen, bold, d, y, LANE - 8, 1, colour[name], 2, 1);
    y += LANE;
  });
  if (data.words.length) { words(pen, colour, y); y += WORDS; }
  for (const name of modalities) {
    strip(pen, colour, y, partHeight - 6, name);
    const values = parts.find((part) => part[0] === name);
    if (values) {
      DIMENSIONS.forEach((dimension, d) => curve(pen, values[1], d, y, SHARE - 6, shareScale, colour[dimension], 1.3, 1));
    }
    y += partHeight;
  }
  axis(pen, colour, y + 8);
}
function clipped(pen, y, h, paint) {
  pen.save();
  pen.beginPath();
  pen.rect(LEFT, y, width - LEFT - RIGHT, h);
  pen.clip();
  paint();
  pen.restore();
}
function label(pen, colour, text, y, weight = 400) {
  pen.save();
  pen.fillStyle = colour;
  pen.font = pen.font.replace(/^/, weight > 400 ? "600 " : "");
  pen.textAlign = "left";
  pen.fillText(text, 0, y, LEFT - 26);
  pen.restore();
}
function frame(pen, colour, y, h, range, name, ink) {
  clipped(pen, y, h, () => {
    pen.fillStyle = colour.shade;
    for (const [a, b] of data.faceless) pen.fillRect(xOf(a), y, xOf(b) - xOf(a), h);
  });
  label(pen, ink, name, y + h / 2, 600);
  pen.fillStyle = colour.muted;
  pen.textAlign = "right";
  for (const value of [1, 0, -1]) {
    const level = y + (h * (1 - value)) / 2;
    pen.strokeStyle = colour.line;
    pen.beginPath();
    pen.moveTo(LEFT, Math.round(level) + 0.5);
    pen.lineTo(width - RIGHT, Math.round(level) + 0.5);
    pen.stroke();
    pen.fillText(value ? signed(value).slice(0, 2) : "0", LEFT - 6, Math.min(Math.max(level, y + 6), y + h - 6));
  }
}
function curve(pen, values, d, y, h, range, ink, thick, alpha) {
  const first = Math.max(frameAt(view[0]) - 1, 0), last = Math.min(frameAt(view[1]) + 1, n - 1);
  const level = (v) => y + (h * (1 - v / range)) / 2;
  clipped(pen, y - 1, h + 2, () => {
    pen.strokeStyle = ink;
    pen.lineWidth = thick;
    pen.globalAlpha = alpha;
    pen.lineJoin = "round";
    pen.beginPath();
    let open = false;
    // Of many frames in one column of pixels, the least and the most are drawn.
    const step = Math.max(1, Math.floor((last - first) / (2 * width)));
    for (let i = first; i <= last; i += step) {
      let least = Infinity, most = -Infinity;
      for (let j = i; j < Math.min(i + step, last + 1); j++) {
        const v = values[2 * j + d];
        if (v < least) least = v;
        if (v > most) most = v;
      }
      if (most === -Infinity) { open = false; continue; }
      const x = xOf(time[i]);
      if (open) pen.lineTo(x, level(least)); else pen.moveTo(x, level(least));
      if (most !== least) pen.lineTo(x, level(most)); else if (!open) pen.lineTo(x + 0.01, level(least));
      open = true;
    }
    pen.stroke();
  });
}
function words(pen, colour, y) {
  pen.fillStyle = colour.ink;
  pen.textAlign = "left";
  let free = LEFT;
  clipped(pen, y, WORDS, () => {
    const first = Math.max(lastAt(starts, view[0]), 0);
    for (const [from, , text] of data.words.slice(first)) {
      if (from > view[1]) break;
      const x = xOf(from);
      if (x < free) continue;
      pen.fillText(text, x, y + WORDS / 2);
      free = x + pen.measureText(text).width + 6;
    }
  });
  label(pen, colour.muted, "words", y + WORDS / 2);
}
function strip(pen, colour, y, h, name) {
  label(pen, colour.muted, name, y + h / 2);
  const lanes = parts.length > 0;
  clipped(pen, y, h, () => {
    pen.fillStyle = lanes ? colour.shade : colour.muted;
    pen.globalAlpha = lanes ? 0.75 : 0.55;
    const inset = lanes ? 0 : h / 4;
    for (const [a, b] of data.observed[name]) pen.fillRect(xOf(a), y + inset, Math.max(xOf(b) - xOf(a), 1), h - 2 * inset);
    if (lanes) {
      pen.strokeStyle = colour.line;
      pen.beginPath();
      pen.moveTo(LEFT, y + h / 2);
      pen.lineTo(width - RIGHT, y + h / 2);
      pen.stroke();
    }
  });
}
function axis(pen, colour, y) {
  const length = view[1] - view[0], wanted = length / Math.max(2, (width - LEFT) / 90);
  const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600].find((s) => s >= wanted) || 7200;
  pen.fillStyle = colour.muted;
  for (let k = Math.ceil(view[0] / step); k * step <= view[1]; k++) {
    const t = k * step, text = clockText(t);
    pen.textAlign = xOf(t) > width - 24 ? "right" : "center";
    pen.fillText(step < 1 ? text : text.slice(0, -2), Math.min(xOf(t), width - RIGHT), y);
  }
}
const starts = data.words.map((word) => word[0]);
let shareScale = 0.05;
for (const [, values] of parts) for (const v of values) if (Math.abs(v) > shareScale) shareScale = Math.abs(v);

function zoom(factor) {
  const length = factor ? Math.min(end, Math.max(Math.min(1, end), (view[1] - view[0]) * factor)) : end;
  const from = Math.min(Math.max(now - length / 2, 0), end - length);
  view = [from, from + length];
  draw();
  show(now);
}
function follow() {
  const length = view[1] - view[0];
  if (now >= view[0] && now <= view[1]) return;
  const from = Math.min(Math.max(now - length * 0.1, 0), end - length);
  view = [from, from + length];
  draw();
}

/* ---------- the present moment ---------- */
const TRAIL_S = 3, TRAIL_PARTS = 10;
let spokenWord = null, tabbed = null;

function show(t) {
  now = Math.min(Math.max(t, 0), end);
  follow();
  const i = frameAt(now), v = bold[2 * i], a = bold[2 * i + 1];
  $("playhead").style.left = `${xOf(now)}px`;
  $("seek").value = now;
  $("seek").setAttribute("aria-valuetext", clockText(now));
  $("clock").textContent = clockText(now);
  $("now-valence").textContent = signed(v);
  $("now-arousal").textContent = signed(a);
  $("now-modalities").textContent = modalities.filter((m) => there(data.observed[m], time[i])).join(" + ") || "nothing";
  const dot = $("dot");
  dot.classList.toggle("unknown", !Number.isFinite(v));
  if (Number.isFinite(v)) { dot.setAttribute("cx", v.toFixed(4)); dot.setAttribute("cy", (-a).toFixed(4)); }
  showTrail(i);
  showPicture(i);
  showWord();
  showShares(i);
}
function showTrail(i) {
  const pieces = $("trail").children;
  for (let k = 0; k < TRAIL_PARTS; k++) {
    const from = frameAt(Math.max(time[i] - TRAIL_S * (1 - k / TRAIL_PARTS), time[0]));
    const to = frameAt(Math.max(time[i] - TRAIL_S * (1 - (k + 1) / TRAIL_PARTS), time[0]));
    let points = "";
    for (let j = from; j <= to && to > from; j++) {
      if (Number.isFinite(bold[2 * j])) points += `${bold[2 * j].toFixed(3)},${(-bold[2 * j + 1]).toFixed(3)} `;
    }
    pieces[k].setAttribute("points", points);
  }
}
const thumbnailTimes = data.thumbnails.map((item) => item[0]);
function showPicture(i) {
  if (image) {
    const k = Math.max(0, lastAt(thumbnailTimes, now + 1e-6));
    if (image.dataset.shown !== String(k)) {
      image.dataset.shown = String(k);
      image.src = `data:image/jpeg;base64,${data.thumbnails[k][1]}`;
    }
    i = frameAt(thumbnailTimes[k]);
  }
  if (!box) return;
  const [w, h] = data.size;
  box.hidden = !(boxes[4 * i + 2] > 0) || !w;
  if (box.hidden) return;
  ["left", "top", "width", "height"].forEach((side, k) => {
    box.style[side] = `${(100 * boxes[4 * i + k]) / (k % 2 ? h : w)}%`;
  });
}

/* ---------- words ---------- */
function setUpWords() {
  if (!data.words.length) return;
  $("said").hidden = false;
  let line = null, before = -Infinity;
  data.words.forEach(([from, to, text], k) => {
    if (!line || from - before > 1.2) {
      line = make("span");
      $("transcript").append(make("p", {}, make("time", {}, clockText(from)), line));
    }
    line.append(make("button", { type: "button", tabindex: k ? "-1" : "0", "data-word": k }, text), " ");
    before = to;
  });
  const buttons = [...$("transcript").querySelectorAll("button")];
  tabbed = buttons[0];
  setUpWords.buttons = buttons;
  $("transcript").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) { rove(button); seek(starts[button.dataset.word]); }
  });
  $("transcript").addEventListener("keydown", (event) => {
    const button = event.target.closest("button");
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const other = button && by && buttons[Number(button.dataset.word) + by];
    if (other) { rove(other); other.focus(); }
    if (by) { event.preventDefault(); event.stopPropagation(); }
  });
}
function rove(button) {
  tabbed.tabIndex = -1;
  button.tabIndex = 0;
  tabbed = button;
}
function showWord() {
  const k = lastAt(starts, now + 1e-6), word = data.words[k];
  const button = word && now < word[1] ? setUpWords.buttons[k] : null;
  if (button === spokenWord) return;
  if (spokenWord) { spokenWord.classList.remove("spoken"); spokenWord.removeAttribute("aria-current"); }
  spokenWord = button;
  if (!button) return;
  button.classList.add("spoken");
  button.setAttribute("aria-current", "true");
  const list = $("transcript"), top = button.offsetTop;
  if (top < list.scrollTop || top + button.offsetHeight > list.scrollTop + list.clientHeight) list.scrollTop = top - 40;
}

/* ---------- what each modality adds ---------- */
function setUpShares() {
  if (!parts.length) return;
  $("parts").hidden = false;
  for (const [name, values] of parts) {
    const row = make("tr", {}, make("th", { scope: "row" }, name));
    DIMENSIONS.forEach((dimension, d) => {
      let sum = 0, count = 0;
      for (let i = d; i < values.length; i += 2) if (Number.isFinite(values[i])) { sum += Math.abs(values[i]); count++; }
      const mean = count ? (sum / count).toFixed(2) : "–";
      const bar = make("i"), value = make("span");
      row.append(make("td", {}, make("div", { class: `share ${dimension}` }, make("div", {}, bar), value, make("small", {}, `mean ${mean}`))));
      shares.push([values, d, bar, value]);
    });
    $("shares").append(row);
  }
}
const shares = [];
function showShares(i) {
  for (const [values, d, bar, value] of shares) {
    const v = values[2 * i + d], part = Number.isFinite(v) ? (50 * Math.abs(v)) / shareScale : 0;
    bar.style.width = `${part}%`;
    bar.style.left = `${v < 0 ? 50 - part : 50}%`;
    value.textContent = signed(v);
  }
}

/* ---------- summary, notes, table ---------- */
function setUpTexts() {
  for (const [name, value] of data.summary) $("summary").append(make("li", {}, `${name} `, make("b", {}, value)));
  $("notes").hidden = !data.notes.length;
  for (const note of data.notes) $("notes").lastElementChild.append(make("li", {}, note));
  $("length").textContent = clockText(end);
  $("seek").max = end;
  canvas.setAttribute("aria-label", `Valence and arousal over ${clockText(end)}. ${data.summary.map((item) => item.join(" ")).join(". ")}. The numbers are in the table below.`);
  const legend = $("legend"), key = (kind, colour, text) => legend.append(make("span", { class: colour }, make("i", { class: kind }), make("span", {}, text)));
  if (bold !== raw) { key("", "", "smoothed"); key("thin", "", "raw"); } else key("", "", "raw");
  if (data.faceless.length) key("shade", "", "no face");
  if (parts.length) legend.append(make("span", {}, "below: what each modality adds, shaded where it was there"));
  else if (modalities.length) legend.append(make("span", {}, "below: where each modality was there"));
}
function fillTable() {
  const place = $("numbers").lastElementChild, step = Math.max(1, Math.ceil(end / 600));
  if (place.firstChild || !$("numbers").open) return;
  const body = make("tbody");
  for (let t = 0; t < end; t += step) {
    const i = frameAt(t), said = data.words.filter((w) => w[0] >= t && w[0] < t + step).map((w) => w[2]).join(" ");
    body.append(make("tr", {}, make("td", {}, clockText(t)), make("td", {}, signed(bold[2 * i])), make("td", {}, signed(bold[2 * i + 1])), make("td", {}, said)));
  }
  const head = make("tr", {}, ...["time", ...DIMENSIONS, "words"].map((name) => make("th", { scope: "col" }, name)));
  place.append(make("table", {}, make("thead", {}, head), body));
}
function setUpCircle() {
  for (const [degrees, text] of data.concepts) {
    const angle = (degrees * Math.PI) / 180, x = 1.11 * Math.cos(angle), y = -1.11 * Math.sin(angle);
    const turned = degrees >= 180 ? 270 - degrees : 90 - degrees;
    const word = svg("text", { x, y, transform: `rotate(${turned} ${x} ${y})` });
    word.textContent = text;
    $("concepts").append(word);
  }
  let way = "", open = false;
  for (let i = 0; i < n; i += Math.max(1, Math.floor(n / 3000))) {
    const known = Number.isFinite(bold[2 * i]);
    if (known) way += `${open ? "L" : "M"}${bold[2 * i].toFixed(3)} ${(-bold[2 * i + 1]).toFixed(3)}`;
    open = known;
  }
  $("way").setAttribute("d", way);
  for (let k = 0; k < TRAIL_PARTS; k++) $("trail").append(svg("polyline", { opacity: (k + 1) / TRAIL_PARTS }));
  $("circumplex").addEventListener("click", (event) => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform($("circumplex").getScreenCTM().inverse());
    let best = -1, least = Infinity;
    for (let i = 0; i < n; i++) {
      const distance = (bold[2 * i] - at.x) ** 2 + (bold[2 * i + 1] + at.y) ** 2;
      if (distance < least) { least = distance; best = i; }
    }
    if (best >= 0) seek(time[best]);
  });
}

/* ---------- hands ---------- */
function setUpHands() {
  const line = $("timeline");
  let scrubbing = false;
  const at = (event) => tOf(event.clientX - line.getBoundingClientRect().left);
  line.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    scrubbing = true;
    line.setPointerCapture(event.pointerId);
    seek(at(event));
  });
  line.addEventListener("pointermove", (event) => {
    const t = at(event), inside = t >= view[0] && t <= view[1];
    if (scrubbing) seek(Math.min(Math.max(t, view[0]), view[1]));
    $("hair").hidden = $("tip").hidden = !inside || scrubbing;
    if (!inside) return;
    const i = frameAt(t), x = xOf(t);
    $("hair").style.left = `${x}px`;
    $("tip").textContent = `${clockText(t)}   valence ${signed(bold[2 * i])}   arousal ${signed(bold[2 * i + 1])}`;
    $("tip").style.left = `${Math.min(x + 10, width - $("tip").offsetWidth)}px`;
  });
  for (const name of ["pointerup", "pointercancel"]) line.addEventListener(name, () => { scrubbing = false; speak(); });
  line.addEventListener("pointerleave", () => { $("hair").hidden = $("tip").hidden = true; });
  $("seek").addEventListener("input", () => seek(Number($("seek").value)));
  $("play").addEventListener("click", toggle);
  $("in").addEventListener("click", () => zoom(0.5));
  $("out").addEventListener("click", () => zoom(2));
  $("speed").addEventListener("change", () => {
    rate = Number($("speed").value);
    if (media) media.playbackRate = rate;
  });
  $("numbers").addEventListener("toggle", fillTable);
  $("theme").addEventListener("click", turnTheme);
  document.addEventListener("keydown", onKey);
  new ResizeObserver(() => { draw(); show(now); }).observe(line);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}
function turnTheme() {
  const order = ["system", "light", "dark"], root = document.documentElement;
  const next = order[(order.indexOf(root.dataset.theme || "system") + 1) % 3];
  root.dataset.theme = next;
  $("theme").textContent = `Theme: ${next}`;
  draw();
}
function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const on = event.target.tagName;
  // Space presses the button that has the focus, arrows move in a list or a slider.
  if (event.key === " " && ["BUTTON", "SELECT", "SUMMARY", "AUDIO"].includes(on)) return;
  if (event.key.startsWith("Arrow") && on === "SELECT") return;
  const picture = (by) => seek(time[Math.min(Math.max(frameAt(now) + by, 0), n - 1)]);
  const keys = {
    " ": toggle,
    ArrowLeft: () => seek(now - (event.shiftKey ? 10 : 1)),
    ArrowRight: () => seek(now + (event.shiftKey ? 10 : 1)),
    ",": () => picture(-1),
    ".": () => picture(1),
    Home: () => seek(0),
    End: () => seek(end),
    "+": () => zoom(0.5),
    "=": () => zoom(0.5),
    "-": () => zoom(2),
    "0": () => zoom(0),
    t: turnTheme,
    T: turnTheme,
  };
  if (!keys[event.key]) return;
  event.preventDefault();
  keys[event.key]();
  if (!playing) speak();
}

if (n) {
  setUpTexts();
  setUpStage();
  setUpCircle();
  setUpWords();
  setUpShares();
  setUpHands();
  draw();
  show(0);
}
