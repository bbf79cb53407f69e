/** When a page is left, and when it or the network comes back. */

import type { Leaving } from "./delivery.js";

/** Who wants to know. */
export interface PageWatcher {
  leave(how: Leaving): void;
  wake(): void;
}

/**
 * Watch the page, where there is one.
 *
 * `visibilitychange` is the last that a page on a phone may hear (https://www.w3.org/TR/page-visibility-2/), `pagehide`
 * the last of all; a page that is put aside whole (`persisted`) may come back with `pageshow`.
 *
 * @returns To be called to watch no longer.
 */
export function watchPage(watcher: PageWatcher): () => void {
  const stop = new AbortController();
  const { signal } = stop;
  const page: Partial<Pick<Window, "addEventListener">> = globalThis;
  page.addEventListener?.("pagehide", (event) => watcher.leave(event.persisted ? "aside" : "ended"), { signal });
  page.addEventListener?.("pageshow", (event) => event.persisted && watcher.wake(), { signal });
  page.addEventListener?.("online", () => watcher.wake(), { signal });
  const document: Document | undefined = globalThis.document;
  document?.addEventListener(
    "visibilitychange",
    () => {
      if (document.visibilityState === "hidden") watcher.leave("hidden");
    },
    { signal },
  );
  return () => stop.abort();
}
