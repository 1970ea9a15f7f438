"use strict";
(() => {
  const boxes = { zh: document.getElementById("zh"), en: document.getElementById("en") };
  const remembered = () => { try { return localStorage.getItem("miao-language"); } catch { return null; } };
  const speak = (language) => {
    boxes[language].checked = true;
    document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  };
  const first = remembered() || (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");
  speak(first === "en" ? "en" : "zh");
  for (const language of ["zh", "en"]) {
    boxes[language].addEventListener("change", () => {
      speak(language);
      try { localStorage.setItem("miao-language", language); } catch { /* a page from disk may not remember */ }
    });
  }

  const nearest = (points, x) =>
    points.reduce((best, point) => (Math.abs(point[0] - x) < Math.abs(best[0] - x) ? point : best));

  for (const chart of document.querySelectorAll("svg.chart[data-points]")) {
    const series = JSON.parse(chart.dataset.points);
    const cursor = chart.querySelector(".cursor");
    const dots = chart.querySelectorAll(".dot");
    const reads = chart.querySelectorAll(".read");
    const where = chart.querySelector(".here");
    const atRest = [...reads].map((read) => read.textContent);
    const longest = series.reduce((a, b) => (b.length > a.length ? b : a), []);
    if (!longest.length) continue;

    const show = (event) => {
      const box = chart.getBoundingClientRect();
      const scale = chart.viewBox.baseVal.width / box.width;
      const here = nearest(longest, (event.clientX - box.left) * scale);
      chart.classList.add("live");
      cursor.setAttribute("x1", here[0]);
      cursor.setAttribute("x2", here[0]);
      where.setAttribute("x", here[0]);
      where.textContent = here[3];
      series.forEach((points, i) => {
        if (!points.length) return;
        const point = nearest(points, here[0]);
        dots[i].setAttribute("cx", point[0]);
        dots[i].setAttribute("cy", point[1]);
        reads[i].textContent = point[2];
      });
    };
    const rest = () => {
      chart.classList.remove("live");
      where.textContent = "";
      atRest.forEach((text, i) => { reads[i].textContent = text; });
    };
    chart.addEventListener("pointermove", show);
    chart.addEventListener("pointerdown", show);
    chart.addEventListener("pointerleave", rest);
  }
})();
