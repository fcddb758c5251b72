"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);

  // elements are made of text alone: what a name or an error says is never read as markup
  const make = (tag, text, ...children) => {
    const element = document.createElement(tag);
    if (text !== null && text !== undefined) element.textContent = text;
    element.append(...children);
    return element;
  };

  // light, dark, or as the reader's system has it
  const root = document.documentElement;
  const themes = ["auto", "light", "dark"];
  const toggle = document.getElementById("theme");
  const remembered = (write) => {
    try {
      if (write !== undefined) localStorage.setItem("clsim-theme", write);
      return localStorage.getItem("clsim-theme");
    } catch {
      return null; // a browser may keep nothing for files
    }
  };
  const paint = (theme) => {
    root.dataset.theme = theme;
    toggle.textContent = `Theme: ${theme}`;
  };
  paint(themes.includes(remembered()) ? remembered() : "auto");
  toggle.addEventListener("click", () => {
    const next = themes[(themes.indexOf(root.dataset.theme) + 1) % themes.length];
    remembered(next);
    paint(next);
  });

  // sorting: numbers by value, words as words; what has no number comes last either way
  const words = new Intl.Collator("en", { numeric: true });
  const valueOf = (cell) => {
    const given = cell.dataset.v;
    if (given !== undefined) return given === "nan" ? null : Number(given);
    const text = cell.textContent.trim();
    if (text === "" || text === "–") return null;
    return /^-?[\d.]+$/.test(text) ? Number(text) : text;
  };
  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    return words.compare(String(a), String(b));
  };
  const sort = (header) => {
    const table = header.closest("table");
    const column = [...header.parentNode.children].indexOf(header);
    const first = header.dataset.first;
    const other = first === "ascending" ? "descending" : "ascending";
    const way = header.getAttribute("aria-sort") === first ? other : first;
    for (const each of header.parentNode.children) each.setAttribute("aria-sort", each === header ? way : "none");
    const sign = way === "ascending" ? 1 : -1;
    const rows = [...table.tBodies[0].rows].map((row) => [valueOf(row.cells[column]), row]);
    rows.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      return sign * compare(a, b);
    });
    table.tBodies[0].append(...rows.map(([, row]) => row));
  };
  for (const button of document.querySelectorAll("thead button")) {
    button.addEventListener("click", () => sort(button.closest("th")));
  }

  // filtering: all tables of metrics at once
  const search = document.getElementById("search");
  const choices = [...document.querySelectorAll(".filters select")];
  const filtered = [...document.querySelectorAll("table.filtered")].flatMap((table) =>
    [...table.tBodies[0].rows].map((row) => ({ row, table, text: row.textContent.toLowerCase() }))
  );
  const filter = () => {
    const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const chosen = choices.filter((c) => c.value).map((c) => [Number(c.dataset.position), c.value]);
    let shown = 0;
    for (const { row, text } of filtered) {
      const fits = chosen.every(([i, value]) => {
        const label = row.cells[i].textContent;
        return label === value || label.startsWith(`${value} (published [`);
      });
      row.hidden = !(fits && wanted.every((word) => text.includes(word)));
      shown += !row.hidden;
    }
    const active = wanted.length + chosen.length > 0;
    document.getElementById("count").textContent = active ? `${shown} of ${filtered.length} rows` : "";
  };
  search.addEventListener("input", filter);
  for (const choice of choices) choice.addEventListener("change", filter);
  document.querySelector(".filters").addEventListener("submit", (event) => event.preventDefault());

  // copying: where a page from a file may not use the clipboard, the text is selected instead
  document.addEventListener("click", async (event) => {
    const button = event.target.closest(".copy");
    if (!button) return;
    const text = button.previousElementSibling;
    try {
      await navigator.clipboard.writeText(text.textContent);
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy"), 1500);
    } catch {
      getSelection().selectAllChildren(text);
    }
  });

  // the runs behind a number
  const minus = (text) => text.replace("-", "−");
  const number = (value) => {
    if (value === null) return "–";
    const digits = Math.abs(value) < 100 ? { maximumSignificantDigits: 3 } : { maximumFractionDigits: 0 };
    return minus(value.toLocaleString("en", digits));
  };
  const pairs = (entries) => {
    const list = make("dl");
    list.className = "pairs";
    for (const [name, value] of entries) list.append(make("dt", name), make("dd", value));
    return list;
  };
  const command = (text) => {
    const copy = make("button", "Copy");
    copy.type = "button";
    copy.className = "copy";
    const box = make("div", null, make("pre", text), copy);
    box.className = "command";
    return box;
  };
  const matrix = (rows) => {
    const table = make("table");
    table.className = "matrix";
    table.setAttribute("aria-label", "Accuracy in percent: row = after experience, column = tested on");
    const head = table.createTHead().insertRow();
    head.append(make("th", ""), ...rows.map((_, j) => make("th", j + 1)));
    const body = table.createTBody();
    rows.forEach((values, i) => {
      const row = body.insertRow();
      row.append(make("th", i + 1));
      for (const [j, value] of values.entries()) {
        const cell = row.insertCell();
        if (value === null || j > i) continue; // not tested, or not learnt so far
        cell.textContent = (value / 100).toFixed(0);
        cell.style.background = data.viridis[Math.round(value / 500)];
        cell.style.color = value > 5500 ? "#111" : "#fff";
      }
    });
    const scroll = make("div", null, table);
    scroll.className = "scroll";
    return scroll;
  };
  const tried = (rows) => {
    const table = make("table");
    table.className = "data";
    table.createTHead().insertRow().append(...data.searches.map((name) => make("th", name)));
    const body = table.createTBody();
    for (const values of rows) body.insertRow().append(...values.map((value) => make("td", value)));
    const scroll = make("div", null, table);
    scroll.className = "scroll";
    return scroll;
  };
  const block = (title, content, wide) => {
    const part = make("div", null, make("h4", title), content);
    if (wide) part.className = "all";
    return part;
  };
  const plain = (table) => Object.entries(table).map(([key, value]) => [key, typeof value === "object" ? JSON.stringify(value) : String(value)]);
  const fill = (details, run) => {
    const spec = { ...Object.fromEntries(Object.entries(run.spec).map(([k, v]) => [k, data.shared[v]])), seed: run.seed };
    const body = make("div");
    body.className = "run";
    body.append(
      block("Command", run.command ? command(run.command) : make("p", "Made from Python; the spec below is all of it."), true),
      block("Metrics", pairs(data.metrics.map((name, i) => [name, run.metrics[i] === null ? "–" : data.percent[i] ? minus(`${(100 * run.metrics[i]).toFixed(2)} %`) : number(run.metrics[i])]))),
      block("Cost", pairs(data.costs.map((name, i) => [name, number(run.cost[i])]))),
      block("Accuracy, %: row = after experience, column = tested on", matrix(run.accuracy), true),
      ...(run.searches ? [block("What the controller tried", tried(run.searches), true)] : []),
      block("Versions", pairs(plain(data.shared[run.versions]))),
      block("Environment", pairs([...plain(data.shared[run.environment]), ["started", run.when[0]], ["ended", run.when[1]]])),
      block("Resolved spec", command(JSON.stringify(spec, null, 1)), true)
    );
    details.append(body);
  };
  const dialog = document.getElementById("behind");
  const show = () => {
    const address = location.hash.slice(1);
    const behind = Object.hasOwn(data.cells, address.slice(5)) && address.startsWith("cell-") ? data.cells[address.slice(5)] : null;
    if (!behind) {
      if (dialog.open) dialog.close();
      return;
    }
    const link = document.querySelector(`a[href="#${address}"]`);
    const cell = link.closest("td");
    const table = cell.closest("table");
    const heading = table.tHead.rows[0].cells[cell.cellIndex].textContent;
    const names = [...cell.parentNode.cells].slice(0, table.querySelectorAll("thead th:not(.n)").length);
    const labels = names.map((c) => c.textContent).filter((text) => text !== "–").join(" · ");
    const metric = table.closest("section").querySelector("h2").firstChild.textContent.trim();
    document.getElementById("behind-title").textContent = `${labels} · ${heading} · ${metric}: ${link.textContent}`;
    const body = document.getElementById("behind-body");
    body.replaceChildren(
      ...behind.map((i, position) => {
        const run = data.runs[i];
        const value = make("span", link.dataset.values ? link.dataset.values.split(" ")[position] : "");
        value.className = "value";
        const details = make("details", null, make("summary", null, `seed ${run.seed} `, value, " ", make("code", run.id)));
        // only what is opened is built
        details.addEventListener("toggle", () => details.childElementCount === 1 && fill(details, run));
        details.open = behind.length === 1;
        return details;
      })
    );
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    document.getElementById("behind-title").focus();
  };
  const leave = () => history.replaceState(null, "", location.pathname + location.search);
  addEventListener("hashchange", show);
  dialog.addEventListener("close", leave);
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  document.getElementById("close").addEventListener("click", () => dialog.close());
  // the same number again, when its address is still there
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#cell-"]');
    if (link && location.hash === link.getAttribute("href")) show();
  });
  show();
})();
