"use strict";
// A phrase lights up its regions, and a region its phrases: whatever shares a number within one card.
const light = (card, numbers) => {
  card.classList.toggle("lighting", numbers.length > 0);
  for (const part of card.querySelectorAll("[data-regions]")) {
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
// What a checkbox does is the style sheet's; some browsers keep them as they were when the page is loaded again.
document.documentElement.dataset.ready = "";
