// A Plotly specification with the names of colours in style.css replaced by what they are for an element.
"use strict";
const coloured = (value, css, key = "") => {
  if (typeof value === "string") {
    const name = /color$/i.test(key) && /^var\((--[\w-]+)\)$/.exec(value);
    return name ? css.getPropertyValue(name[1]).trim() : value;
  }
  if (Array.isArray(value)) return value.map((part) => coloured(part, css, key));
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([name, part]) => [name, coloured(part, css, name)]));
};
// The page's policy forbids attributes that style. Plotly sets some, for the exponents at an axis: as properties they may be.
const setAttribute = Element.prototype.setAttribute;
Element.prototype.setAttribute = function (name, value) {
  if (name === "style") this.style.cssText = value;
  else setAttribute.call(this, name, value);
};
