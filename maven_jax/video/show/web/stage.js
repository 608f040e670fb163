/* What plays: the video or sound, otherwise pictures by a clock of our own. */

let media = null, image = null, box = null;
let now = 0, playing = false, rate = 1, ticked = 0;
// Browsers count in microseconds: a picture is asked for a little after it begins, lest the one
// before it be shown.
const INTO_PICTURE_S = 0.001;

function setUpStage() {
  const { kind, mime, embedded, name } = data.media;
  if (embedded) {
    insertMedia(new Blob([bytes($("media").textContent)], { type: mime }));
  } else if (data.thumbnails.length) {
    image = make("img", { alt: "Picture of the video near the present moment" });
    $("picture").append(image);
  }
  if (embedded ? kind === "video" : image) {
    box = make("div", { id: "box", hidden: "" });
    $("picture").append(box);
  }
  const [w, h] = data.size;
  if (w) $("picture").style.setProperty("--aspect", w / h);
  const wanted = Boolean(kind) && !embedded;
  $("choose").hidden = !wanted;
  $("choose-name").textContent = name;
  $("file").addEventListener("change", () => { if ($("file").files.length) chosen($("file").files[0]); });
  const seen = embedded || image || wanted;
  $("stage").hidden = !seen;
  $("top").classList.toggle("alone", !seen);
}
function insertMedia(blob) {
  const { kind } = data.media;
  media = make(kind, { id: "player", playsinline: "", preload: "auto" });
  media.controls = kind === "audio";
  media.playbackRate = rate;
  media.addEventListener("error", withoutMedia);
  for (const event of ["play", "pause", "ended"]) media.addEventListener(event, () => setPlaying(!media.paused));
  media.addEventListener("click", toggle);
  media.addEventListener("seeked", () => { if (Math.abs(media.currentTime - now) > 0.05) show(media.currentTime); });
  media.src = URL.createObjectURL(blob);
  $("picture").prepend(media);
}
/** The file that was too large for the page, given by hand: pictures make way for it. */
function chosen(file) {
  if (media) withoutMedia();
  setPlaying(false);
  insertMedia(file);
  if (image) image.hidden = true;
  $("stage-note").textContent = "";
  media.addEventListener("loadedmetadata", () => {
    seek(now);
    if (media.duration < end - 1 || (!begin && media.duration > end + 1)) {
      $("stage-note").textContent = `This file lasts ${clockText(media.duration)}, the prediction ${clockText(end)}: is it another one?`;
    }
  });
}
function withoutMedia() {
  if (!media) return;
  URL.revokeObjectURL(media.src);
  media.remove();
  media = null;
  setPlaying(false);
  if (image) image.hidden = false;
  $("stage-note").textContent = "This browser cannot play the file; the curves play without it.";
}
function setPlaying(value) {
  if (value === playing) return;
  playing = value;
  $("play").firstElementChild.textContent = playing ? "❚❚" : "▶";
  $("play").setAttribute("aria-label", playing ? "Pause" : "Play");
  if (playing) { ticked = performance.now(); requestAnimationFrame(tick); } else speak();
}
function toggle() {
  if (!playing && now >= end - 0.02) seek(begin);
  if (!media) setPlaying(!playing);
  else if (media.paused) media.play().catch((error) => { if (error.name === "NotSupportedError") withoutMedia(); });
  else media.pause();
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
  t = Math.min(Math.max(t, begin), end);
  if (media) media.currentTime = Math.min(t + INTO_PICTURE_S, media.duration || end);
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

const thumbnailTimes = data.thumbnails.map((item) => item[0]);
/** The picture of frame i, or the thumbnail nearest before it, and the box round its face. */
function showPicture(i) {
  if (image && !media) {
    const k = Math.max(0, lastAt(thumbnailTimes, now + 1e-6));
    if (image.dataset.shown !== String(k)) {
      image.dataset.shown = String(k);
      image.src = `data:image/jpeg;base64,${data.thumbnails[k][1]}`;
    }
    i = frameAt(thumbnailTimes[k]);
  }
  if (!box) return;
  const [w, h] = data.size;
  box.hidden = !(boxes[4 * i + 2] > 0) || !w || !(media || image);
  if (box.hidden) return;
  ["left", "top", "width", "height"].forEach((side, k) => {
    box.style[side] = `${(100 * boxes[4 * i + k]) / (k % 2 ? h : w)}%`;
  });
}
