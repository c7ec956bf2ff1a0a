"use strict";
// Keys for the projector's page: each stands for a link that is on the page. Without this file the links work as they are.
(() => {
  const keys = { ArrowRight: "next", PageDown: "next", n: "next", ArrowLeft: "previous", PageUp: "previous", p: "previous", w: "worklist", r: "recommendation" };
  document.addEventListener("keydown", (event) => {
    const typing = event.target instanceof Element && event.target.closest("input, textarea, select, summary, [contenteditable]");
    if (event.defaultPrevented || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey || typing) return;
    if (event.key === "f") {
      event.preventDefault();
      if (document.fullscreenElement) document.exitFullscreen();
      else document.documentElement.requestFullscreen().catch(() => {});
      return;
    }
    const link = document.querySelector(`a[data-key="${keys[event.key]}"]`);
    if (link) {
      event.preventDefault();
      link.click();
    }
  });
})();
