// Runs inside the page: what went wrong, what was fetched, what is cut off, what can hardly be read.
const wrong = [];
window.addEventListener("error", e => wrong.push(e.message || "failed: " + String(e.target.src).slice(0, 40)), true);
const complain = console.error;
console.error = (...words) => { wrong.push(words.join(" ")); complain(...words); };

const luminance = ([r, g, b]) => {
  const [R, G, B] = [r, g, b].map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * R + 0.7152 * G + 0.0722 * B;
};
const channels = colour => colour.match(/[\d.]+/g).map(Number);
const background = e => {
  for (; e; e = e.parentElement) {
    const [r, g, b, a = 1] = channels(getComputedStyle(e).backgroundColor);
    if (a > 0) return [r, g, b];
  }
  return [255, 255, 255];
};
// WCAG 2.1: 4.5 between text and background, 3 for large text.
const isFaint = e => {
  const style = getComputedStyle(e), size = parseFloat(style.fontSize);
  const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
  const [low, high] = [luminance(channels(style.color)), luminance(background(e))].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05) < (large ? 3 : 4.5);
};
const hasText = e => [...e.childNodes].some(n => n.nodeType === Node.TEXT_NODE && n.data.trim());
const named = e => `${e.tagName}.${e.className}: ${e.textContent.trim().slice(0, 40)}`;
const isScrolled = e => e.closest(".scroll, pre");

window.witness = () => {
  const page = document.documentElement, all = [...document.querySelectorAll("body, body *")];
  return {
    wrong, width: page.clientWidth, scroll: page.scrollWidth, height: page.scrollHeight,
    seen: [...document.images].filter(p => p.checkVisibility())
      .map(p => [p.naturalWidth, p.naturalHeight, p.clientWidth, p.clientHeight]),
    beyond: all.filter(e => !isScrolled(e) && e.getBoundingClientRect().right > page.clientWidth + 1).map(named),
    faint: all.filter(e => e.checkVisibility() && !e.closest("script, style") && hasText(e) && isFaint(e)).map(named),
    rows: [...document.querySelectorAll(".gallery.small")].map(row =>
      [...row.querySelectorAll("img")].map(p => p.getBoundingClientRect()).map(r => [r.top, r.height])),
    dark: luminance(background(document.body)) < 0.1,
    fetched: performance.getEntriesByType("resource").map(r => r.name).filter(name => !name.startsWith("data:")),
  };
};
