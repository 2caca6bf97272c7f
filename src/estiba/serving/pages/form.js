// Draws the form of one record, with a control for each field of the signature.

import { el, newId, pointerKeys, readable } from "./dom.js";
import { t } from "./text.js";

const MISSING = "\u0000missing";

/** Creates a form for a record of this schema: its element, and functions to read, write and mark the record. */
export function recordForm(schema) {
  const required = new Set(schema.required || []);
  const fields = Object.entries(schema.properties || {}).map(([name, field]) => fieldOf(name, field, required.has(name)));
  const byName = new Map(fields.map((field) => [field.name, field]));
  const element = el("div", { class: "fields" }, fields.map((field) => field.element));

  return {
    element,
    read: () => Object.fromEntries(fields.map((f) => [f.name, f.read()]).filter(([, value]) => value !== undefined)),
    write: (record) => fields.forEach((field) => field.write(record[field.name])),
    clear: () => fields.forEach((field) => field.mark("")),
    /** Errors that the form finds itself, in the form of the server's errors. */
    problems: () => fields.filter((f) => f.unreadable()).map((f) => ({ pointer: pointerTo(f.name), detail: f.invalid || t("not a number") })),
    /** Marks the field that a pointer names, and returns its name; undefined if there is no such field. */
    mark(pointer, detail, kind) {
      const field = byName.get(fieldName(pointer));
      if (field) field.mark(detail, kind);
      return field?.name;
    },
    focusFirstError() {
      const first = element.querySelector("[aria-invalid=true]");
      if (first) first.focus();
    },
  };
}

function pointerTo(name) {
  return `#/records/0/${name.replaceAll("~", "~0").replaceAll("/", "~1")}`;
}

function fieldName(pointer) {
  const keys = pointerKeys(pointer);
  return keys[0] === "records" ? (keys[1] === "0" ? keys[2] : undefined) : keys[0];
}

function fieldOf(name, schema, isRequired) {
  const id = newId("field");
  const [hintId, noteId] = [`${id}-hint`, `${id}-note`];
  const control = controlOf(schema, id, isRequired);
  const hint = hintOf(schema);
  control.node.setAttribute("aria-describedby", hint ? `${hintId} ${noteId}` : noteId);
  const note = el("p", { class: "note", id: noteId });
  const label = el("label", { for: id }, name, isRequired ? "" : el("span", { class: "optional" }, t(" optional")));
  const element = el("div", { class: "field" }, label, control.node, control.list,
    hint ? el("p", { class: "hint", id: hintId }, hint) : "", note);
  const mark = (text, kind = "error") => {
    note.textContent = text;
    note.dataset.kind = text ? kind : "";
    if (text && kind === "error") control.node.setAttribute("aria-invalid", "true");
    else control.node.removeAttribute("aria-invalid");
  };
  control.node.addEventListener("input", () => mark(""));
  return { name, element, mark, ...control };
}

function hintOf(schema) {
  const extra = schema["x-estiba"] || {};
  const parts = [];
  const { minimum: low, maximum: high } = schema;
  if (low !== undefined && high !== undefined) parts.push(t("{low} to {high}", { low: plain(low, extra), high: plain(high, extra) }));
  else if (low !== undefined) parts.push(t("from {low}", { low: plain(low, extra) }));
  else if (high !== undefined) parts.push(t("up to {high}", { high: plain(high, extra) }));
  if (extra.observed && !(extra.observed[0] === low && extra.observed[1] === high)) {
    parts.push(t("seen in training: {low} to {high}", { low: plain(extra.observed[0], extra), high: plain(extra.observed[1], extra) }));
  }
  if (extra.unseen && extra.unseen !== "error") {
    parts.push(extra.unseen === "null" ? t("any other value counts as missing") : t("other values are accepted"));
  }
  if (schema.format === "date-time") parts.push("ISO 8601");
  const facts = parts.join("; ");
  const sentence = facts && `${facts[0].toUpperCase()}${facts.slice(1)}.`;
  return [schema.description, sentence].filter(Boolean).join(" ");
}

/** Formats a number, without a separator in integers below 10,000: they may be years. */
function plain(number, { kind }) {
  return kind === "integer" && Math.abs(number) < 10000 ? String(number) : readable(number);
}

function controlOf(schema, id, isRequired) {
  const extra = schema["x-estiba"] || {};
  if (extra.kind === "tensor") return tensor(extra, id);
  if (schema.enum) return choice(schema.enum.filter((value) => value !== null), id, isRequired);
  if (extra.kind === "boolean") return choice([true, false], id, isRequired);
  if (extra.levels) return suggestions(extra.levels, id, isRequired);
  if (extra.kind === "number" || extra.kind === "integer") return number(schema, id, isRequired);
  return text(extra.kind, id, isRequired);
}

function choice(values, id, isRequired) {
  const options = values.map((value, index) => el("option", { value: index }, String(value)));
  if (!isRequired) options.unshift(el("option", { value: MISSING }, t("— missing —")));
  const node = el("select", { id }, options);
  return {
    node,
    read: () => (node.value === MISSING ? null : values[Number(node.value)]),
    write(value) {
      const index = values.indexOf(value);
      node.value = index >= 0 ? String(index) : isRequired ? "" : MISSING;
    },
    unreadable: () => false,
  };
}

function number({ minimum, maximum, "x-estiba": { kind } }, id, isRequired) {
  const node = el("input", {
    id, type: "number", step: kind === "integer" ? "1" : "any", min: minimum, max: maximum,
    inputmode: kind === "integer" ? "numeric" : "decimal", autocomplete: "off",
  });
  return {
    node,
    read: () => (node.value === "" ? (isRequired ? undefined : null) : Number(node.value)),
    write: (value) => { node.value = value ?? ""; },
    unreadable: () => node.validity.badInput,
  };
}

/** Creates a text area for a tensor as JSON, and a button for a file: an image, or JSON. */
function tensor({ dtype, shape, image }, id) {
  const sizes = shape.map((axis) => axis || "?").join(", ");
  const node = el("textarea", { id, rows: 3, spellcheck: "false", autocomplete: "off",
    placeholder: `${dtype} [${sizes}] as JSON${image ? ", or an image" : ""}` });
  const accept = image ? "image/jpeg,image/png,.json" : ".json";
  const file = el("input", { type: "file", accept, "aria-label": t("From a file"), change: async () => {
    if (!file.files[0]) return;
    node.value = file.files[0].type.startsWith("image/") ? `"${await base64(file.files[0])}"` : await file.files[0].text();
    node.dispatchEvent(new Event("input", { bubbles: true }));
  } });
  return {
    node,
    list: file,
    invalid: t("not JSON"),
    read: () => parsedJson(node.value),
    write: (value) => { node.value = value === undefined ? "" : JSON.stringify(value); },
    unreadable: () => node.value.trim() !== "" && parsedJson(node.value) === undefined,
  };
}

function parsedJson(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function base64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result.split(",")[1]));
    reader.addEventListener("error", () => reject(reader.error));
    reader.readAsDataURL(file);
  });
}

function suggestions(levels, id, isRequired) {
  const list = el("datalist", { id: `${id}-levels` }, levels.map((level) => el("option", { value: String(level) })));
  const control = text("category", id, isRequired);
  control.node.setAttribute("list", list.id);
  const read = () => {
    const value = control.read();
    const known = levels.find((level) => String(level) === value);
    if (known !== undefined || typeof value !== "string") return known ?? value;
    return levels.every((level) => typeof level === "number") && !Number.isNaN(Number(value)) ? Number(value) : value;
  };
  return { ...control, list, read };
}

function text(kind, id, isRequired) {
  const node = el("input", {
    id, type: "text", autocomplete: "off", spellcheck: "false",
    placeholder: kind === "timestamp" ? "2026-01-31T12:00:00Z" : null,
  });
  return {
    node,
    read: () => (node.value === "" && !isRequired ? null : node.value),
    write: (value) => { node.value = value ?? ""; },
    unreadable: () => false,
  };
}
