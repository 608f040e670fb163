"use strict";
/* The prediction, and what all parts of the page use to read and to write it. */

const $ = (id) => document.getElementById(id);
const data = JSON.parse($("prediction").textContent);

function bytes(text) {
  const raw = atob(text), out = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
  return out;
}
const floats = (text) => new Float32Array(bytes(text).buffer);
const time = new Float64Array(bytes(data.time).buffer);
const raw = floats(data.va);
const bold = data.bold ? floats(data.bold[1]) : raw;
/* Beside valence and arousal: the name of a column, its values, and whether it is a number, not a probability. */
const extra = data.extra.map(([name, text, isNumber]) => ({ name, values: floats(text), isNumber }));
const boxes = floats(data.boxes);
const parts = Object.fromEntries(Object.entries(data.contributions).map(([name, text]) => [name, floats(text)]));
const withParts = Object.keys(parts).length > 0;
const n = time.length, begin = data.begin, end = data.end;
const DIMENSIONS = ["valence", "arousal"];
const starts = data.words.map((word) => word[0]);
const observed = Object.entries(data.observed).map(([name, spans]) => ({ name, spans, starts: spans.map((s) => s[0]) }));

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
function wasThere(modality, t) {
  const i = lastAt(modality.starts, t + 1e-6);
  return i >= 0 && t < modality.spans[i][1];
}

function clockText(t) {
  const tenths = Math.round(t * 10), s = tenths % 600, m = Math.floor(tenths / 600);
  const seconds = (s / 10).toFixed(1).padStart(4, "0");
  return m < 60 ? `${m}:${seconds}` : `${Math.floor(m / 60)}:${String(m % 60).padStart(2, "0")}:${seconds}`;
}
function signed(v) {
  if (!Number.isFinite(v)) return "–";
  const text = Math.abs(v).toFixed(2);
  return (v < 0 && text !== "0.00" ? "−" : "+") + text;
}

function filled(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}
const make = (tag, attributes = {}, ...children) => filled(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) =>
  filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
