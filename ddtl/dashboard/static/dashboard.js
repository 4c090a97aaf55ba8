// The table of everything below the runs folder: grouped, sorted, filtered, picked from, and kept up to date.
// Whatever a name contains reaches the page as text alone: nothing here writes markup.
// The address after # is the view: filter, sort, columns, picked runs, open panels. Copied, it shows the same again.
"use strict";
(() => {
  const EVERY = 2000; // milliseconds between two looks
  const PAGE = 200; // rows shown at a time
  const number = (value) => (typeof value === "number" ? value.toFixed(3) : "");
  const COLUMNS = [
    { key: "name", title: "name", left: true },
    { key: "kind", title: "kind", left: true, optional: true },
    { key: "dataset", title: "dataset", left: true, optional: true, show: (r) => (r.trained_on ? `${r.trained_on} → ${r.dataset}` : r.dataset) },
    { key: "protocol", title: "protocol", left: true, optional: true },
    { key: "model", title: "model", left: true },
    { key: "finetune", title: "schedule", left: true },
    { key: "seed", title: "seed" },
    { key: "score", title: "ROC AUC", show: scored },
    { key: "best", title: "best val by image", show: (r) => (r.kind === "run" || r.kind === "sweep" ? number(r.best) : "") },
    { key: "epoch", title: "epoch", show: (r) => (r.epoch === null ? "" : r.epochs ? `${r.epoch}/${r.epochs}` : `${r.epoch}`) },
    { key: "state", title: "state", left: true },
    { key: "when", title: "changed", show: (r) => ago(r.when) },
    { key: "tags", title: "tags", left: true, whereUsed: true, show: (r) => r.tags.join(" ") },
    { key: "user_note", title: "note", left: true, whereUsed: true },
    { key: "note", title: "details", left: true },
  ];
  const PANELS = ["curves", "differences", "logs"];
  const SECTIONS = { curves: "curve-panel", differences: "difference-panel", logs: "log-panel" };
  const collator = new Intl.Collator(undefined, { numeric: true });

  let rows = [], byPath = new Map(), parents = new Map(), tag = "", limit = PAGE, loaded = false, project = "";
  const view = { filter: "", kind: "", state: "", group: "", sort: { key: "when", down: true }, columns: null, sweep: "", smooth: 0, log: false, robust: false };
  const picked = new Set(), toggled = new Set(), shown = new Set(), hidden = new Set();

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

  // The view in the address.

  function address() {
    const found = new URLSearchParams();
    const text = { filter: view.filter, kind: view.kind, state: view.state, group: view.group, sweep: view.sweep };
    for (const [key, value] of Object.entries(text)) if (value) found.set(key, value);
    const sort = `${view.sort.down ? "-" : ""}${view.sort.key}`;
    if (sort !== "-when") found.set("sort", sort);
    if (view.columns) found.set("columns", view.columns.join(","));
    if (view.smooth) found.set("smooth", String(view.smooth));
    for (const key of ["log", "robust"]) if (view[key]) found.set(key, "1");
    if (shown.size) found.set("show", [...shown].join(","));
    for (const path of picked) found.append("run", path);
    for (const path of toggled) found.append("fold", path);
    for (const name of hidden) found.append("hide", name);
    return found.toString();
  }
  function remember() {
    const now = address();
    if (now !== location.hash.slice(1)) history.replaceState(null, "", now ? `#${now}` : location.pathname);
    for (const link of at("view-list").querySelectorAll("a")) link.ariaCurrent = String(link.hash.slice(1) === now);
  }

  // Views that are kept under a name: in views.json for everyone, and in this browser for who keeps them here.

  let kept = { kept: [], problem: "" }, store = "", drawn = "";
  function own() {
    try {
      const found = JSON.parse(localStorage.getItem(store) ?? "[]");
      return Array.isArray(found) ? found.filter((one) => Array.isArray(one) && one.length === 2 && one.every((text) => typeof text === "string")) : [];
    } catch {
      return [];
    }
  }
  function keep(views, done) {
    try {
      localStorage.setItem(store, JSON.stringify(views.slice(0, 50)));
      at("status").textContent = done;
    } catch {
      at("status").textContent = "This browser keeps nothing for this page. At a terminal: ddtl runs view NAME ADDRESS";
    }
    listViews();
  }
  function listViews() {
    const mine = own(), now = JSON.stringify([kept, mine]);
    if (now === drawn) return;
    drawn = now;
    const entry = ([name, view], forget) => {
      const item = element("li"), link = element("a", name);
      link.href = `#${view}`;
      link.ariaCurrent = String(view === address());
      item.append(link);
      if (forget) {
        const button = element("button", "Remove", "small");
        button.type = "button";
        button.setAttribute("aria-label", `Remove the view ${name}`);
        button.addEventListener("click", () => { keep(own().filter((one) => one[0] !== name), `The view ${name} is removed.`); at("view-name").focus(); });
        item.append(button);
      }
      return item;
    };
    at("view-list").replaceChildren(...kept.kept.map((one) => entry(one, false)), ...mine.map((one) => entry(one, true)));
    at("no-views").hidden = kept.kept.length + mine.length > 0 && !kept.problem;
    at("no-views").textContent = kept.problem || "No view is kept yet.";
  }
  function keepThis() {
    const name = at("view-name").value.trim();
    if (!name) { at("status").textContent = "Give the view a name."; at("view-name").focus(); return; }
    keep([...own().filter((one) => one[0] !== name), [name, address()]], `The view ${name} is kept in this browser.`);
    at("view-name").value = "";
  }
  function restore() {
    const given = new URLSearchParams(location.hash.slice(1));
    for (const key of ["filter", "kind", "state", "group", "sweep"]) view[key] = given.get(key) ?? "";
    const sort = given.get("sort") ?? "-when", key = sort.replace(/^-/, "");
    view.sort = COLUMNS.some((c) => c.key === key) ? { key, down: sort.startsWith("-") } : { key: "when", down: true };
    const columns = given.get("columns");
    view.columns = columns === null ? null : COLUMNS.map((c) => c.key).filter((one) => one === "name" || columns.split(",").includes(one));
    const smooth = Number(given.get("smooth"));
    view.smooth = smooth > 0 && smooth <= 0.95 ? smooth : 0;
    for (const one of ["log", "robust"]) view[one] = given.get(one) === "1";
    const refill = (set, values) => { set.clear(); values.forEach((value) => set.add(value)); };
    refill(shown, (given.get("show") ?? "").split(",").filter((one) => PANELS.includes(one)));
    refill(picked, given.getAll("run"));
    refill(toggled, given.getAll("fold"));
    refill(hidden, given.getAll("hide"));
    for (const id of ["filter", "group"]) at(id).value = view[id];
    at("smooth").value = at("smooth-value").textContent = String(view.smooth);
    for (const id of ["log", "robust"]) at(id).checked = view[id];
    limit = PAGE;
    if (loaded) everything();
  }

  // Which rows are shown, and in what order.

  const isFiltered = () => Boolean(view.filter.trim() || view.kind || view.state);
  function wanted() {
    const words = view.filter.toLowerCase().split(/\s+/).filter(Boolean);
    return rows.filter((r) => (!view.kind || r.kind === view.kind) && (!view.state || r.state === view.state) && words.every((w) => r.text.includes(w)));
  }
  function sorted(found) {
    const { key, down } = view.sort, sign = down ? -1 : 1;
    const value = (r) => (key === "tags" ? r.tags.join(" ") : r[key]);
    const none = (v) => v === null || v === "" || v === undefined;
    return found.slice().sort((a, b) => {
      const x = value(a), y = value(b);
      if (none(x) || none(y)) return none(x) - none(y); // what is not known comes last, whichever way
      return sign * (typeof x === "number" && typeof y === "number" ? x - y : collator.compare(String(x), String(y)));
    });
  }
  const append = (map, key, value) => { if (map.has(key)) map.get(key).push(value); else map.set(key, [value]); };
  // Runs are below their sweep or study, and evaluations below their run; a row may be below several.
  function relate() {
    byPath = new Map(rows.map((r) => [r.path, r]));
    parents = new Map();
    for (const r of rows) {
      for (const path of r.members) if (byPath.get(path)?.kind === "run") append(parents, path, r.path);
      if (r.kind === "evaluation") {
        const run = r.path.replace(/\/evaluations\/[^/]*$/, "");
        if (byPath.get(run)?.kind === "run") append(parents, r.path, run);
      }
    }
  }
  const isOpen = (r, matches) => (r.kind === "run" || (isFiltered() && matches)) !== toggled.has(r.path);
  // The lines of the table: a heading of a dataset, or a row with its depth and how many are below it.
  function outline(found) {
    if (view.group === "none") return sorted(found).map((row) => ({ row, depth: 0, below: 0 }));
    const matching = new Set(found.map((r) => r.path)), included = new Set(matching);
    const include = (path) => (parents.get(path) ?? []).forEach((above) => { included.add(above); include(above); });
    matching.forEach(include);
    const children = new Map(), groups = new Map();
    for (const r of sorted(rows.filter((one) => included.has(one.path)))) {
      const above = parents.get(r.path) ?? [];
      if (!above.length) append(groups, r.dataset, r);
      for (const path of above) append(children, path, r);
    }
    const lines = [];
    const add = (row, depth) => {
      const below = children.get(row.path) ?? [];
      const open = below.length > 0 && isOpen(row, below.some((one) => matching.has(one.path)));
      lines.push({ row, depth, below: below.length, open });
      if (open) below.forEach((one) => add(one, depth + 1));
    };
    for (const [dataset, members] of groups) {
      const open = !toggled.has(`dataset:${dataset}`);
      lines.push({ dataset, count: members.length, open });
      if (open) members.forEach((one) => add(one, 0));
    }
    return lines;
  }

  const isUsed = (column) => rows.some((r) => (column.key === "tags" ? r.tags.length : r[column.key]));
  function columns() {
    if (view.columns) return COLUMNS.filter((c) => view.columns.includes(c.key));
    return COLUMNS.filter((c) => (c.whereUsed ? isUsed(c) : !c.optional || (view.group === "none" && c.key !== "protocol")));
  }

  function heads(chosen) {
    at("head").replaceChildren(element("td", ""), ...chosen.map((column) => {
      const head = element("th", undefined, column.left ? "words" : "");
      head.scope = "col";
      const button = element("button", column.title);
      button.type = "button";
      button.addEventListener("click", () => {
        const { key, down } = view.sort;
        view.sort = { key: column.key, down: key === column.key ? !down : !column.left };
        show();
        [...at("head").children].find((one) => one.dataset.key === column.key)?.querySelector("button").focus();
      });
      head.append(button);
      head.dataset.key = column.key;
      head.ariaSort = column.key === view.sort.key ? (view.sort.down ? "descending" : "ascending") : "none";
      return head;
    }));
  }
  const turn = (key) => { if (toggled.has(key)) toggled.delete(key); else toggled.add(key); show(); };

  function heading({ dataset, count, open }, width) {
    const row = element("tr", undefined, "group"), cell = element("th"), button = element("button");
    cell.colSpan = width;
    cell.scope = "rowgroup";
    button.type = "button";
    button.className = "fold";
    button.dataset.fold = `dataset:${dataset}`;
    button.setAttribute("aria-expanded", String(open));
    button.append(element("span", dataset || "no dataset"), element("small", ` ${count}`));
    button.addEventListener("click", () => turn(`dataset:${dataset}`));
    cell.append(button);
    row.append(cell);
    return row;
  }

  const PICKED = { run: true, evaluation: true };
  function line({ row: r, depth, below, open }, chosen) {
    const row = element("tr", undefined, r.state);
    row.dataset.path = r.path;
    row.dataset.depth = String(Math.min(depth, 2));
    const pick = element("td", undefined, "pick");
    if (PICKED[r.kind] && r.state !== "broken") {
      const box = element("input");
      box.type = "checkbox";
      box.checked = picked.has(r.path);
      box.setAttribute("aria-label", `Pick ${r.name}`);
      box.addEventListener("change", () => {
        if (box.checked) picked.add(r.path); else picked.delete(r.path);
        for (const other of at("body").querySelectorAll(".pick input")) {
          if (other !== box && other.closest("tr").dataset.path === r.path) other.checked = box.checked;
        }
        pickedNow();
      });
      pick.append(box);
    }
    row.append(pick);
    for (const column of chosen) row.append(cell(r, column, below, open));
    return row;
  }
  function cell(r, column, below, open) {
    const text = String(column.show ? column.show(r) : r[column.key] ?? "");
    const made = element("td", undefined, `${column.left ? "left " : ""}${column.key === "note" ? "details" : column.key}`);
    made.dataset.label = column.title;
    if (!text) { made.classList.add("empty"); return made; }
    if (column.key === "tags") {
      made.append(...r.tags.map((name) => {
        const button = element("button", `#${name}`, "tag");
        button.type = "button";
        button.title = `Show what is tagged ${name}`;
        button.addEventListener("click", () => {
          at("filter").value = view.filter = `#${name}`;
          limit = PAGE;
          show();
        });
        return button;
      }));
      return made;
    }
    if (column.key === "score") {
      const end = text.indexOf(" by ");
      made.append(element("span", end < 0 ? text : text.slice(0, end)), " ", element("small", end < 0 ? "" : text.slice(end + 1)));
      return made;
    }
    const span = element("span", text);
    if (["name", "note", "user_note"].includes(column.key)) span.title = text;
    if (column.key !== "name") { made.append(span); return made; }
    const holder = element("div", undefined, "holder");
    if (below) {
      const button = element("button", String(below), "fold");
      button.type = "button";
      button.dataset.fold = r.path;
      button.setAttribute("aria-expanded", String(open));
      button.setAttribute("aria-label", `${below} ${r.kind === "run" ? "evaluations" : "runs"} of ${r.name}`);
      button.addEventListener("click", () => turn(r.path));
      holder.append(button);
    }
    let name = span;
    if (r.report) {
      name = element("a");
      name.href = `/report/${r.path.split("/").map(encodeURIComponent).join("/")}`;
      name.target = "_blank";
      name.rel = "noopener";
      name.append(span);
    }
    holder.append(name);
    if (r.kind !== "run") holder.append(element("small", r.kind));
    if (r.kind === "sweep" && r.state !== "broken") {
      const button = element("button", "charts", "small");
      button.type = "button";
      button.setAttribute("aria-label", `Charts of the sweep ${r.name}`);
      button.addEventListener("click", () => { view.sweep = view.sweep === r.path ? "" : r.path; remember(); sweep(); });
      holder.append(button);
    }
    made.append(holder);
    return made;
  }

  // Draws the table again, with what had the focus keeping it.
  function show() {
    const found = wanted(), chosen = columns(), lines = outline(found);
    const focused = document.activeElement, holder = focused && focused.closest("#body tr");
    const place = holder && [holder.dataset.path, focused.dataset.fold, focused.tagName];
    heads(chosen);
    at("body").replaceChildren(...lines.slice(0, limit).map((one) => (one.row ? line(one, chosen) : heading(one, chosen.length + 1))));
    if (place) {
      const [path, fold, name] = place;
      const again = fold
        ? [...at("body").querySelectorAll(".fold")].find((one) => one.dataset.fold === fold)
        : [...at("body").children].find((one) => one.dataset.path === path)?.querySelector(name);
      if (again) again.focus({ preventScroll: true });
    }
    at("more").hidden = lines.length <= limit;
    at("more").textContent = `Show more (${lines.length - limit} left)`;
    const running = rows.filter((r) => r.state === "running").length;
    at("counts").textContent = `${found.length === rows.length ? "" : `${found.length} of `}${rows.length} rows${running ? `, ${running} running` : ""}`;
    chooser(chosen);
    remember();
  }

  function chooser(chosen) {
    const place = at("column-list");
    if (!place.childElementCount) {
      place.append(...COLUMNS.filter((c) => c.key !== "name").map((column) => {
        const label = element("label"), box = element("input");
        box.type = "checkbox";
        box.dataset.key = column.key;
        box.addEventListener("change", () => {
          const keys = new Set(columns().map((c) => c.key));
          if (box.checked) keys.add(column.key); else keys.delete(column.key);
          view.columns = COLUMNS.map((c) => c.key).filter((key) => keys.has(key));
          show();
        });
        label.append(box, ` ${column.title}`);
        return label;
      }));
      const usual = element("button", "The usual columns");
      usual.type = "button";
      usual.addEventListener("click", () => { view.columns = null; show(); });
      place.append(usual);
    }
    const keys = new Set(chosen.map((c) => c.key));
    for (const box of place.querySelectorAll("input")) box.checked = keys.has(box.dataset.key);
  }

  function options(id) {
    const select = at(id), known = new Set([...select.options].map((o) => o.value));
    for (const value of [...new Set([...rows.map((r) => r[id]), view[id]])].sort()) {
      if (known.has(value)) continue;
      const option = element("option", value);
      option.value = value;
      select.append(option);
    }
    select.value = view[id];
  }

  // What is picked, and what is shown of it.

  const query = () => [...picked].map((path) => `run=${encodeURIComponent(path)}`).join("&");
  function pickedNow() {
    at("picked").hidden = picked.size === 0;
    at("picked-count").textContent = `${picked.size} picked`;
    at("compare").hidden = picked.size < 2;
    at("compare").href = `/compare?${query()}`;
    if (picked.size === 0) shown.clear();
    remember();
    for (const name of PANELS) panel(name);
  }
  const answers = { curves: "", differences: "", logs: "", sweep: "" }; // as text, so that the same is not drawn again
  const DRAW = {
    curves: (found) => panels.curves(found, { ...view, hidden }, () => { remember(); redraw(); }),
    differences: (found) => panels.differences(found),
    logs: (found) => panels.logs(found),
  };
  async function panel(name) {
    const open = shown.has(name);
    at(SECTIONS[name]).hidden = !open;
    at(name).setAttribute("aria-expanded", String(open));
    if (!open) { answers[name] = ""; return; }
    const wanted = query();
    const answer = await fetch(`/api/${name}?${wanted}`);
    if (!answer.ok || wanted !== query() || !shown.has(name)) return;
    const text = await answer.text();
    if (text === answers[name]) return;
    answers[name] = text;
    await DRAW[name](JSON.parse(text));
  }
  const redraw = () => { if (answers.curves) DRAW.curves(JSON.parse(answers.curves)); };
  async function sweep() {
    const path = view.sweep, row = byPath.get(path), open = row?.kind === "sweep";
    at("sweep-panel").hidden = !open;
    if (!open) { answers.sweep = ""; return; }
    at("sweep-title").textContent = `Sweep ${row.name}`;
    const answer = await fetch(`/api/sweep?run=${encodeURIComponent(path)}`);
    if (path !== view.sweep) return;
    if (!answer.ok) { answers.sweep = ""; at("sweep-charts").replaceChildren(element("p", await answer.text())); return; }
    const text = await answer.text();
    if (text === answers.sweep) return;
    answers.sweep = text;
    await panels.sweep(JSON.parse(text));
  }

  function everything() {
    options("kind");
    options("state");
    for (const path of picked) if (!byPath.has(path) || !PICKED[byPath.get(path).kind]) picked.delete(path);
    show();
    pickedNow();
    sweep();
  }

  async function look() {
    try {
      const answer = await fetch("/api/rows", { headers: tag ? { "If-None-Match": tag } : {} });
      if (answer.status === 200) {
        tag = answer.headers.get("ETag") ?? "";
        const found = await answer.json();
        const before = byPath;
        rows = found.rows;
        for (const r of rows) r.text = `${COLUMNS.map((c) => String(c.show ? c.show(r) : r[c.key] ?? "")).join(" ")} ${r.tags.map((t) => `#${t}`).join(" ")} ${r.path}`.toLowerCase();
        relate();
        document.querySelector("template").id = found.maps;
        project = found.project;
        kept = found.views;
        store = `ddtl views ${found.runs_dir}`;
        listViews();
        at("where").textContent = project;
        at("where").title = found.runs_dir;
        document.title = `${project} · ddtl dashboard`;
        const advanced = rows.filter((r) => r.state === "running" && before.has(r.path) && before.get(r.path).epoch !== r.epoch && r.kind === "run");
        if (advanced.length) at("status").textContent = advanced.map((r) => `${r.name}: epoch ${r.epoch}${r.epochs ? ` of ${r.epochs}` : ""}`).join("; ");
        loaded = true;
        everything();
      }
    } catch (error) {
      at("counts").textContent = "The dashboard does not answer: its command has ended.";
      tag = "";
    }
    setTimeout(look, EVERY);
  }

  for (const id of ["filter", "kind", "state", "group"]) at(id).addEventListener("input", () => { view[id] = at(id).value; limit = PAGE; show(); });
  at("controls").addEventListener("submit", (event) => event.preventDefault());
  at("more").addEventListener("click", () => { limit += 5 * PAGE; show(); });
  for (const name of PANELS) {
    at(name).addEventListener("click", () => {
      if (shown.has(name)) shown.delete(name); else shown.add(name);
      remember();
      panel(name);
    });
  }
  at("none").addEventListener("click", () => { picked.clear(); pickedNow(); show(); });
  at("sweep-close").addEventListener("click", () => { view.sweep = ""; remember(); sweep(); });
  at("smooth").addEventListener("input", () => { view.smooth = Number(at("smooth").value); at("smooth-value").textContent = String(view.smooth); remember(); redraw(); });
  for (const id of ["log", "robust"]) at(id).addEventListener("change", () => { view[id] = at(id).checked; remember(); redraw(); });
  at("link").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(location.href);
      at("status").textContent = "The link is copied: it restores filter, sort, columns and picked runs.";
    } catch {
      at("status").textContent = "This browser does not let a page copy: copy the address of this page.";
    }
  });
  at("keep").addEventListener("click", keepThis);
  at("view-name").addEventListener("keydown", (event) => { if (event.key === "Enter") { event.preventDefault(); keepThis(); } });
  addEventListener("hashchange", restore);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    redraw();
    if (answers.sweep) panels.sweep(JSON.parse(answers.sweep));
  });
  restore();
  pickedNow();
  look();
})();
