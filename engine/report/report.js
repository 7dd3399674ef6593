"use strict";
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

// A phrase lights up its regions, and a region its phrases: whatever shares a number within one card.
const light = (card, numbers) => {
  card.classList.toggle("lighting", numbers.length > 0);
  for (const part of all("[data-regions]", card)) {
    part.classList.toggle("lit", part.dataset.regions.split(" ").some((number) => numbers.includes(number)));
  }
};
let lighted = null;
const follow = (event) => {
  const part = event.target.closest("[data-regions]");
  const card = part && part.closest("article");
  if (lighted && lighted !== card) light(lighted, []);
  if (card) light(card, part.dataset.regions.split(" "));
  lighted = card;
};
document.addEventListener("pointerover", follow);
document.addEventListener("focusin", follow);
document.addEventListener("focusout", () => lighted && light(lighted, []));

// What a checkbox does is the style sheet's. What is other than at first goes along in addresses, as in
// #picture-7;-show-mask;+fell-0: pages without a server share nothing else.
const switches = all("#switches input:not(#use-keys)");
const anchor = () => location.hash.slice(1).split(";")[0];
const changed = () => {
  if (!switches.length) return location.hash.slice(1).split(";").slice(1);
  return switches.filter((box) => box.checked !== box.defaultChecked).map((box) => (box.checked ? "+" : "-") + box.id);
};
const address = (name) => [name, ...changed()].join(";");
const tell = () => {
  const hash = address(anchor());
  history.replaceState(null, "", location.href.split("#")[0] + (hash && "#") + hash);
  for (const link of all("a[data-keep]")) link.hash = address(link.dataset.keep);
};
const obey = () => {
  for (const word of location.hash.slice(1).split(";").slice(1)) {
    const box = switches.find((one) => one.id === word.slice(1));
    if (box) box.checked = word[0] === "+";
  }
};
const reset = () => switches.forEach((box) => (box.checked = box.defaultChecked));
document.addEventListener("change", (event) => switches.includes(event.target) && tell());
addEventListener("hashchange", () => {
  if (location.hash.includes(";")) reset(), obey();
  tell();
});

// One picture after the other.
const go = (card) => {
  card.scrollIntoView({ block: "start" });
  card.focus({ preventScroll: true });
};
const step = (by) => {
  const cards = all("article").filter((card) => !card.hidden);
  const own = cards.indexOf(document.activeElement.closest("article"));
  const seen = own >= 0 && cards[own].getBoundingClientRect();
  const inView = seen && seen.bottom > 0 && seen.top < innerHeight;
  const below = cards.findIndex((card) => card.getBoundingClientRect().top > 1);
  const from = inView ? own : (below < 0 ? cards.length : below) - (by > 0 ? 1 : 0);
  const card = cards[from + by];
  if (card) return go(card);
  const link = document.querySelector(by > 0 ? "a[rel=next]" : "a[rel=prev]");
  if (link) link.click();
};
const keys = document.querySelector(".keys");
const pressed = {
  j: () => step(1),
  k: () => step(-1),
  0: () => (reset(), tell()),
  "/": () => document.getElementById("search")?.focus(),
  "?": () => {
    bar.open = true;
    keys.open = !keys.open;
  },
};
const closeKeys = () => {
  if (keys?.contains(document.activeElement)) keys.querySelector("summary").focus();
  keys.open = false;
};
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.defaultPrevented) return;
  if (event.key === "Escape" && keys?.open) return closeKeys();
  if (event.target.closest("select, textarea, input:not([type=checkbox])")) return;
  if (keys && !document.getElementById("use-keys").checked) return;
  const box = /^[1-9]$/.test(event.key) && switches[event.key - 1];
  if (box) box.click();
  else if (Object.hasOwn(pressed, event.key) && (keys || event.key === "/")) pressed[event.key]();
  else return;
  event.preventDefault();
});

// Finding: over the cards of this page, or, where those are on others, over tiles.
const [URI, PLACE, ODDS, FELL, LABELS, SOURCES, FILTERS, TEXT, PICTURED] = Array(9).keys();
const AT_ONCE = 120; // tiles
const make = (tag, text, properties = {}) => Object.assign(document.createElement(tag), { textContent: text }, properties);
const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

const tile = (picture, number, pageSize) => {
  const name = picture[URI].replace(/\/+$/, "").split("/").pop() || picture[URI];
  const page = String(Math.ceil(number / pageSize)).padStart(4, "0");
  const link = make("a", "", { href: `${page}.html` });
  link.dataset.keep = `picture-${number}`;
  link.hash = address(link.dataset.keep);
  if (picture[PICTURED]) {
    const src = `pictures/${page}/${String(number).padStart(6, "0")}.jpg`;
    link.append(make("img", "", { loading: "lazy", decoding: "async", alt: "", src }));
  } else link.append(make("span", "no picture", { className: "none" }));
  const disputed = picture[ODDS].reduce((sum, count) => sum + count, 0);
  link.append(make("bdi", name), make("span", `${disputed} disputed · ${picture[FELL]} fell`, { className: "cut" }));
  const item = make("li", "");
  item.append(link);
  return item;
};

const finding = ({ page, labels, pictures }) => {
  const field = (id) => document.getElementById(id);
  const tiles = field("tiles"), cards = field("cards"), more = field("more");
  const articles = cards && pictures.map((_, n) => field(`picture-${n + 1}`));
  const before = {
    disputed: (a, b) => a - b,
    set: (a, b) => pictures[a][PLACE] - pictures[b][PLACE],
    fallen: (a, b) => pictures[b][FELL] - pictures[a][FELL] || a - b,
  };
  let words = null;
  let waiting = [];
  const searched = (n) => {
    words ??= pictures.map((p) => [p[URI], p[TEXT], ...p[LABELS].map((code) => labels[code])].join("\n").toLowerCase());
    return words[n];
  };
  const addTiles = () => {
    tiles.append(...waiting.splice(0, AT_ONCE).map((n) => tile(pictures[n], n + 1, page)));
    more.hidden = !waiting.length;
  };
  const show = (found) => {
    if (tiles) {
      tiles.replaceChildren();
      waiting = [...found];
      addTiles();
    } else {
      articles.forEach((article) => (article.hidden = true));
      found.forEach((n) => (articles[n].hidden = false));
      cards.append(...found.map((n) => articles[n]));
    }
  };
  const find = () => {
    const asked = [["label", LABELS], ["source", SOURCES], ["filter", FILTERS]]
      .map(([id, of]) => [field(id)?.value ?? "", of])
      .filter(([code]) => code !== "");
    const wanted = field("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = [...pictures.keys()]
      .filter((n) => asked.every(([code, of]) => pictures[n][of].includes(Number(code))))
      .filter((n) => wanted.every((word) => searched(n).includes(word)))
      .sort(before[field("order").value]);
    field("found").textContent = found.length ? `${plural(found.length, "picture")}` : "There is no such picture.";
    field("clear").hidden = !asked.length && !wanted.length;
    show(found);
  };
  for (const id of ["order", "label", "source", "filter"]) field(id)?.addEventListener("change", find);
  field("search").addEventListener("input", find);
  field("clear").addEventListener("click", () => {
    for (const id of ["label", "source", "filter", "search"]) if (field(id)) field(id).value = "";
    find();
    field("search").focus();
  });
  if (more) {
    document.querySelector(".pages").open = false; // without a script it is all there is
    more.addEventListener("click", addTiles);
    new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && addTiles(), { rootMargin: "600px" }).observe(more);
  }
  field("finder").hidden = false;
  addEventListener("pageshow", find); // when the browser has put back what was chosen
};

// What is scrolled to goes below the bar.
const bar = document.querySelector(".show");
if (bar) {
  const measure = () => document.documentElement.style.setProperty("--bar", `${bar.offsetHeight}px`);
  new ResizeObserver(measure).observe(bar);
  if (matchMedia("(max-width: 60rem), (max-height: 40rem)").matches) bar.open = false;
  measure();
}

// A page that is loaded again begins as its address says, whatever the browser would keep.
obey();
tell();
const index = document.getElementById("index");
if (index && document.getElementById("finder")) finding(JSON.parse(index.textContent));
if (location.hash.includes(";") && document.getElementById(anchor())) go(document.getElementById(anchor()));
document.documentElement.dataset.ready = "";
