// The same call as text: curl and Python.

import { el, tabs } from "./dom.js";

/** A card with the call in each language; `show(url, body)` brings it up to date. */
export function callView(root, model) {
  const makers = [["curl", curl], ["Python", python]];
  const codes = makers.map(() => el("code"));
  const pairs = makers.map(([title], index) => [title, el("div", {}, el("pre", { tabindex: "0" }, codes[index]))]);
  let current = 0;
  const { list } = tabs("Language", pairs, (index) => { current = index; });
  const copied = el("span", { class: "muted", role: "status" });
  const copy = el("button", { type: "button", class: "quiet", click: () => copyText(codes[current], copied) }, "Copy");
  const element = el("section", { class: "card call" },
    el("div", { class: "bar-of-card" }, el("h2", {}, "The same call"), list, el("span", { class: "grow" }), copied, copy),
    pairs.map(([, panel]) => panel));
  return {
    element,
    show(url, body) {
      makers.forEach(([, make], index) => { codes[index].textContent = make({ url, root, model, body }); });
    },
  };
}

async function copyText(code, said) {
  try {
    await navigator.clipboard.writeText(code.textContent);
    said.textContent = "Copied";
  } catch {
    // Browsers lend the clipboard to secure origins only: select it instead, ready for the keyboard.
    getSelection().selectAllChildren(code);
    said.textContent = "Selected";
  }
  setTimeout(() => { said.textContent = ""; }, 2000);
}

function curl({ url, body }) {
  const quoted = (text) => (/^[\w:/.-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
  // Spaces let the line wrap where it is narrow; in JSON text only structure has line ends.
  const json = JSON.stringify(body, null, 1).replace(/\n\s*/g, " ");
  return `curl ${quoted(url)} \\\n  -H 'content-type: application/json' \\\n  -d ${quoted(json)}`;
}

function python({ root, model, body }) {
  const records = Array.isArray(body?.records) ? body.records : [body];
  const calls = records.map((record) => literal(record, "    ")).join(",\n    ");
  const version = model.leads ? "" : `, version=${JSON.stringify(model.version)}`;
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
