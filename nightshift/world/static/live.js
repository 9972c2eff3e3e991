// Every two seconds the parts of the page that carry data-live are fetched anew; forms are left alone.
"use strict";
setInterval(async () => {
  if (document.hidden) return;
  try {
    const answer = await fetch(location.href, { cache: "no-store" });
    if (!answer.ok) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of document.querySelectorAll("[data-live]")) {
      const newer = fresh.querySelector(`[data-live="${part.dataset.live}"]`);
      if (newer && newer.innerHTML !== part.innerHTML) part.innerHTML = newer.innerHTML;
    }
  } catch {
    // The world is stopped or restarts; the next look will tell.
  }
}, 2000);
