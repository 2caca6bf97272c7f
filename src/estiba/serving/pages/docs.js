// Draws the page from ./openapi.json: the list of models, a form to try each model, and the reference.

import { answerView, problemView } from "./answer.js";
import { callView } from "./code.js";
import { el, newId, readable, resolve, tabs } from "./dom.js";
import { recordForm } from "./form.js";
import { referenceView } from "./reference.js";
import { chooseLanguage, message, t } from "./text.js";

// The page is at PREFIX/docs, so the server's other paths are relative to its folder.
const ROOT = new URL(".", location.href).href.replace(/\/$/, "");

start();

async function start() {
  const main = document.getElementById("main");
  await chooseLanguage();
  try {
    const response = await fetch("openapi.json", { headers: { accept: "application/json" } });
    if (!response.ok) throw new Error(`openapi.json answered ${response.status}.`);
    draw(await response.json(), main);
  } catch (error) {
    main.replaceChildren(el("p", { class: "notice", role: "alert" }, t("The models could not be read. {error}", { error: error.message })));
  }
}

function draw(doc, main) {
  const operations = allOperations(doc);
  const models = modelsOf(operations);
  document.title = doc.info.title;
  document.getElementById("title").textContent = doc.info.title;
  document.getElementById("version").textContent = t("version {version}", { version: doc.info.version });
  const links = models.map((model) => el("a", { href: `#${encodeURIComponent(model.key)}` },
    el("span", { class: "name" }, model.name, el("span", { class: "badge" }, `v${model.version}`)),
    el("span", { class: "muted" }, model.predicts)));
  document.getElementById("models").replaceChildren(...links.map((link) => el("li", {}, link)));

  function show() {
    const wanted = location.hash.slice(1);
    const named = models.findIndex(({ key }) => key === wanted || encodeURIComponent(key) === wanted);
    // At a model's own port, the page opens that model.
    const index = Math.max(0, named < 0 ? models.findIndex(({ isDefault }) => isDefault) : named);
    links.forEach((link, i) => (i === index ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current")));
    const others = operations.filter(({ operation }) => !operation["x-estiba"]);
    main.replaceChildren(...(models.length ? modelPage(doc, models[index]) : [el("p", { class: "notice" }, t("No model is served."))]),
      el("section", { class: "card" }, el("h2", {}, t("Other endpoints")), referenceView(doc, others)));
  }
  addEventListener("hashchange", () => {
    if (location.hash === "#main") return;
    show();
    scrollTo({ top: 0 });
  });
  show();
}

function allOperations(doc) {
  return Object.entries(doc.paths).flatMap(([path, item]) =>
    Object.entries(item).map(([method, operation]) => ({ path, method, operation })));
}

/** Returns an entry for each served version. The current version of a model comes first and has the shortest path. */
function modelsOf(operations) {
  const models = new Map();
  for (const each of operations) {
    const facts = each.operation["x-estiba"];
    if (!facts?.model) continue;
    const id = `${facts.model}@${facts.version}`;
    // A link to the current version has no number, so that it stays valid when the version changes.
    const isCurrent = ![...models.values()].some(({ name }) => name === facts.model);
    const model = models.get(id) || { key: isCurrent ? facts.model : id, isCurrent, name: facts.model, version: facts.version, ...facts, operations: [] };
    model.operations.push(each);
    model.isDefault ||= Boolean(facts.default);
    models.set(id, model);
  }
  for (const model of models.values()) {
    const own = model.operations.filter(({ path }) => path.startsWith("/models/"));
    own.sort((left, right) => left.path.length - right.path.length);
    model.call = own[0];
    // A path without a version, such as /v2/models/iris, stands with the current one.
    const belongs = ({ of, version }) => of === model.name && (version ? version === model.version : model.isCurrent);
    model.operations.push(...operations.filter(({ operation }) => belongs(operation["x-estiba"] || {})));
  }
  return [...models.values()];
}

function modelPage(doc, model) {
  const { operation, path } = model.call;
  const record = resolve(doc, { $ref: model.record });
  const content = operation.requestBody.content["application/json"];
  // A record of large tensors has no example.
  const golden = Object.values(content.examples || {})[0]?.value.records[0] || {};
  const count = Object.values(record.properties).filter((field) => field["x-estiba"]?.kind !== "kept").length;
  const call = callView(ROOT, model);
  const result = resultView();
  const input = inputView({ record, golden, changed: (body) => call.show(ROOT + path, body), cleared: result.clear });
  input.form.addEventListener("submit", (event) => {
    event.preventDefault();
    predict({ url: ROOT + path, input, result, schema: resolve(doc, { $ref: model.prediction }) });
  });
  return [
    el("div", { class: "heading" },
      el("h1", {}, model.name, el("span", { class: "badge" }, t("version {version}", { version: model.version }))),
      model.about ? el("p", {}, model.about) : "",
      el("p", { class: "muted" }, t("Predicts "), el("strong", {}, model.predicts), count === 1 ? t(" from 1 field.") : t(" from {count} fields.", { count }))),
    model.simulated ? el("p", { class: "banner", role: "note" }, el("strong", {}, t("Simulated data.")), " ",
      t("This model was trained on generated rows. Its answers and figures say nothing about the world.")) : "",
    el("div", { class: "try" }, input.form, el("div", { class: "side" }, result.element, call.element)),
    el("section", { class: "card" }, el("h2", {}, t("Endpoints of {model}", { model: model.name })), endpointsByTag(doc, model)),
  ];
}

/** Draws the endpoints of a model: its own first, then those of each standard protocol below its name. */
function endpointsByTag(doc, model) {
  const byTag = new Map();
  for (const each of model.operations) {
    const tag = each.operation.tags[0];
    byTag.set(tag, [...(byTag.get(tag) || []), each]);
  }
  return [...byTag].map(([tag, list]) => [tag === model.name ? "" : el("h3", { class: "small" }, tag), referenceView(doc, list)]);
}

function inputView({ record, golden, changed, cleared }) {
  const fields = recordForm(record);
  const jsonId = newId("json");
  const json = el("textarea", { id: jsonId, spellcheck: "false", rows: 18, autocomplete: "off" });
  const note = el("p", { class: "note", role: "alert" });
  const jsonPanel = el("div", {}, el("label", { for: jsonId, class: "hidden" }, t("The body as JSON")), json, note);
  let isJson = false;
  const body = () => (isJson ? parsed() : { records: [fields.read()] });

  function parsed() {
    try {
      return JSON.parse(json.value);
    } catch (error) {
      showError(t("This is not JSON: {error}", { error: error.message }));
      return undefined;
    }
  }
  function showError(text) {
    note.textContent = text;
    note.dataset.kind = text ? "error" : "";
  }
  function chosen(index) {
    if (index === 1 && !isJson) json.value = JSON.stringify(body(), null, 2);
    if (index === 0 && isJson && !backToForm()) return false;
    isJson = index === 1;
    showError("");
    return true;
  }
  function backToForm() {
    const value = parsed();
    const records = value && (Array.isArray(value.records) ? value.records : [value]);
    if (!records) return false;
    if (records.length !== 1) showError(t("The form shows one record; this body has {count}.", { count: records.length }));
    else fields.write(records[0]);
    return records.length === 1;
  }
  function update() {
    const now = body();
    if (isJson) showError(now === undefined ? note.textContent : "");
    if (now !== undefined) changed(now);
  }
  function reset() {
    fields.clear();
    cleared();
    fields.write(golden);
    json.value = JSON.stringify({ records: [golden] }, null, 2);
    update();
  }

  const { list } = tabs(t("Input"), [[t("Form"), fields.element], ["JSON", jsonPanel]], chosen);
  const form = el("form", { class: "card input", novalidate: true, input: update },
    el("div", { class: "card-header" }, el("h2", {}, t("Input")), list, el("span", { class: "grow" }),
      el("button", { type: "button", class: "quiet", click: reset }, t("Example"))),
    fields.element, jsonPanel, el("div", { class: "actions" }, el("button", { type: "submit", class: "main" }, t("Predict"))));
  reset();
  return { form, fields, body, isJson: () => isJson };
}

function resultView() {
  const status = el("p", { class: "muted status-line" });
  const content = el("div", { class: "result" });
  const element = el("section", { class: "card answer", "aria-live": "polite" },
    el("div", { class: "card-header" }, el("h2", {}, t("Answer")), el("span", { class: "grow" }), status), content);
  return {
    element,
    clear() {
      status.replaceChildren();
      content.replaceChildren(el("p", { class: "muted" }, t("Press Predict to ask the model about this record.")));
    },
    show(line, parts) {
      status.replaceChildren(...line);
      content.replaceChildren(...parts.filter(Boolean));
      // On a phone, the answer is below the form and may be out of view.
      if (line.length) element.scrollIntoView({ block: "nearest" });
    },
  };
}

async function predict({ url, input, result, schema }) {
  const { fields } = input;
  fields.clear();
  const body = input.body();
  if (body === undefined || input.form.ariaBusy === "true") return;
  const local = input.isJson() ? [] : fields.problems();
  if (local.length) {
    showProblem({ title: t("The form cannot be read."), errors: local }, [], input, result);
    return;
  }
  // Not by disabling the button, which would lose the keyboard focus.
  input.form.ariaBusy = "true";
  try {
    await send(url, body, { input, result, schema });
  } catch (error) {
    showProblem({ title: t("The server could not be reached."), detail: error.message }, [], input, result);
  } finally {
    input.form.ariaBusy = "false";
  }
}

async function send(url, body, { input, result, schema }) {
  const startedAt = performance.now();
  const response = await fetch(url, {
    method: "POST", headers: { "content-type": "application/json", accept: "application/json, application/problem+json" },
    body: JSON.stringify(body),
  });
  const text = await response.text();
  const milliseconds = performance.now() - startedAt;
  const line = [el("span", { class: `status s${String(response.status)[0]}` }, String(response.status)), ` ${readable(Math.round(milliseconds * 10) / 10)} ms`];
  let answer;
  try {
    answer = JSON.parse(text);
  } catch {
    answer = { title: t("The server answered {status} without JSON.", { status: response.status }), detail: text.slice(0, 300) };
  }
  if (!response.ok || !answer.predictions) {
    showProblem(answer, line, input, result);
    return;
  }
  const inputWarnings = (answer.warnings || []).filter(({ pointer }) => !pointer.startsWith("#/predictions/"));
  for (const { pointer, code } of inputWarnings) input.fields.mark(pointer, t(code.replaceAll("-", " ")), "warning");
  result.show(line, answerView(answer, schema));
}

function showProblem(problem, line, input, result) {
  const errors = problem.errors || [];
  const marked = [];
  const elsewhere = errors.filter(({ pointer, detail }) => {
    const name = input.isJson() ? undefined : input.fields.mark(pointer, message(detail), "error");
    if (name !== undefined) marked.push(name);
    return name === undefined;
  });
  result.show(line, problemView(problem, marked, elsewhere));
  if (!input.isJson()) input.fields.focusFirstError();
}
