// Renders the answer to a prediction; the signature gives the role of each output.

import { el, pointerKeys, readable } from "./dom.js";
import { message, t } from "./text.js";

/** Renders one prediction as blocks and several as a table, with the whole answer as JSON below. */
export function answerView(answer, schema) {
  const predictions = answer.predictions || [];
  const shown = predictions.length === 1 ? onePrediction(predictions[0], schema) : table(predictions);
  return [shown, warnings(answer.warnings || []), raw(answer)];
}

/** Renders a problem (RFC 9457): the names of the marked fields, and the errors that belong to no field. */
export function problemView(problem, marked, elsewhere) {
  const list = elsewhere.map(({ pointer, detail }) => el("li", {}, el("code", {}, pointer), " ", message(detail)));
  return [
    el("div", { class: "problem" },
      el("h3", {}, message(problem.title || t("The call failed."))),
      problem.detail ? el("p", {}, message(problem.detail)) : "",
      marked.length ? el("p", {}, t("See "), marked.map((name, index) => [index ? ", " : "", el("strong", {}, name)]), ".") : "",
      list.length ? el("ul", {}, list) : ""),
    // Only a problem from the server has a status. Input that the form refused was not sent.
    problem.status ? raw(problem) : "",
  ];
}

function onePrediction(prediction, schema) {
  const parts = Object.entries(prediction).map(([name, value]) => {
    const hints = ((schema.properties || {})[name] || {})["x-estiba"] || {};
    return [hints.role, name, value, hints];
  });
  // Short values stand side by side; objects, below them, need the whole width.
  const wide = ([, , value]) => value !== null && typeof value === "object";
  return el("div", { class: "prediction" },
    el("dl", { class: "headline" }, parts.filter((part) => !wide(part)).map(headline)),
    meanings(parts),
    parts.filter(wide).map(([role, name, value, hints]) =>
      role === "output" ? oneOutput(name, value, schema.properties[name])
        : Array.isArray(value) ? arrayView(name, value) : byClass(role, name, value, prediction, hints.class_names)));
}

/** One of several outputs, as a model that has only this one would be shown. */
function oneOutput(name, value, schema) {
  return el("section", { class: "output", "data-output": name },
    el("h3", { class: "small" }, name), onePrediction(value, schema));
}

function headline([role, name, value, { unit, class_names: names = {} }]) {
  const text = role === "probability" && value !== null ? percent(value) : readable(value);
  const known = value === null ? "" : (role === "label" && names[value]) || unit;
  return el("div", { "data-role": role || "" }, el("dt", {}, name),
    el("dd", { title: String(value) }, text, known ? el("span", { class: "known" }, ` ${known}`) : ""));
}

/** Sentences of the signature about the parts: the threshold, units and bands. */
function meanings(parts) {
  const told = parts.filter(([, , , hints]) => hints.text);
  return told.length ? el("ul", { class: "meanings hint" }, told.map(([, name, , { text }]) =>
    el("li", {}, el("strong", {}, name), ` ${text}`))) : "";
}

const MAX_ARRAY_TEXT = 2000;

function arrayView(name, value) {
  const text = JSON.stringify(value);
  const shown = text.length > MAX_ARRAY_TEXT ? `${text.slice(0, MAX_ARRAY_TEXT)}…` : text;
  return el("section", { class: "classes" }, el("h3", { class: "small" }, `${name} [${shapeOf(value).join(", ")}]`),
    el("pre", { tabindex: "0" }, el("code", {}, shown)));
}

function shapeOf(value) {
  return Array.isArray(value) ? [value.length, ...shapeOf(value[0])] : [];
}

function byClass(role, name, values, prediction, names = {}) {
  const largest = Math.max(...Object.values(values).map((value) => Math.abs(value ?? 0)), 1e-300);
  const isShare = role === "probabilities";
  const chosen = new Set(Object.values(prediction).filter((value) => typeof value !== "object").map(String));
  const rows = Object.entries(values).map(([label, value]) => {
    const bar = el("span", { class: "bar", "aria-hidden": "true" }, el("span"));
    // Set by script: the content security policy would refuse a style attribute.
    bar.firstChild.style.width = `${(100 * Math.abs(value ?? 0)) / (isShare ? 1 : largest)}%`;
    const number = isShare && value !== null ? percent(value) : readable(value);
    return el("li", { class: chosen.has(label) ? "chosen" : null },
      el("span", { class: "class" }, names[label] ? `${label} ${names[label]}` : label), bar, el("span", { class: "number", title: String(value) }, number));
  });
  return el("section", { class: "classes" }, el("h3", { class: "small" }, name), el("ul", {}, rows));
}

function percent(share) {
  const hundred = share * 100;
  const digits = share !== 0 && share !== 1 && (hundred < 0.1 || hundred > 99.9) ? 3 : 1;
  return `${hundred.toFixed(digits)} %`;
}

function table(predictions) {
  const rows = predictions.map(flat);
  const names = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const cell = (value) => el("td", { class: typeof value === "number" ? "number" : null }, readable(value));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": t("Predictions") }, el("table", {},
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, t("record")), names.map((name) => el("th", { scope: "col" }, name)))),
    el("tbody", {}, rows.map((row, index) =>
      el("tr", {}, el("th", { scope: "row" }, String(index)), names.map((name) => cell(row[name])))))));
}

function flat(prediction) {
  const entries = Object.entries(prediction).flatMap(([name, value]) =>
    Array.isArray(value) ? [[name, `[${shapeOf(value).join(", ")}]`]]
    : value !== null && typeof value === "object"
      ? Object.entries(flat(value)).map(([key, inner]) => [`${name}.${key}`, inner])
      : [[name, value]]);
  return Object.fromEntries(entries);
}

function warnings(list) {
  if (!list.length) return "";
  const items = list.map(({ code, pointer }) => el("li", {}, t(code.replaceAll("-", " ")), ": ", el("code", {}, pointerKeys(pointer).pop())));
  return el("ul", { class: "warnings" }, items);
}

function raw(body) {
  return el("details", { class: "raw" }, el("summary", {}, t("As JSON")),
    el("pre", { tabindex: "0" }, el("code", {}, JSON.stringify(body, null, 2))));
}
