/* The present moment, the reader's hands, and the start. */

function show(t) {
  now = Math.min(Math.max(t, begin), end);
  follow();
  const i = frameAt(now);
  // In percent, so that it holds when the canvas is shown smaller: on paper.
  $("playhead").style.left = `${(100 * xOf(now)) / width}%`;
  $("seek").value = now;
  $("seek").setAttribute("aria-valuetext", clockText(now));
  $("clock").textContent = clockText(now);
  DIMENSIONS.forEach((name, d) => { $(`now-${name}`).textContent = signed(bold[2 * i + d]); });
  $("now-modalities").textContent = observed.filter((m) => wasThere(m, time[i])).map((m) => m.name).join(" + ") || "nothing";
  showCircle(i);
  showPicture(i);
  showWord();
  showShares(i);
}
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
  // Paper is light.
  let theme = "";
  window.addEventListener("beforeprint", () => { theme = document.documentElement.dataset.theme || "system"; setTheme("light"); });
  window.addEventListener("afterprint", () => setTheme(theme));
}
function setTheme(name) {
  document.documentElement.dataset.theme = name;
  $("theme").textContent = `Theme: ${name}`;
  draw();
}
function turnTheme() {
  const order = ["system", "light", "dark"];
  setTheme(order[(order.indexOf(document.documentElement.dataset.theme || "system") + 1) % 3]);
}
function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const on = event.target.tagName;
  // Space presses the button that has the focus, arrows move in a list or a slider.
  if (event.key === " " && (["BUTTON", "SELECT", "SUMMARY", "AUDIO"].includes(on) || event.target.type === "file")) return;
  if (event.key.startsWith("Arrow") && on === "SELECT") return;
  const picture = (by) => seek(time[Math.min(Math.max(frameAt(now) + by, 0), n - 1)]);
  const keys = {
    " ": toggle,
    ArrowLeft: () => seek(now - (event.shiftKey ? 10 : 1)),
    ArrowRight: () => seek(now + (event.shiftKey ? 10 : 1)),
    ",": () => picture(-1),
    ".": () => picture(1),
    Home: () => seek(begin),
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
  setUpDownloads();
  draw();
  // From there on, if only a part of the video was predicted.
  if (begin > 0) seek(begin); else show(0);
}
