const form = document.querySelector("form");
const answer = document.querySelector("output");
const rows = document.querySelector("tbody");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const flower = Object.fromEntries([...new FormData(form)].map(([name, value]) => [name, Number(value)]));
  const response = await fetch("api/predict", {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(flower),
  });
  const body = await response.json();
  answer.textContent = response.ok ? body.species : JSON.stringify(body.detail);
  await history();
});

async function history() {
  const response = await fetch("api/predictions?limit=10");
  if (!response.ok) return;
  rows.replaceChildren(...(await response.json()).map((prediction) => {
    const row = document.createElement("tr");
    for (const value of [prediction.id, prediction.species, prediction.answered]) {
      row.append(Object.assign(document.createElement("td"), { textContent: value }));
    }
    return row;
  }));
}

history();
