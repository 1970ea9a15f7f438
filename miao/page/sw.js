// Shows the page without a network; its weights are kept by the page (parts.js).
const SHELF = `miao ${registration.scope}`;

addEventListener("install", (event) => event.waitUntil(caches.open(SHELF).then((shelf) => shelf.add("./")).then(() => skipWaiting())));
addEventListener("activate", (event) => event.waitUntil(clients.claim()));
addEventListener("fetch", (event) => { if (event.request.mode === "navigate") event.respondWith(load(event.request)); });

async function load(request) {
  const shelf = await caches.open(SHELF);
  try {
    const page = await fetch(request);
    if (page.ok) await shelf.put("./", page.clone());
    return page;
  } catch { return (await shelf.match("./")) ?? Response.error(); }
}
