// Functions for elements, tabs, numbers and JSON pointers, shared by the parts of the page.

let lastId = 0;

/** Creates an element. Functions as attributes become event listeners; attributes of null or false are left out. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

export function newId(prefix) {
  lastId += 1;
  return `${prefix}-${lastId}`;
}

/** Follows a reference inside the document, such as `#/components/schemas/Problem`. */
export function resolve(doc, schema) {
  let resolved = schema;
  while (resolved && resolved.$ref) resolved = atPointer(doc, resolved.$ref);
  return resolved || {};
}

/** Returns the keys of a JSON pointer (RFC 6901), which may be written as a URI fragment. */
export function pointerKeys(pointer) {
  let text = pointer.replace(/^#/, "");
  try {
    text = decodeURIComponent(text);
  } catch {
    // A field's name may contain a percent sign that is not an escape.
  }
  return text.split("/").slice(1).map((key) => key.replaceAll("~1", "/").replaceAll("~0", "~"));
}

function atPointer(doc, pointer) {
  return pointerKeys(pointer).reduce((node, key) => (node ? node[key] : undefined), doc);
}

/** Creates tabs for panels, `[[title, panel], ...]`. `chosen(index)` can refuse a change by returning false. */
export function tabs(label, pairs, chosen = () => true) {
  const buttons = pairs.map(([title, panel], index) => {
    panel.id = newId("panel");
    panel.setAttribute("role", "tabpanel");
    return el("button", {
      type: "button", role: "tab", id: newId("tab"), "aria-controls": panel.id,
      click: () => choose(index), keydown: (event) => step(event, index),
    }, title);
  });
  pairs.forEach(([, panel], index) => panel.setAttribute("aria-labelledby", buttons[index].id));

  function choose(index) {
    if (chosen(index) === false) return;
    show(index);
  }
  function show(index) {
    buttons.forEach((button, i) => {
      button.setAttribute("aria-selected", String(i === index));
      button.tabIndex = i === index ? 0 : -1;
      pairs[i][1].hidden = i !== index;
    });
  }
  function step(event, index) {
    const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!move) return;
    event.preventDefault();
    const next = (index + move + buttons.length) % buttons.length;
    choose(next);
    if (buttons[next].tabIndex === 0) buttons[next].focus();
  }
  show(0);
  return { list: el("div", { role: "tablist", "aria-label": label, class: "tabs" }, buttons), show };
}

/** Formats a number for people: with thousands separators and at most four decimal places. */
export function readable(number) {
  if (number === null || number === undefined) return "none";
  if (typeof number !== "number") return String(number);
  const size = Math.abs(number);
  if (size !== 0 && (size < 1e-4 || size >= 1e15)) return String(number);
  return number.toLocaleString("en", { maximumFractionDigits: size >= 1000 ? 2 : 4 });
}
