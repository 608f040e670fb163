/* The emotion circle: valence to the right, arousal upwards. */

const TRAIL_S = 3, TRAIL_PARTS = 10;

function setUpCircle() {
  for (const [degrees, text] of data.concepts) {
    const angle = (degrees * Math.PI) / 180, x = 1.11 * Math.cos(angle), y = -1.11 * Math.sin(angle);
    const turned = degrees >= 180 ? 270 - degrees : 90 - degrees;
    $("concepts").append(svg("text", { x, y, transform: `rotate(${turned} ${x} ${y})` }, text));
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
function showCircle(i) {
  const v = bold[2 * i], a = bold[2 * i + 1], dot = $("dot");
  dot.classList.toggle("unknown", !Number.isFinite(v));
  if (Number.isFinite(v)) { dot.setAttribute("cx", v.toFixed(4)); dot.setAttribute("cy", (-a).toFixed(4)); }
  const pieces = $("trail").children, at = (k) => frameAt(Math.max(time[i] - TRAIL_S * (1 - k / TRAIL_PARTS), time[0]));
  for (let k = 0; k < TRAIL_PARTS; k++) {
    const from = at(k), to = at(k + 1);
    let points = "";
    for (let j = from; j <= to && to > from; j++) {
      if (Number.isFinite(bold[2 * j])) points += `${bold[2 * j].toFixed(3)},${(-bold[2 * j + 1]).toFixed(3)} `;
    }
    pieces[k].setAttribute("points", points);
  }
}
