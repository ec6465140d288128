"use strict";
// What all pages have. Everything from the data goes into the page as text, never as markup.
const D = JSON.parse(document.getElementById("data").textContent);
const $ = id => document.getElementById(id);
const number = value => Math.round(value).toLocaleString("en-US");
const percent = (now, was) => was ? (now > was ? "+" : "") + ((now / was - 1) * 100).toFixed(1).replace("-", "\u2212") + "%" : "";
const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function make(tag, text, attributes) {
  const node = document.createElement(tag);
  if (text !== undefined && text !== null) node.textContent = text;
  for (const key in attributes || {}) node.setAttribute(key, attributes[key]);
  return node;
}

// As the system has it, until somebody presses the button.
function themes(repaint) {
  const dark = matchMedia("(prefers-color-scheme: dark)"), root = document.documentElement.classList;
  root.toggle("dark", dark.matches);
  dark.addEventListener("change", () => { root.toggle("dark", dark.matches); repaint(); });
  $("theme").addEventListener("click", () => { root.toggle("dark"); repaint(); });
}
