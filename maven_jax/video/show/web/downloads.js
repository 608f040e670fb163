/* What the page shows as files of its own: every frame's numbers, and the curves as they stand. */

function setUpDownloads() {
  $("csv").addEventListener("click", () => download(new Blob([csvText()], { type: "text/csv" }), "csv"));
  $("png").addEventListener("click", () => picture().toBlob((blob) => download(blob, "png")));
}
function download(blob, ending) {
  const link = make("a", { href: URL.createObjectURL(blob), download: `${data.stem}.${ending}` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}
/** A row per frame, in the words of the table that `predict` writes; the label stands in the first. */
function csvText() {
  const cell = (v) => (Number.isFinite(v) ? v.toFixed(6) : "");
  // Spreadsheets compute cells that begin so.
  const plain = (text) => (/^[=+\-@]/.test(text) ? `'${text}` : text);
  const quoted = (text) => (/[",\n\r]/.test(text) ? `"${plain(text).replaceAll('"', '""')}"` : plain(text));
  const names = ["time_s", ...DIMENSIONS];
  if (bold !== raw) names.push(...DIMENSIONS.map((name) => `${name}_${data.bold[0]}`));
  names.push(...extra.map((e) => quoted(e.name)), "modalities", ...(data.label ? ["label"] : []));
  const lines = [names.join(",")];
  for (let i = 0; i < n; i++) {
    const row = [cell(time[i]), cell(raw[2 * i]), cell(raw[2 * i + 1])];
    if (bold !== raw) row.push(cell(bold[2 * i]), cell(bold[2 * i + 1]));
    row.push(...extra.map((e) => cell(e.values[i])));
    row.push(quoted(observed.filter((m) => wasThere(m, time[i])).map((m) => m.name).join("+")));
    if (data.label) row.push(i ? "" : quoted(data.label));
    lines.push(row.join(","));
  }
  return `${lines.join("\n")}\n`;
}
/** The canvas on the page's ground, below its title and, where there is one, the banner's words. */
function picture() {
  const scale = window.devicePixelRatio || 1, banner = document.querySelector(".banner[role]"), top = banner ? 46 : 28;
  const sheet = make("canvas", { width: canvas.width + 16 * scale, height: canvas.height + (top + 8) * scale });
  const pen = sheet.getContext("2d"), style = getComputedStyle(document.body);
  pen.fillStyle = style.backgroundColor;
  pen.fillRect(0, 0, sheet.width, sheet.height);
  pen.drawImage(canvas, 8 * scale, top * scale);
  pen.scale(scale, scale);
  pen.fillStyle = style.color;
  pen.font = `600 14px ${style.fontFamily}`;
  pen.fillText($("title").textContent, 8, 19, width);
  if (banner) {
    pen.fillStyle = getComputedStyle(banner).backgroundColor;
    pen.font = `600 12px ${style.fontFamily}`;
    pen.fillText(banner.textContent, 8, 38, width);
  }
  return sheet;
}
