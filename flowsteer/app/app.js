// Behaviour of the app's own HTML: columns form, wipe, sortable tables, step slider, ZIP, links.
// One listener a kind on the document, so that pieces may be replaced at any time.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const one = (selector, root = document) => root.querySelector(selector);
  const setText = (element, text) => { if (element) element.textContent = text; };

  // ---- the columns form ----
  const rowText = (row) => {
    const value = (name) => one(`[data-fs=${name}]`, row).value.trim();
    return [value("network"), value("steps"), value("scheduler"), value("guidance") || "auto"].join("-");
  };
  const columns = () => all(".fs-columns [data-fs-row]").map(rowText).join(",");

  const fillRow = (row, text) => {
    const words = text.split("-");
    const guidance = words.pop(), scheduler = words.pop(), steps = words.pop();
    one("[data-fs=network]", row).value = words.join("-");
    one("[data-fs=steps]", row).value = steps;
    one("[data-fs=scheduler]", row).value = scheduler;
    one("[data-fs=guidance]", row).value = guidance === "auto" ? "" : guidance;
  };
  const newRow = (form) => one("template", form).content.firstElementChild.cloneNode(true);
  const summarise = (form) => {
    const texts = all("[data-fs-row]", form).map((row) => {
      const chosen = one("[data-fs=network]", row).selectedOptions[0];
      const parts = [chosen ? chosen.textContent : "?", `${one("[data-fs=steps]", row).value} steps`];
      const scheduler = one("[data-fs=scheduler]", row).value.split("_");
      if (scheduler[0] === "stock") parts.push("stock grid");
      if (scheduler.length > 1) parts.push("mismatch allowed");
      const guidance = one("[data-fs=guidance]", row).value;
      if (guidance === "1" && chosen && chosen.dataset.guidance === "") parts.push("no guidance");
      else if (guidance && guidance !== "1") parts.push(`guidance ${guidance}`);
      return parts.join(", ");
    });
    setText(one("[data-fs-summary]", form), texts.join(" · "));
    const rows = all("[data-fs-row]", form).length;
    one("[data-fs-add]", form).disabled = rows >= Number(form.dataset.most);
    for (const button of all("[data-fs-remove]", form)) button.disabled = rows < 2;
  };

  // ---- the wipe ----
  const wipe = () => one(".fs-wipe");
  const refreshWipe = () => {
    const section = wipe();
    if (!section) return;
    const choice = (name) => one(`[data-fs-wipe=${name}]`, section);
    const seed = choice("seed").value;
    choice("seed").parentElement.hidden = choice("seed").options.length < 2;
    let ready = true;
    for (const side of ["left", "right"]) {
      const key = choice(side).value;
      const source = one(`#board [data-key="${CSS.escape(key)}"] [data-seed="${seed}"] img`);
      const image = one(`[data-side=${side}]`, section);
      if (source) {
        if (image.src !== source.src) image.src = source.src;
        image.alt = source.alt;
      }
      ready = ready && Boolean(source);
    }
    for (const image of all("[data-side]", section)) image.hidden = !ready;
    one(".fs-blank", section).hidden = ready;
    section.dataset.ready = ready ? "yes" : "no";
    cut();
  };
  const cut = () => {
    const section = wipe();
    if (!section) return;
    const slider = one("input[type=range]", section);
    one(".fs-stage", section).style.setProperty("--cut", `${slider.value}%`);
    slider.setAttribute("aria-valuetext", `left picture ${slider.value}%`);
  };

  // ---- sortable tables ----
  const cellValue = (row, index) => {
    const text = row.cells[index].textContent.trim();
    const found = text.match(/^[^\d–-]{0,2}([-+−]?[\d,]*\.?\d+)/);
    return found ? Number(found[1].replace(/,/g, "").replace("−", "-")) : text.toLowerCase();
  };
  const sortTable = (head) => {
    const table = head.closest("table"), body = table.tBodies[0];
    const index = [...head.parentElement.children].indexOf(head);
    const rising = head.getAttribute("aria-sort") !== "ascending";
    const order = (a, b) => {
      const [x, y] = [cellValue(a, index), cellValue(b, index)];
      if (typeof x === typeof y) return (x > y) - (x < y);
      return typeof x === "number" ? -1 : 1;  // figures before words and dashes
    };
    const rows = [...body.rows].sort((a, b) => (rising ? order(a, b) : order(b, a)));
    body.append(...rows);
    for (const other of head.parentElement.children) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", rising ? "ascending" : "descending");
  };

  // ---- the step slider of the trajectories ----
  const showStep = (slider) => {
    const section = slider.closest("[data-fs-steps]");
    const at = Number(slider.value);
    const sigmas = JSON.parse(section.dataset.fsSteps);
    setText(one("[data-fs-sigma]", section), `call ${at + 1} of ${sigmas.length}, sigma ${sigmas[at].toFixed(3)}`);
    slider.setAttribute("aria-valuetext", `call ${at + 1} of ${sigmas.length}, sigma ${sigmas[at].toFixed(3)}`);
    for (const strip of all("[data-fs-strip]", section)) {
      const own = JSON.parse(strip.dataset.fsStrip);  // sigma of each of its calls, falling
      let call = 0;
      while (call + 1 < own.length && own[call + 1] >= sigmas[at] - 1e-6) call += 1;
      all("img", strip).forEach((image, index) => { image.hidden = index !== call; });
      setText(one("[data-fs-call]", strip), `call ${call + 1} of ${own.length}`);
      for (const dot of all(`[data-fs-dot="${CSS.escape(strip.dataset.key)}"]`, section)) {
        const [x, y] = JSON.parse(dot.dataset.points)[call];
        dot.style.left = `${100 * x}%`;
        dot.style.bottom = `${100 * y}%`;
      }
    }
  };

  // ---- ZIP, stored without compression, since PNGs have their own ----
  const crcTable = Uint32Array.from({ length: 256 }, (_, n) => {
    for (let k = 0; k < 8; k += 1) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
    return n >>> 0;
  });
  const crc32 = (bytes) => {
    let value = 0xffffffff;
    for (const byte of bytes) value = crcTable[(value ^ byte) & 255] ^ (value >>> 8);
    return (value ^ 0xffffffff) >>> 0;
  };
  const record = (signature, fields, name) => {
    const sizes = fields.map(([size]) => size);
    const bytes = new Uint8Array(4 + sizes.reduce((a, b) => a + b, 0) + name.length);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, signature, true);
    let at = 4;
    for (const [size, value] of fields) {
      if (size === 2) view.setUint16(at, value, true);
      else view.setUint32(at, value, true);
      at += size;
    }
    bytes.set(name, at);
    return bytes;
  };
  const zip = (files) => {
    const parts = [], directory = [];
    let offset = 0, length = 0;
    const day = 33;  // 1 January 1980: the same pictures give the same bytes
    for (const [name, data] of files) {
      const label = new TextEncoder().encode(name);
      const sizes = [[4, crc32(data)], [4, data.length], [4, data.length], [2, label.length], [2, 0]];
      const common = [[2, 20], [2, 2048], [2, 0], [2, 0], [2, day], ...sizes];
      const local = record(0x04034b50, common, label);
      const more = [[2, 0], [2, 0], [2, 0], [4, 0], [4, offset]];
      const central = record(0x02014b50, [[2, 20], ...common, ...more], label);
      parts.push(local, data);
      directory.push(central);
      offset += local.length + data.length;
      length += central.length;
    }
    const count = files.length;
    const end = [[2, 0], [2, 0], [2, count], [2, count], [4, length], [4, offset], [2, 0]];
    return new Blob([...parts, ...directory, record(0x06054b50, end, [])], { type: "application/zip" });
  };
  const bytesOf = (address) => Uint8Array.from(atob(address.split(",")[1]), (c) => c.charCodeAt(0));
  const download = (button) => {
    const settings = JSON.parse(button.dataset.fsZip);
    const files = [["settings.json", new TextEncoder().encode(JSON.stringify(settings, null, 2) + "\n")]];
    for (const { file } of settings.pictures) {
      const image = one(`#board img[data-file="${CSS.escape(file)}"]`);
      if (image) files.push([file, bytesOf(image.src)]);
    }
    const link = document.createElement("a");
    link.href = URL.createObjectURL(zip(files));
    link.download = "flowsteer-comparison.zip";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };

  // ---- links ----
  const setQuery = (values) => {
    const query = new URLSearchParams(window.location.search);
    for (const [name, value] of Object.entries(values)) {
      if (value === null) query.delete(name); else query.set(name, value);
    }
    const text = query.toString();
    window.history.replaceState(null, "", text ? `?${text}` : window.location.pathname);
  };
  let remembered = "";
  const remember = () => {  // what the comparison on the page was asked with
    const text = one("[data-fs-query]")?.dataset.fsQuery;
    if (!text || text === remembered) return;
    remembered = text;
    setQuery({ ...JSON.parse(text), screen: null });
  };
  const copyLink = async (button) => {
    try {
      await navigator.clipboard.writeText(window.location.href);
      setText(button, "Link copied");
    } catch {
      setText(button, "Copy it from the address bar");
    }
    setTimeout(() => setText(button, "Copy link"), 2500);
  };

  // ---- listeners ----
  document.addEventListener("click", (event) => {
    const target = event.target.closest("button");
    if (!target) return;
    const form = target.closest(".fs-columns");
    if (target.matches("[data-fs-sort]")) sortTable(target.closest("th"));
    else if (target.matches("[data-fs-zip]")) download(target);
    else if (target.matches("[data-fs-link]")) copyLink(target);
    else if (form && target.matches("[data-fs-add]")) {
      const row = newRow(form);
      one(".fs-rows", form).append(row);
      summarise(form);
      one("select", row).focus();
    } else if (form && target.matches("[data-fs-remove]")) {
      target.closest("[data-fs-row]").remove();
      summarise(form);
      one("[data-fs-add]", form).focus();
    } else if (form && target.matches("[data-fs-preset]")) {
      const rows = target.dataset.fsPreset.split(",").map((text) => {
        const row = newRow(form);
        fillRow(row, text);
        return row;
      });
      one(".fs-rows", form).replaceChildren(...rows);
      summarise(form);
    }
  });
  document.addEventListener("change", (event) => {
    const form = event.target.closest(".fs-columns");
    if (event.target.matches("[data-fs-wipe]")) refreshWipe();
    if (!form) return;
    if (event.target.matches("[data-fs=network]")) {
      const chosen = event.target.selectedOptions[0], row = event.target.closest("[data-fs-row]");
      one("[data-fs=steps]", row).value = chosen.dataset.steps;
      one("[data-fs=guidance]", row).value = chosen.dataset.guidance;
    }
    summarise(form);
  });
  document.addEventListener("input", (event) => {
    if (event.target.closest(".fs-wipe") && event.target.type === "range") cut();
    if (event.target.matches("[data-fs-slider]")) showStep(event.target);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && document.activeElement.matches(".fs-term")) document.activeElement.blur();
  });

  // pictures and sections that the server replaces
  let waiting = false;
  new MutationObserver(() => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      refreshWipe();
      remember();
      for (const slider of all("[data-fs-slider]:not([data-seen])")) {
        slider.dataset.seen = "";
        showStep(slider);
      }
    });
  }).observe(document.documentElement, { childList: true, subtree: true });

  // as it was opened: the first tab writes itself into the address when it appears
  window.flowsteer = { columns, setQuery, opened: window.location.search || "?" };
})();
