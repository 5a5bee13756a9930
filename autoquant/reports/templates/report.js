"use strict";
(() => {
  const tip = document.createElement("div");
  tip.id = "tip";
  tip.setAttribute("role", "status");
  tip.hidden = true;
  document.body.append(tip);
  let hot = null;

  // What a mark stands for is in the row of a table: its headings and cells are what is shown.
  const rowOf = mark => document.getElementById((mark.closest("svg").dataset.rows) + mark.dataset.r);
  const show = (mark, x, y) => {
    const row = rowOf(mark);
    if (!row) return;
    const heads = [...row.closest("table").tHead.rows[0].cells].map(cell => cell.textContent);
    tip.replaceChildren();
    [...row.cells].forEach((cell, place) => {
      const text = cell.textContent.trim();
      if (!text) return;
      const line = document.createElement(place ? "span" : "b");
      line.textContent = heads[place] + " " + text;
      tip.append(line, ...(place ? [document.createElement("br")] : []));
    });
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = Math.max(6, Math.min(x + 14, innerWidth - box.width - 6)) + "px";
    tip.style.top = Math.max(6, y + 18 + box.height > innerHeight ? y - box.height - 12 : y + 18) + "px";
    if (hot) hot.classList.remove("hot");
    hot = mark;
    mark.classList.add("hot");
  };
  const hide = () => {
    tip.hidden = true;
    if (hot) hot.classList.remove("hot");
    hot = null;
  };

  for (const chart of document.querySelectorAll("svg[data-rows]")) {
    const marks = [...chart.querySelectorAll("[data-r]")];
    let at = -1;
    const go = place => {
      at = Math.max(0, Math.min(place, marks.length - 1));
      const box = marks[at].getBoundingClientRect();
      show(marks[at], box.right, box.bottom);
    };
    chart.addEventListener("pointermove", event => {
      const mark = event.target.closest("[data-r]");
      if (mark) { at = marks.indexOf(mark); show(mark, event.clientX, event.clientY); } else hide();
    });
    chart.addEventListener("pointerleave", hide);
    chart.addEventListener("blur", hide);
    chart.addEventListener("keydown", event => {
      const steps = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: marks.length - 1 };
      if (event.key in steps) { event.preventDefault(); go(steps[event.key]); }
      else if (event.key === "Escape") hide();
      else if (event.key === "Enter" && hot) {
        const row = rowOf(hot), folded = row && row.closest("details");
        if (folded) folded.open = true;
        if (row) location.hash = row.id;
      }
    });
  }

  const value = cell => {
    const text = cell.dataset.v ?? cell.textContent.trim();
    const number = Number.parseFloat(text.replace(/^~|,/g, ""));
    return Number.isNaN(number) ? text : number;
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((head, place) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...table.tBodies[0].rows].map(row => [value(row.cells[place]), row]);
        rows.sort(([a], [b]) => typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1);
        if (down) rows.reverse();
        table.tBodies[0].append(...rows.map(([, row]) => row));
      });
    });
  }

  addEventListener("beforeprint", () => { for (const one of document.querySelectorAll("details")) one.open = one.dataset.print !== "no"; });
})();
