// Filtering and sorting of lists and tables. Without this script every item is shown, in its first order.
"use strict";

function browse(section) {
  const form = section.querySelector("form.filters");
  const list = section.querySelector("[data-items]");
  const items = Array.from(list.children);
  const count = section.querySelector("[data-count]");
  const none = section.querySelector(".none");
  const order = form.querySelector("select[data-sort]");
  const heads = Array.from(section.querySelectorAll("button[data-sort]"));
  const fields = Array.from(form.elements).filter((field) => field.name);

  function fits(item) {
    return fields.every((field) => {
      if (field.name === "find") {
        const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
        const text = item.textContent.toLowerCase();
        return words.every((word) => text.includes(word));
      }
      const own = (item.getAttribute("data-" + field.name) || "").split("\n");
      if (field.type === "checkbox") return field.checked || !own.includes(field.value);
      return !field.value || own.includes(field.value);
    });
  }

  function filter() {
    let shown = 0;
    for (const item of items) {
      item.hidden = !fits(item);
      shown += item.hidden ? 0 : 1;
    }
    if (count) count.textContent = shown;
    if (none) none.hidden = shown > 0;
  }

  // A key with a leading "-" sorts downwards; items without the value come last either way.
  function sort(key) {
    const down = key.startsWith("-");
    const name = "data-" + (down ? key.slice(1) : key);
    const rank = new Map(items.map((item) => [item, item.getAttribute(name)]));
    const numbers = items.every((item) => !rank.get(item) || !Number.isNaN(Number(rank.get(item))));
    const sorted = items.slice().sort((a, b) => {
      const [x, y] = [rank.get(a), rank.get(b)];
      if (!x || !y) return (x ? 0 : 1) - (y ? 0 : 1);
      const way = numbers ? Number(x) - Number(y) : x.localeCompare(y);
      return down ? -way : way;
    });
    list.append(...sorted);
    for (const head of heads) {
      const cell = head.closest("th");
      const mine = head.dataset.sort.replace(/^-/, "") === key.replace(/^-/, "");
      cell.setAttribute("aria-sort", mine ? (down ? "descending" : "ascending") : "none");
    }
    if (order && Array.from(order.options).some((option) => option.value === key)) order.value = key;
  }

  function follow() {
    const wanted = new URLSearchParams(location.hash.slice(1));
    const known = fields.filter((field) => field.type !== "checkbox" && wanted.has(field.name));
    if (!known.length) return;
    form.reset();
    for (const field of known) field.value = wanted.get(field.name);
    filter();
    section.scrollIntoView();
  }

  for (const kind of ["input", "change"]) form.addEventListener(kind, filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => { filter(); if (order) sort(order.value); }));
  if (order) order.addEventListener("change", () => sort(order.value));
  for (const head of heads) {
    head.addEventListener("click", () => {
      const now = head.closest("th").getAttribute("aria-sort");
      const key = head.dataset.sort.replace(/^-/, "");
      const first = head.dataset.sort.startsWith("-") ? "descending" : "ascending";
      const next = now === first ? (first === "descending" ? "ascending" : "descending") : first;
      sort((next === "descending" ? "-" : "") + key);
    });
  }
  window.addEventListener("hashchange", follow);
  filter();
  follow();
}

document.documentElement.classList.add("js");
document.querySelectorAll("[data-browse]").forEach(browse);
