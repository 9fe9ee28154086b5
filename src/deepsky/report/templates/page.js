document.documentElement.classList.add("js");
const board = document.querySelector("#board");
const body = board.tBodies[0];
const controls = document.querySelector("#controls");
const shown = document.querySelector("#shown");

function keyOf(row, column) {
  const text = row.cells[column].dataset.sort;
  return text === "" ? null : isNaN(text) ? text : Number(text);
}

function sortBy(header) {
  const column = header.cellIndex;
  const first = header.dataset.first;
  const now = header.getAttribute("aria-sort");
  const rising = now ? now !== "ascending" : first === "ascending";
  const rows = [...body.rows].sort((a, b) => {
    const [x, y] = [keyOf(a, column), keyOf(b, column)];
    if (x === null || y === null) return (x === null) - (y === null);
    const order = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y));
    return rising ? order : -order;
  });
  body.append(...rows);
  for (const other of board.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", rising ? "ascending" : "descending");
}

function filter() {
  const words = controls.elements.text.value.toLowerCase().split(/\s+/).filter(Boolean);
  const chosen = [...controls.querySelectorAll("select:not([name=order])")].filter((one) => one.value);
  let n = 0;
  for (const row of body.rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !(words.every((word) => text.includes(word)) && chosen.every((one) => row.dataset[one.name] === one.value));
    n += !row.hidden;
  }
  shown.textContent = n === body.rows.length ? "" : `${n} of ${body.rows.length} runs`;
}

function openTarget() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  for (let one = target; one; one = one.parentElement) if (one.tagName === "DETAILS") one.open = true;
  target.scrollIntoView();
}

for (const header of board.tHead.rows[0].cells) {
  header.querySelector("button").addEventListener("click", () => sortBy(header));
}
controls.elements.order.addEventListener("change", (event) => {
  const header = board.tHead.rows[0].cells[event.target.value];
  header.removeAttribute("aria-sort");
  sortBy(header);
});
controls.addEventListener("input", filter);
controls.addEventListener("submit", (event) => event.preventDefault());
window.addEventListener("hashchange", openTarget);
openTarget();
