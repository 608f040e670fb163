/* Words, what each modality adds, summary, notes and the table of numbers. */

let wordButtons = [], spokenWord = null, tabbed = null;

function setUpWords() {
  if (!data.words.length) return;
  $("said").hidden = false;
  let line = null, before = -Infinity;
  data.words.forEach(([from, to, text], k) => {
    if (!line || from - before > 1.2) {
      line = make("span", { dir: "auto" });
      $("transcript").append(make("p", {}, make("time", {}, clockText(from)), line));
    }
    line.append(make("button", { type: "button", tabindex: k ? "-1" : "0", "data-word": k }, text), " ");
    before = to;
  });
  wordButtons = [...$("transcript").querySelectorAll("button")];
  tabbed = wordButtons[0];
  $("transcript").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) { rove(button); seek(starts[button.dataset.word]); }
  });
  $("transcript").addEventListener("keydown", (event) => {
    const button = event.target.closest("button");
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const other = button && by && wordButtons[Number(button.dataset.word) + by];
    if (other) { rove(other); other.focus(); }
    if (by) { event.preventDefault(); event.stopPropagation(); }
  });
}
/** Of all words, one is reached by Tab. */
function rove(button) {
  tabbed.tabIndex = -1;
  button.tabIndex = 0;
  tabbed = button;
}
function showWord() {
  const k = lastAt(starts, now + 1e-6), word = data.words[k];
  const button = word && now < word[1] ? wordButtons[k] : null;
  if (button === spokenWord) return;
  if (spokenWord) { spokenWord.classList.remove("spoken"); spokenWord.removeAttribute("aria-current"); }
  spokenWord = button;
  if (!button) return;
  button.classList.add("spoken");
  button.setAttribute("aria-current", "true");
  const list = $("transcript"), top = button.offsetTop;
  if (top < list.scrollTop || top + button.offsetHeight > list.scrollTop + list.clientHeight) list.scrollTop = top - 40;
}

const shares = [];
function setUpShares() {
  $("parts").hidden = !withParts;
  for (const [name, values] of Object.entries(parts)) {
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
function showShares(i) {
  for (const [values, d, bar, value] of shares) {
    const v = values[2 * i + d], part = Number.isFinite(v) ? (50 * Math.abs(v)) / shareScale : 0;
    bar.style.width = `${part}%`;
    bar.style.left = `${v < 0 ? 50 - part : 50}%`;
    value.textContent = signed(v);
  }
}

function setUpTexts() {
  for (const [name, value] of data.summary) $("summary").append(make("li", {}, `${name} `, make("b", {}, value)));
  $("notes").hidden = !data.notes.length;
  for (const note of data.notes) $("notes").lastElementChild.append(make("li", {}, note));
  $("length").textContent = clockText(end);
  $("seek").min = begin;
  $("seek").max = end;
  canvas.setAttribute("aria-label", `Valence and arousal over ${clockText(end)}. ${data.summary.map((item) => item.join(" ")).join(". ")}. The numbers are in the table below.`);
  const key = (kind, text) => $("legend").append(make("span", {}, make("i", { class: kind }), text));
  if (bold !== raw) { key("", data.bold[0]); key("thin", "raw"); } else key("", "raw");
  if (data.faceless.length) key("shade", "no face");
  if (withParts) {
    const alone = Object.values(data.alone).some((spans) => spans.length) ? ", a bar where it was alone: nothing to compare" : "";
    $("legend").append(`below: what each modality adds, grey where it was missing${alone}`);
  }
  else if (observed.length) $("legend").append("below: where each modality was there");
}
function fillTable() {
  const place = $("numbers").lastElementChild, step = Math.max(1, Math.ceil((end - begin) / 600));
  if (place.firstChild || !$("numbers").open) return;
  const body = make("tbody");
  for (let t = begin; t < end; t += step) {
    const i = frameAt(t), said = data.words.slice(lastAt(starts, t - 1e-6) + 1, lastAt(starts, t + step - 1e-6) + 1);
    const cells = [clockText(t), signed(bold[2 * i]), signed(bold[2 * i + 1]), said.map((word) => word[2]).join(" ")];
    body.append(make("tr", {}, ...cells.map((text) => make("td", {}, text))));
  }
  const head = make("tr", {}, ...["time", ...DIMENSIONS, "words"].map((name) => make("th", { scope: "col" }, name)));
  place.append(make("table", {}, make("thead", {}, head), body));
}
