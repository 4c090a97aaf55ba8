// Makes the headings of sortable tables buttons that sort: numbers as numbers, the rest as words, gaps last.
"use strict";
(() => {
  const value = (row, column) => {
    const text = row.cells[column].textContent.trim();
    const number = /^[-−+]?[\d,]*\.?\d+(e[-+]?\d+)?/i.exec(text);
    return { text, number: number ? Number(number[0].replace("−", "-").replaceAll(",", "")) : NaN };
  };
  const compare = (a, b, sign) => {
    const gap = (one) => one.text === "" || one.text.startsWith("–");
    if (gap(a) || gap(b)) return Number(gap(a)) - Number(gap(b));
    if (!Number.isNaN(a.number) && !Number.isNaN(b.number)) return sign * (a.number - b.number);
    return sign * a.text.localeCompare(b.text, undefined, { numeric: true });
  };
  const sort = (table, heading) => {
    const up = heading.getAttribute("aria-sort") !== "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", up ? "ascending" : "descending");
    const rows = [...table.tBodies[0].rows].map((row) => [value(row, heading.cellIndex), row]);
    rows.sort((a, b) => compare(a[0], b[0], up ? 1 : -1));
    table.tBodies[0].append(...rows.map(([, row]) => row));
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    for (const heading of table.tHead.rows[0].cells) {
      if (!heading.textContent.trim()) continue;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      button.addEventListener("click", () => sort(table, heading));
      heading.append(button);
    }
  }
})();
