// Translates the texts of the page. English is the source; `LANGUAGE.json` has the translations by English text.

const KEPT = "estiba-language";
const NAMES = { en: "English", es: "Español" };
const MIN_LITERAL_CHARACTERS = 5;

const messages = Object.create(null); // without names such as `constructor`, which a value may be
let templates = [];

/** Loads the language that the reader chose before, or else the first known one that the browser asks pages for. */
export async function chooseLanguage() {
  const language = kept() || navigator.languages.map((name) => name.split("-")[0]).find((code) => code in NAMES) || "en";
  if (language !== "en") await load(language);
  document.documentElement.lang = language;
  for (const [id, text] of [["skip", "Skip to the model"], ["models-title", "Models"]]) {
    document.getElementById(id).textContent = t(text);
  }
  drawSwitch(language);
}

/** A text of the page in the reader's language, with `{names}` replaced by values. */
export function t(text, values = {}) {
  return (messages[text] ?? text).replace(/\{(\w+)\}/g, (whole, name) => (name in values ? values[name] : whole));
}

/** A message of the server, which is always English, in the reader's language: by the template that it was made from. */
export function message(text) {
  if (messages[text] !== undefined) return messages[text];
  for (const { pattern, names, translation } of templates) {
    const found = pattern.exec(text);
    if (found) return translation.replace(/\{(\w+)\}/g, (whole, name) => message(found[1 + names.indexOf(name)] ?? whole));
  }
  return text;
}

function kept() {
  try {
    const language = localStorage.getItem(KEPT);
    return language in NAMES ? language : "";
  } catch {
    return ""; // Storage may be forbidden.
  }
}

async function load(language) {
  try {
    Object.assign(messages, await (await fetch(`docs/${language}.json`)).json());
  } catch {
    return; // English is better than no page.
  }
  templates = Object.entries(messages).filter(([text]) => /\{\w+\}/.test(text)).map(([text, translation]) => {
    const literals = text.split(/\{\w+\}/);
    const pattern = new RegExp(`^${literals.map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("([^]*?)")}$`);
    return { pattern, names: [...text.matchAll(/\{(\w+)\}/g)].map((found) => found[1]), translation, size: literals.join("").length };
  }).filter(({ size }) => size >= MIN_LITERAL_CHARACTERS).sort((left, right) => right.size - left.size);
}

function drawSwitch(language) {
  const other = language === "en" ? "es" : "en";
  const button = document.getElementById("language");
  button.textContent = NAMES[other];
  button.lang = other;
  button.hidden = false;
  button.addEventListener("click", () => {
    try {
      localStorage.setItem(KEPT, other);
    } catch {
      return;
    }
    location.reload();
  });
}
