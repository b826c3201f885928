"use strict";
(() => {
  const find = id => document.getElementById(id);
  const all = selector => Array.from(document.querySelectorAll(selector));
  const show = id => { if (find(id)) find(id).hidden = false; };
  ["theme", "tools", "openers"].forEach(show);

  const themes = [["", "as the system"], ["light", "light"], ["dark", "dark"]];
  let theme = 0;
  find("theme").addEventListener("click", () => {
    theme = (theme + 1) % themes.length;
    document.documentElement.dataset.theme = themes[theme][0];
    find("theme").textContent = "Theme: " + themes[theme][1];
  });

  const cards = all("details.column");
  const reveal = () => {
    const card = find(location.hash.slice(1));
    if (card) if (card.matches("details")) card.open = true;
  };
  addEventListener("hashchange", reveal);
  reveal();
  if (find("open-all")) {
    find("open-all").addEventListener("click", () => cards.forEach(card => { card.open = true; }));
    find("close-all").addEventListener("click", () => cards.forEach(card => { card.open = false; }));
  }

  const table = find("column-table");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const filter = () => {
    const wanted = find("find").value.trim().toLowerCase();
    const verdict = find("verdict").value;
    let shown = 0;
    rows.forEach(row => {
      const named = row.cells[0].textContent.toLowerCase().includes(wanted);
      const judged = verdict === "" ? true : row.cells[1].dataset.key === verdict;
      row.hidden = named ? !judged : true;
      shown += row.hidden ? 0 : 1;
    });
    find("found").textContent = shown + " of " + rows.length + " shown";
  };
  find("find").addEventListener("input", filter);
  find("verdict").addEventListener("input", filter);
  filter();

  const heads = Array.from(table.tHead.rows[0].cells);
  heads.forEach((head, at) => {
    const first = head.dataset.sort;
    if (!first) return;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    const key = row => at === 0 ? row.cells[0].textContent : Number(row.cells[at].dataset.key);
    button.addEventListener("click", () => {
      const turned = { ascending: "descending", descending: "ascending" };
      const order = turned[head.getAttribute("aria-sort")] || first;
      const sign = order === "ascending" ? 1 : -1;
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const compare = (a, b) => at === 0 ? a.localeCompare(b) : a - b;
      rows.sort((a, b) => sign * compare(key(a), key(b)));
      body.append(...rows);
    });
  });
})();
