// What is shown of picked runs and of a sweep: curves, settings that differ, logs, parameters.
// Whatever a record contains reaches the page as text alone: nothing here writes markup.
"use strict";
const at = (id) => document.getElementById(id);
const element = (name, text, className) => {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
};

const panels = (() => {
  let plotly = null;
  function library() {
    plotly ??= new Promise((resolve, reject) => {
      const script = element("script");
      script.src = "/static/plotly.js";
      script.onload = resolve;
      script.onerror = () => { plotly = null; reject(new Error("plotly.js")); };
      document.head.append(script);
    });
    return plotly;
  }

  // The exponential moving average, corrected for its start at zero: the first value stays as it is.
  function smoothed(values, weight) {
    let sum = 0, n = 0;
    return values.map((value) => {
      if (typeof value !== "number") return value;
      sum = sum * weight + value * (1 - weight);
      n += 1;
      return sum / (1 - weight ** n);
    });
  }
  const quantile = (sorted, share) => {
    const place = (sorted.length - 1) * share, low = Math.floor(place);
    return sorted[low] + (sorted[Math.min(low + 1, sorted.length - 1)] - sorted[low]) * (place - low);
  };
  // A range that excludes what is more than three times the middle half away from it, and how many values that are.
  function robust(values) {
    const sorted = values.slice().sort((a, b) => a - b);
    if (sorted.length < 4) return null;
    const low = quantile(sorted, 0.25), high = quantile(sorted, 0.75), reach = 3 * (high - low);
    const inside = sorted.filter((value) => value >= low - reach && value <= high + reach);
    const outside = sorted.length - inside.length;
    if (!outside) return null;
    const room = (inside[inside.length - 1] - inside[0]) * 0.05 || Math.abs(inside[0]) * 0.05 || 0.05;
    return { range: [inside[0] - room, inside[inside.length - 1] + room], outside };
  }

  // A chart's specification as the options want it, and a note on what they exclude.
  function styled(spec, options) {
    const notes = [];
    const data = [];
    let seen = [];
    for (const trace of spec.data) {
      if (options.hidden.has(trace.name)) continue;
      const y = options.smooth ? smoothed(trace.y, options.smooth) : trace.y;
      if (options.smooth) data.push({ ...trace, mode: "lines", opacity: 0.25, hoverinfo: "skip", hovertemplate: undefined });
      data.push({ ...trace, y, mode: options.smooth || trace.y.length > 40 ? "lines" : trace.mode });
      seen = seen.concat(y.filter((value) => typeof value === "number"));
    }
    const yaxis = { ...spec.layout.yaxis };
    let scaled = seen;
    if (options.log) {
      scaled = seen.filter((value) => value > 0).map(Math.log10);
      if (scaled.length) yaxis.type = "log";
      if (!scaled.length && seen.length) notes.push("no logarithmic axis: no value is above 0");
      else if (scaled.length < seen.length) notes.push(`${seen.length - scaled.length} values of 0 or less have no place on it`);
      if (!scaled.length) scaled = seen;
    }
    const found = options.robust ? robust(scaled) : null;
    if (found) {
      yaxis.range = found.range;
      notes.push(`${found.outside} ${found.outside === 1 ? "outlier is" : "outliers are"} outside`);
    }
    const layout = { ...spec.layout, yaxis, showlegend: false };
    return { spec: { data, layout }, note: notes.join("; ") };
  }

  const figures = (place, count, wide) => {
    if (place.childElementCount !== count || (count && !place.querySelector("figure"))) {
      place.replaceChildren(...Array.from({ length: count }, () => {
        const figure = element("figure", undefined, "plot");
        figure.append(element("h3"), element("div", undefined, "chart"), element("p", "", "note"));
        return figure;
      }));
    }
    [...place.children].forEach((figure, i) => figure.classList.toggle("wide", wide(i)));
    return [...place.children];
  };
  function draw(figure, title, label, spec, note) {
    figure.querySelector("h3").textContent = title;
    figure.querySelector(".note").textContent = note;
    const chart = figure.querySelector(".chart");
    chart.setAttribute("role", "img");
    chart.setAttribute("aria-label", label);
    const { data, layout } = coloured(spec, getComputedStyle(document.documentElement));
    for (const axis of [layout.xaxis, layout.yaxis]) axis.exponentformat = "e"; // and not 500µ
    Plotly.react(chart, data, layout, { responsive: true, displayModeBar: false });
  }

  function legend(place, specs, hidden, changed) {
    const traces = specs.length ? specs[0].spec.data : [];
    place.replaceChildren(...traces.map((trace) => {
      const button = element("button");
      button.type = "button";
      button.setAttribute("aria-pressed", String(!hidden.has(trace.name)));
      const swatch = element("span", undefined, "swatch");
      swatch.style.borderTopColor = trace.line.color;
      swatch.style.borderTopStyle = { solid: "solid", dot: "dotted" }[trace.line.dash] ?? "dashed";
      button.append(swatch, element("span", unescaped(trace.name)));
      button.addEventListener("click", () => {
        if (hidden.has(trace.name)) hidden.delete(trace.name); else hidden.add(trace.name);
        changed();
      });
      const item = element("li");
      item.append(button);
      return item;
    }));
  }
  // Plotly takes tags in names for markup, so that they come with these three escaped.
  const unescaped = (text) => text.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&");

  async function curves(found, options, changed) {
    const place = at("charts");
    if (!found.length) {
      at("legend").replaceChildren();
      place.replaceChildren(element("p", "No epochs are recorded for what is picked."));
      return;
    }
    await library();
    legend(at("legend"), found, options.hidden, changed);
    const lines = found[0].spec.data.length;
    figures(place, found.length, () => false).forEach((figure, i) => {
      const { spec, note } = styled(found[i].spec, options);
      draw(figure, found[i].title, `${found[i].title} over the epochs, ${lines} ${lines === 1 ? "line" : "lines"}`, spec, note);
    });
  }

  async function sweep(found) {
    const place = at("sweep-charts");
    if (!found.length) {
      place.replaceChildren(element("p", "No trial has a score yet. The charts appear with the first one."));
      return;
    }
    await library();
    figures(place, found.length, (i) => found[i].wide).forEach((figure, i) =>
      draw(figure, found[i].title, `${found[i].title}, trials of the sweep`, found[i].spec, ""));
  }

  function differences(found) {
    const place = at("difference-table");
    const parts = found.problems.map((problem) => element("p", problem, "note"));
    if (!found.keys.length) {
      place.replaceChildren(...parts, element("p", found.names.length < 2 ? "Pick two runs or more." : "All their settings are the same."));
      return;
    }
    const table = element("table"), head = element("tr"), top = element("thead"), body = element("tbody");
    head.append(...["setting", ...found.names].map((name) => {
      const cell = element("th", name, "words");
      cell.scope = "col";
      return cell;
    }));
    top.append(head);
    body.append(...found.keys.map(({ key, values }) => {
      const row = element("tr"), name = element("th", key);
      name.scope = "row";
      row.append(name, ...values.map((value, i) => {
        const cell = element("td", value === "" ? "–" : value, "words");
        cell.dataset.label = found.names[i];
        return cell;
      }));
      return row;
    }));
    table.append(top, body);
    place.replaceChildren(...parts, table);
  }

  function logs(found) {
    const place = at("log-list"), before = new Map([...place.querySelectorAll("details")].map((one) => [one.dataset.path, one]));
    place.replaceChildren(...found.map((one, i) => {
      const made = before.get(one.path) ?? element("details");
      if (!before.has(one.path)) {
        made.dataset.path = one.path;
        made.open = i === 0;
        made.append(element("summary", one.name), element("p", "", "note"), element("pre"));
      }
      const text = made.querySelector("pre"), atEnd = text.scrollTop + text.clientHeight >= text.scrollHeight - 8;
      made.querySelector("p").textContent = one.note;
      made.querySelector("p").hidden = !one.note;
      text.hidden = !one.text;
      if (text.textContent !== one.text) text.textContent = one.text;
      if (atEnd) requestAnimationFrame(() => { text.scrollTop = text.scrollHeight; });
      return made;
    }));
  }

  return { curves, sweep, differences, logs };
})();
