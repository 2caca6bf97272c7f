// Renders the current call as code for curl and Python.

import { el, tabs } from "./dom.js";
import { t } from "./text.js";

/** Returns a card with the call in each language. `show(url, body)` updates the card. */
export function callView(root, model) {
  const languages = [["curl", curl], ["Python", python]];
  const codes = languages.map(() => el("code"));
  const pairs = languages.map(([title], index) => [title, el("div", {}, el("pre", { tabindex: "0" }, codes[index]))]);
  let current = 0;
  const { list } = tabs(t("Language"), pairs, (index) => { current = index; });
  const copied = el("span", { class: "muted", role: "status" });
  const copy = el("button", { type: "button", class: "quiet", click: () => copyText(codes[current], copied) }, t("Copy"));
  const element = el("section", { class: "card call" },
    el("div", { class: "card-header" }, el("h2", {}, t("The same call")), list, el("span", { class: "grow" }), copied, copy),
    pairs.map(([, panel]) => panel));
  return {
    element,
    show(url, body) {
      languages.forEach(([, render], index) => { codes[index].textContent = render({ url, root, model, body }); });
    },
  };
}

async function copyText(code, status) {
  try {
    await navigator.clipboard.writeText(code.textContent);
    status.textContent = t("Copied");
  } catch {
    // Browsers allow access to the clipboard on secure origins only. Selected text can be copied with the keyboard.
    getSelection().selectAllChildren(code);
    status.textContent = t("Selected");
  }
  setTimeout(() => { status.textContent = ""; }, 2000);
}

function curl({ url, body }) {
  const quoted = (text) => (/^[\w:/.-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
  // Spaces let the line wrap in a narrow window. JSON has line ends only between its tokens, so no string changes.
  const json = JSON.stringify(body, null, 1).replace(/\n\s*/g, " ");
  return `curl ${quoted(url)} \\\n  -H 'content-type: application/json' \\\n  -d ${quoted(json)}`;
}

function python({ root, model, body }) {
  const records = Array.isArray(body?.records) ? body.records : [body];
  const calls = records.map((record) => literal(record, "    ")).join(",\n    ");
  const version = model.isCurrent ? "" : `, version=${JSON.stringify(model.version)}`;
  return `import estiba\n\nclient = estiba.Client(${JSON.stringify(root)})\n`
    + `client.predict([\n    ${calls},\n], model=${JSON.stringify(model.name)}${version})`;
}

function literal(value, indent = "") {
  if (value === null || value === undefined) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) return `[${value.map((item) => literal(item, indent)).join(", ")}]`;
  if (typeof value !== "object") return JSON.stringify(value);
  const lines = Object.entries(value).map(([key, item]) => `${indent}    ${JSON.stringify(key)}: ${literal(item, indent)},\n`);
  return `{\n${lines.join("")}${indent}}`;
}
