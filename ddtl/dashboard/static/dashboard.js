// The table of everything below the runs folder: sorted, filtered, picked from, and kept up to date.
// Whatever a name contains reaches the page as text alone: nothing here writes markup.
"use strict";
(() => {
  const EVERY = 2000; // milliseconds between two looks
  const PAGE = 200; // rows shown at a time
  const at = (id) => document.getElementById(id);
  const number = (value) => (typeof value === "number" ? value.toFixed(3) : "");
  const COLUMNS = [
    { key: "kind", title: "kind", left: true },
    { key: "name", title: "name", left: true },
    { key: "dataset", title: "dataset", left: true, show: (r) => (r.trained_on ? `${r.trained_on} → ${r.dataset}` : r.dataset) },
    { key: "protocol", title: "protocol", left: true },
    { key: "model", title: "model", left: true },
    { key: "finetune", title: "schedule", left: true },
    { key: "seed", title: "seed" },
    { key: "score", title: "ROC AUC", show: scored },
    { key: "best", title: "best val by image", show: (r) => (r.kind === "run" || r.kind === "sweep" ? number(r.best) : "") },
    { key: "epoch", title: "epoch", show: (r) => (r.epoch === null ? "" : r.epochs ? `${r.epoch}/${r.epochs}` : `${r.epoch}`) },
    { key: "state", title: "state", left: true },
    { key: "when", title: "changed", show: (r) => ago(r.when) },
    { key: "note", title: "note", left: true },
  ];
  let rows = [], tag = "", limit = PAGE, sort = { key: "when", down: true }, open = false, drawn = "";
  const picked = new Set();

  function scored(r) {
    if (typeof r.score !== "number") return "";
    const interval = typeof r.low === "number" ? ` (${number(r.low)}–${number(r.high)})` : "";
    return `${number(r.score)}${interval}${r.by ? ` by ${r.by}` : ""}${r.split === "val" ? ", validation" : ""}`;
  }
  function ago(when) {
    const s = Math.max(0, Date.now() / 1000 - when);
    if (s < 60) return "now";
    if (s < 3600) return `${Math.floor(s / 60)} min`;
    if (s < 86400) return `${Math.floor(s / 3600)} h`;
    return `${Math.floor(s / 86400)} d`;
  }
  const element = (name, text, className) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  };

  function wanted() {
    const words = at("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const kind = at("kind").value, state = at("state").value;
    return rows.filter((r) => (!kind || r.kind === kind) && (!state || r.state === state) && words.every((w) => r.text.includes(w)));
  }
  function sorted(found) {
    const { key, down } = sort, sign = down ? -1 : 1;
    const value = (r) => r[key];
    return found.slice().sort((a, b) => {
      const x = value(a), y = value(b);
      const none = (v) => v === null || v === "" || v === undefined;
      if (none(x) || none(y)) return none(x) - none(y); // what is not known comes last, whichever way
      return sign * (typeof x === "number" ? x - y : String(x).localeCompare(String(y), undefined, { numeric: true }));
    });
  }

  function heads() {
    const row = at("head");
    row.append(element("td", ""));
    for (const column of COLUMNS) {
      const head = element("th", undefined, column.left ? "words" : "");
      head.scope = "col";
      const button = element("button", column.title);
      button.type = "button";
      button.addEventListener("click", () => {
        sort = { key: column.key, down: sort.key === column.key ? !sort.down : !column.left };
        show();
      });
      head.append(button);
      head.dataset.key = column.key;
      row.append(head);
    }
  }

  function line(r) {
    const row = element("tr", undefined, r.state);
    row.dataset.path = r.path;
    const pick = element("td");
    if ((r.kind === "run" || r.kind === "evaluation") && r.state !== "broken") {
      const box = element("input");
      box.type = "checkbox";
      box.checked = picked.has(r.path);
      box.setAttribute("aria-label", `Pick ${r.name}`);
      box.addEventListener("change", () => {
        if (box.checked) picked.add(r.path); else picked.delete(r.path);
        pickedNow();
      });
      pick.append(box);
    }
    row.append(pick);
    for (const column of COLUMNS) {
      const text = column.show ? column.show(r) : r[column.key] ?? "";
      const cell = element("td", undefined, column.key === "name" ? "name" : column.key === "note" ? "left words note-cell" : column.left ? `left ${column.key}` : "");
      let holder = cell;
      if (column.key === "name" && r.report) {
        holder = element("a");
        holder.href = `/report/${r.path.split("/").map(encodeURIComponent).join("/")}`;
        holder.target = "_blank";
        holder.rel = "noopener";
        cell.append(holder);
      }
      const span = element("span", String(text));
      if (column.key === "name" || column.key === "note") span.title = String(text);
      holder.append(span);
      row.append(cell);
    }
    return row;
  }

  function show() {
    const found = sorted(wanted());
    const focused = document.activeElement && document.activeElement.closest("tr[data-path]");
    const path = focused && focused.dataset.path, tagName = focused && document.activeElement.tagName;
    at("body").replaceChildren(...found.slice(0, limit).map(line));
    if (path) {
      const row = [...at("body").children].find((one) => one.dataset.path === path);
      const again = row && row.querySelector(tagName);
      if (again) again.focus({ preventScroll: true });
    }
    at("more").hidden = found.length <= limit;
    at("more").textContent = `Show more (${found.length - limit} left)`;
    const running = rows.filter((r) => r.state === "running").length;
    at("counts").textContent = `${found.length === rows.length ? "" : `${found.length} of `}${rows.length} rows${running ? `, ${running} running` : ""}`;
    for (const head of at("head").children) {
      if (!head.dataset.key) continue;
      head.ariaSort = head.dataset.key === sort.key ? (sort.down ? "descending" : "ascending") : "none";
    }
  }

  function options(id, key) {
    const select = at(id), known = new Set([...select.options].map((o) => o.value));
    for (const value of [...new Set(rows.map((r) => r[key]))].sort()) {
      if (known.has(value)) continue;
      const option = element("option", value);
      option.value = value;
      select.append(option);
    }
  }

  const query = () => [...picked].map((path) => `run=${encodeURIComponent(path)}`).join("&");
  function pickedNow() {
    at("picked").hidden = picked.size === 0;
    at("picked-count").textContent = `${picked.size} picked`;
    at("compare").hidden = picked.size < 2;
    at("compare").href = `/compare?${query()}`;
    if (picked.size === 0) open = false;
    charts();
  }

  let plotly = null;
  function library() {
    plotly ??= new Promise((resolve, reject) => {
      const script = element("script");
      script.src = "/static/plotly.js";
      script.onload = resolve;
      script.onerror = reject;
      document.head.append(script);
    });
    return plotly;
  }
  async function charts() {
    const place = at("charts");
    place.hidden = !open;
    if (!open) { place.replaceChildren(); drawn = ""; return; }
    const wanted = query();
    const answer = await fetch(`/api/curves?${wanted}`);
    if (!answer.ok || wanted !== query()) return;
    const text = await answer.text();
    if (text === drawn) return;
    const found = JSON.parse(text);
    await library();
    drawn = text;
    if (place.childElementCount !== found.length || !place.querySelector("figure")) {
      place.replaceChildren(...found.map(() => {
        const figure = element("figure", undefined, "plot");
        figure.append(element("h3"), element("div", undefined, "chart"));
        return figure;
      }));
    }
    if (!found.length) place.append(element("p", "No epochs are recorded for what is picked."));
    const css = getComputedStyle(document.documentElement);
    found.forEach((one, i) => {
      const figure = place.children[i];
      figure.querySelector("h3").textContent = one.title;
      const chart = figure.querySelector(".chart");
      chart.setAttribute("role", "img");
      chart.setAttribute("aria-label", `${one.title} over the epochs of ${picked.size} runs`);
      const { data, layout } = coloured(one.spec, css);
      Plotly.react(chart, data, layout, { responsive: true, displayModeBar: false });
    });
  }

  async function look() {
    try {
      const answer = await fetch("/api/rows", { headers: tag ? { "If-None-Match": tag } : {} });
      if (answer.status === 200) {
        tag = answer.headers.get("ETag") ?? "";
        const found = await answer.json();
        const before = new Map(rows.map((r) => [r.path, r]));
        rows = found.rows;
        for (const r of rows) r.text = COLUMNS.map((c) => String(c.show ? c.show(r) : r[c.key] ?? "")).join(" ").toLowerCase() + " " + r.path.toLowerCase();
        at("where").textContent = found.runs_dir;
        document.title = `${found.runs_dir} · ddtl dashboard`;
        const advanced = rows.filter((r) => r.state === "running" && before.has(r.path) && before.get(r.path).epoch !== r.epoch);
        if (advanced.length) at("status").textContent = advanced.map((r) => `${r.name}: epoch ${r.epoch}${r.epochs ? ` of ${r.epochs}` : ""}`).join("; ");
        options("kind", "kind");
        options("state", "state");
        show();
        if (open) await charts();
      }
    } catch (error) {
      at("counts").textContent = "The dashboard does not answer: its command has ended.";
    }
    setTimeout(look, EVERY);
  }

  heads();
  for (const id of ["filter", "kind", "state"]) at(id).addEventListener("input", () => { limit = PAGE; show(); });
  at("controls").addEventListener("submit", (event) => event.preventDefault());
  at("more").addEventListener("click", () => { limit += 5 * PAGE; show(); });
  at("curves").addEventListener("click", () => { open = !open; drawn = ""; charts(); });
  at("none").addEventListener("click", () => { picked.clear(); pickedNow(); show(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { drawn = ""; charts(); });
  pickedNow();
  look();
})();
