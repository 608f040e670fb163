/* Valence, arousal, words and modalities over time, drawn on a canvas. */

const LANE = 118, STRIP = 24, SHARE = 58, WORDS = 22, AXIS = 14, LEFT = 76, RIGHT = 8, GAP = 8;
const LETTERS = 8; // pixels of the axis that a word needs at least, or words are not worth drawing
const canvas = $("curves");
let view = [begin, end], width = 0;
const partHeight = withParts ? SHARE : STRIP;
const numbers = extra.filter((e) => e.isNumber);
const height = 2 * LANE + numbers.length * SHARE + (data.words.length ? WORDS : 0) + observed.length * partHeight + AXIS + GAP;
const xOf = (t) => LEFT + ((t - view[0]) / (view[1] - view[0])) * (width - LEFT - RIGHT);
const tOf = (x) => view[0] + ((x - LEFT) / (width - LEFT - RIGHT)) * (view[1] - view[0]);
// Up to where the lanes of the modalities reach, in tenths.
let shareScale = 0.1;
for (const values of Object.values(parts)) for (const v of values) if (Math.abs(v) > shareScale) shareScale = Math.abs(v);
shareScale = Math.ceil(shareScale * 10 - 1e-6) / 10;

/** The colours of the style sheet: a canvas does not know light-dark(), the browser resolves it. */
function colours() {
  const style = getComputedStyle(document.documentElement), found = {};
  const probe = document.body.appendChild(document.createElement("span"));
  for (const name of ["ink", "muted", "line", "shade", "valence", "arousal"]) {
    probe.style.color = style.getPropertyValue(`--${name}`);
    found[name] = getComputedStyle(probe).color;
  }
  probe.remove();
  return found;
}
function draw() {
  width = $("timeline").clientWidth;
  const scale = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const pen = canvas.getContext("2d"), colour = colours();
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.font = `12px ${getComputedStyle(document.documentElement).fontFamily}`;
  pen.textBaseline = "middle";
  let y = 0;
  DIMENSIONS.forEach((name, d) => {
    shade(pen, colour, y, LANE - GAP, data.faceless);
    frame(pen, colour, y, LANE - GAP, 1, name, colour[name]);
    if (bold !== raw) curve(pen, raw, d, y, LANE - GAP, 1, colour[name], 1, 0.45);
    curve(pen, bold, d, y, LANE - GAP, 1, colour[name], 2, 1);
    y += LANE;
  });
  for (const { name, values } of numbers) {
    frame(pen, colour, y, SHARE - 6, 1, name, colour.ink);
    curve(pen, values, 0, y, SHARE - 6, 1, colour.ink, 1.3, 1, 1);
    y += SHARE;
  }
  if (data.words.length) { drawWords(pen, colour, y); y += WORDS; }
  for (const modality of observed) {
    drawModality(pen, colour, y, partHeight - 6, modality);
    y += partHeight;
  }
  axis(pen, colour, y + GAP);
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
  pen.font = `${weight} ${pen.font}`;
  pen.textAlign = "left";
  pen.fillText(text, 0, y, LEFT - 26);
  pen.restore();
}
function shade(pen, colour, y, h, spans) {
  clipped(pen, y, h, () => {
    pen.fillStyle = colour.shade;
    for (const [a, b] of spans) if (b > view[0] && a < view[1]) pen.fillRect(xOf(a), y, Math.max(xOf(b) - xOf(a), 1), h);
  });
}
/** Lines and numbers of a lane from -range to range, and its name. */
function frame(pen, colour, y, h, range, name, ink) {
  label(pen, ink, name, y + h / 2, range === 1 ? 600 : 400);
  pen.fillStyle = colour.muted;
  pen.strokeStyle = colour.line;
  pen.textAlign = "right";
  for (const value of [range, 0, -range]) {
    const level = y + (h * (1 - value / range)) / 2;
    pen.beginPath();
    pen.moveTo(LEFT, Math.round(level) + 0.5);
    pen.lineTo(width - RIGHT, Math.round(level) + 0.5);
    pen.stroke();
    const text = value ? signed(value).replace(/\.?0+$/, "") : "0";
    pen.fillText(text, LEFT - 6, Math.min(Math.max(level, y + 6), y + h - 6));
  }
}
function curve(pen, values, d, y, h, range, ink, thick, alpha, stride = 2) {
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
        const v = values[stride * j + d];
        if (v < least) least = v;
        if (v > most) most = v;
      }
      if (most === -Infinity) { open = false; continue; }
      const x = xOf(time[i]);
      // A frame alone between gaps is a short dash.
      if (open) pen.lineTo(x, level(least)); else { pen.moveTo(x - 0.5, level(least)); pen.lineTo(x + 0.5, level(least)); }
      if (most !== least) pen.lineTo(x, level(most));
      open = true;
    }
    pen.stroke();
  });
}
function drawWords(pen, colour, y) {
  label(pen, colour.muted, "words", y + WORDS / 2);
  const first = Math.max(lastAt(starts, view[0]), 0), behind = lastAt(starts, view[1]) + 1;
  pen.textAlign = "left";
  if ((behind - first) * LETTERS > width - LEFT - RIGHT) {
    pen.fillStyle = colour.muted;
    pen.fillText(`${(behind - first).toLocaleString("en")} – zoom in, or read below`, LEFT, y + WORDS / 2);
    return;
  }
  pen.fillStyle = colour.ink;
  let free = LEFT;
  for (const [from, , text] of data.words.slice(first, behind)) {
    const x = xOf(from), wide = pen.measureText(text).width;
    if (x < free || x + wide > width) continue;
    pen.fillText(text, x, y + WORDS / 2);
    free = x + wide + 6;
  }
}
/** A modality's lane: what it adds, grey where it was missing, a bar where it was alone; without that a bar where it was there. */
function drawModality(pen, colour, y, h, { name, spans }) {
  if (name in parts) {
    const behind = [...spans.map((s) => s[0]), end], missing = [begin, ...spans.map((s) => s[1])].map((a, k) => [a, behind[k]]);
    shade(pen, colour, y, h, missing.filter(([a, b]) => b > a));
    frame(pen, colour, y, h, shareScale, name, colour.muted);
    shade(pen, { shade: colour.muted }, y + h / 2 - 2, 4, data.alone[name]);
    DIMENSIONS.forEach((dimension, d) => curve(pen, parts[name], d, y, h, shareScale, colour[dimension], 1.3, 1));
  } else {
    label(pen, colour.muted, name, y + h / 2);
    shade(pen, { shade: colour.muted }, y + h / 4, h / 2, spans);
  }
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

function zoom(factor) {
  const whole = end - begin, length = factor ? Math.min(whole, Math.max(Math.min(1, whole), (view[1] - view[0]) * factor)) : whole;
  const from = Math.min(Math.max(now - length / 2, begin), end - length);
  view = [from, from + length];
  draw();
  show(now);
}
/** Turns the page of the curves when the present leaves what is seen of them. */
function follow() {
  const length = view[1] - view[0];
  if (now >= view[0] && now <= view[1]) return;
  const from = Math.min(Math.max(now - length * 0.1, begin), end - length);
  view = [from, from + length];
  draw();
}
