// Checks of an open page; each returns a list of what is wrong, which is empty on a good page.
(() => {
  const shown = (one) => one.checkVisibility({ checkVisibilityCSS: true, checkOpacity: true })
    && one.getClientRects().length > 0;
  const named = (one) => `<${one.tagName.toLowerCase()}> ${(one.textContent || "").trim().slice(0, 40)}`;
  const rgb = (text) => {
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    canvas.fillStyle = text;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = (color) => {
    const part = color.slice(0, 3).map((c) => c / 255)
      .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2];
  };
  const ratio = (a, b) => {
    const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  };
  const background = (one) => {
    for (let up = one; up; up = up.parentElement) {
      const color = rgb(getComputedStyle(up).backgroundColor);
      if (color[3] === 255) return color;
    }
    return [255, 255, 255, 255];
  };
  const scrolls = (one) => ["auto", "scroll"].includes(getComputedStyle(one).overflowX)
    && one.scrollWidth > one.clientWidth;

  // The WCAG contrast of all visible text, also that of figures.
  const contrast = () => {
    const wrong = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const one = walker.currentNode.parentElement;
      if (!walker.currentNode.data.trim() || ["SCRIPT", "STYLE", "NOSCRIPT"].includes(one.tagName) || !shown(one)) continue;
      const style = getComputedStyle(one), svg = one instanceof SVGElement;
      const found = ratio(rgb(svg ? style.fill : style.color), background(one));
      if (found < 4.5) wrong.push(`${found.toFixed(2)} ${named(one)}`);
    }
    return [...new Set(wrong)];
  };

  const alternatives = () => [...document.querySelectorAll("svg, body img, canvas, progress")]
    .filter((one) => !one.parentElement.closest("svg"))
    .filter((one) => !(one.getAttribute("aria-label") || one.getAttribute("alt"))
      || (one.tagName === "svg" && one.getAttribute("role") !== "img"))
    .map(named);

  const outline = () => {
    const wrong = [], counts = { main: 1, header: 1, nav: 1, h1: 1 };
    for (const [tag, count] of Object.entries(counts))
      if (document.querySelectorAll(tag).length !== count) wrong.push(`not ${count} ${tag}`);
    if (!document.documentElement.lang || !document.title) wrong.push("no language or no title");
    let level = 0;
    for (const one of document.querySelectorAll("h1, h2, h3, h4, h5, h6")) {
      const next = Number(one.tagName[1]);
      if (next > level + 1) wrong.push(`level ${level} is followed by ${named(one)}`);
      level = next;
    }
    for (const one of document.querySelectorAll("section"))
      if (!one.querySelector("h2")) wrong.push(`section ${one.id} without a heading`);
    for (const one of document.querySelectorAll("nav, [role=region]"))
      if (!one.getAttribute("aria-label")) wrong.push(`${named(one)} without a name`);
    for (const one of document.querySelectorAll("a[href^='#']"))
      if (!document.getElementById(one.getAttribute("href").slice(1))) wrong.push(`${named(one)} leads nowhere`);
    return wrong;
  };

  // Everything that a keyboard must reach, in order.
  const controls = () => [...document.querySelectorAll("*")].filter((one) => shown(one)
    && !one.closest("svg") && (one.matches("a[href], button, summary, [tabindex='0']") || scrolls(one)));
  const focused = () => {
    const one = document.activeElement, style = getComputedStyle(one);
    const seen = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2
      && ratio(rgb(style.outlineColor), background(one.parentElement || one)) >= 3;
    return { place: controls().indexOf(one), name: named(one), seen };
  };
  const wide = () => document.documentElement.scrollWidth > innerWidth
    ? [`${document.documentElement.scrollWidth} pixels in ${innerWidth}`] : [];
  globalThis.checks = { contrast, alternatives, outline, wide, controls: () => controls().map(named), focused };
})();
