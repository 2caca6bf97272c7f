// Draws the reference: every endpoint with its parameters, request body and answers.

import { el, resolve } from "./dom.js";
import { t } from "./text.js";

/** Draws the endpoints of one model, or those that belong to no model. `operations` are `{path, method, operation}`. */
export function referenceView(doc, operations) {
  return el("div", { class: "endpoints" }, operations.map((each) => endpoint(doc, each)));
}

function endpoint(doc, { path, method, operation }) {
  const summary = el("summary", {},
    el("span", { class: `method ${method}` }, method.toUpperCase()), el("code", { class: "path" }, path),
    el("span", { class: "muted" }, operation.summary || ""));
  return lazily("endpoint", summary, () => [
    parameters(doc, operation.parameters || []),
    operation.requestBody ? bodies(doc, t("Body"), operation.requestBody.content) : "",
    el("h4", {}, t("Answers")),
    Object.entries(operation.responses).map(([status, response]) => answer(doc, status, resolve(doc, response))),
  ]);
}

function parameters(doc, list) {
  const rows = list.map((parameter) => resolve(doc, parameter)).map((parameter) => el("li", {},
    el("code", {}, parameter.name), " ", el("span", { class: "type" }, `${parameter.in}, ${typeName(doc, parameter.schema)}`),
    parameter.description ? el("p", { class: "hint" }, parameter.description) : ""));
  return rows.length ? [el("h4", {}, t("Parameters")), el("ul", { class: "schema" }, rows)] : "";
}

function bodies(doc, title, content) {
  return [el("h4", {}, title), Object.entries(content).map(([type, media]) => mediaView(doc, type, media))];
}

function answer(doc, status, response) {
  const summary = el("summary", {}, el("span", { class: `status s${status[0]}` }, status), " ", response.description);
  const content = Object.entries(response.content || {});
  if (!content.length) return el("p", {}, summary.textContent);
  return lazily("answer", summary, () => content.map(([type, media]) => mediaView(doc, type, media)));
}

function mediaView(doc, type, media) {
  const examples = Object.values(media.examples || {}).map((example) => {
    const text = typeof example.value === "string" ? example.value : JSON.stringify(example.value, null, 2);
    return [el("p", { class: "hint" }, example.summary || t("Example")), el("pre", { tabindex: "0" }, el("code", {}, text))];
  });
  return el("div", { class: "media" }, el("p", {}, el("code", {}, type)), schemaView(doc, media.schema || {}), examples);
}

/** Draws the parts of a schema. Nested parts are drawn when they are opened, because a schema may contain itself. */
function schemaView(doc, unresolved) {
  const schema = resolve(doc, unresolved);
  const choices = schema.anyOf || schema.oneOf;
  if (choices) {
    return el("ul", { class: "schema" }, choices.map((each, index) =>
      el("li", {}, lazily("", el("summary", {}, `${index ? t("or") : t("either")} ${typeName(doc, each)}`), () => [schemaView(doc, each)]))));
  }
  if (schema.type === "array") return schemaView(doc, schema.items || {});
  if (!schema.properties) return el("p", { class: "type" }, typeName(doc, schema), schema.description ? `: ${schema.description}` : "");
  const required = new Set(schema.required || []);
  const rows = Object.entries(schema.properties).map(([name, field]) => property(doc, name, field, required.has(name)));
  return el("ul", { class: "schema" }, rows);
}

function property(doc, name, unresolved, isRequired) {
  const schema = resolve(doc, unresolved);
  const line = [el("code", {}, name), " ", el("span", { class: "type" }, typeName(doc, schema)),
    isRequired ? "" : el("span", { class: "optional" }, t(" · optional"))];
  const description = schema.description ? el("p", { class: "hint" }, schema.description) : "";
  const inner = schema.type === "array" ? resolve(doc, schema.items || {}) : schema;
  if (!inner.properties) return el("li", {}, line, description);
  return el("li", {}, lazily("", el("summary", {}, line), () => [description, schemaView(doc, inner)]));
}

function typeName(doc, unresolved) {
  const schema = resolve(doc, unresolved);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.type === "array") return t("list of {type}", { type: typeName(doc, schema.items || {}) });
  if (schema.type === "object" && unresolved.$ref) return unresolved.$ref.split("/").pop();
  const type = [schema.type || "anything"].flat().join(" or ");
  const { minimum: low, maximum: high } = schema;
  const range = [low === undefined ? "" : `≥ ${low}`, high === undefined ? "" : `≤ ${high}`].filter(Boolean).join(", ");
  return [type, schema.format, range].filter(Boolean).join(", ");
}

/** Creates an element that draws its content when it is first opened. */
function lazily(kind, summary, draw) {
  const node = el("details", { class: kind || null }, summary);
  node.addEventListener("toggle", () => node.open && node.append(...draw().flat(Infinity).filter(Boolean)), { once: true });
  return node;
}
