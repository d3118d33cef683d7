// SortableTable: a heading that is pressed sorts the rows, best first, then worst first, then as they were.
(() => {
  const text = (cell) => {
    const lines = cell.cloneNode(true);
    for (const end of lines.querySelectorAll("br")) end.replaceWith("\n");
    return lines.textContent.trim();
  };
  const digits = (part) => Number(part.replace(/,/g, ""));
  const TIMES = { k: 1e3, K: 1e3, M: 1e6, G: 1e9, T: 1e12 };
  // A cell as a number: the one that it opens with, "1.2 M" with its thousands; of codebooks, "3 x 8" or "8 + 16", how many codes they have together.
  const number = (cell) => {
    if (/^[+−-]?(∞|inf(inity)?)$/i.test(cell)) return /^[−-]/.test(cell) ? -Infinity : Infinity;
    const levels = /^(\d+) x ([\d,]+)$/.exec(cell), sum = /^[\d,]+( \+ [\d,]+)+$/.test(cell), first = /^([+−-]?[\d,]*\.?\d+(?:e[+-]?\d+)?)(?:\s?([kKMGT])(?=i?B?\b))?/.exec(cell);
    if (levels) return digits(levels[2]) ** levels[1];
    if (sum) return cell.split(" + ").map(digits).reduce((a, b) => a * b);
    return first ? digits(first[1].replace("−", "-")) * (TIMES[first[2]] ?? 1) : NaN;
  };
  const missing = (cell) => /^(|[–—−-]|nan|n\/a)$/i.test(cell);

  function sort(table, at, way) {
    const body = table.tBodies[0], rows = table.vistokRows, key = (row) => text(row.cells[at]);
    const numeric = rows.every((row) => missing(key(row)) || !Number.isNaN(number(key(row))));
    const order = [...rows];
    if (way) order.sort((one, other) => {
      const [a, b] = [key(one), key(other)];
      if (missing(a) || missing(b)) return missing(a) - missing(b);  // whichever way, last
      return way * (numeric ? number(a) - number(b) : a.localeCompare(b, "en", { numeric: true }));
    });
    body.append(...order);
  }

  for (const box of document.querySelectorAll(".vistok-table:not([data-ready])")) {
    const table = box.querySelector("table"), heads = [...table.tHead.rows[0].cells];
    box.dataset.ready = "";
    table.vistokRows = [...table.tBodies[0].rows];
    for (const [at, head] of heads.entries()) {
      const first = text(head).includes("↑") ? -1 : 1;  // more is better: the most comes first
      head.querySelector("button").addEventListener("click", () => {
        const now = { ascending: 1, descending: -1 }[head.getAttribute("aria-sort")] ?? 0;
        const way = now === 0 ? first : now === first ? -first : 0;
        for (const other of heads) other.removeAttribute("aria-sort");
        if (way) head.setAttribute("aria-sort", way > 0 ? "ascending" : "descending");
        sort(table, at, way);
      });
    }
    box.addEventListener("keydown", (event) => event.stopPropagation());
  }
})();
