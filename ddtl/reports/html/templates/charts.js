// Draws every figure in the colours of style.css, again when the reader's theme changes or the page is printed.
"use strict";
(() => {
  const figures = [...document.querySelectorAll("figure.plot")];
  const spec = (figure, element) =>
    coloured(JSON.parse(figure.querySelector("script").textContent), getComputedStyle(element));
  const draw = () => {
    for (const figure of figures) {
      const { data, layout } = spec(figure, document.documentElement);
      Plotly.react(figure.querySelector(".chart"), data, layout, { responsive: true, displayModeBar: false });
    }
  };
  const addButton = (figure) => {
    const title = figure.querySelector("h3");
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Save SVG";
    button.setAttribute("aria-label", `Save SVG of the chart ${title.textContent}`);
    button.addEventListener("click", () => {
      const name = `${document.querySelector("h1").textContent} ${title.textContent}`.replace(/[^\w-]+/g, "_").slice(0, 100);
      // Always in the colours of paper: a figure of a dark screen is of no use in a manuscript.
      Plotly.downloadImage(spec(figure, button), { format: "svg", width: 560, height: 420, filename: name });
    });
    button.className = "paper";
    title.after(button);
  };
  figures.forEach(addButton);
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  matchMedia("print").addEventListener("change", draw);
})();
