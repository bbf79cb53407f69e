/**
 * The room of requests that outlive their page.
 *
 * A browser lets a page have 64 KiB in flight in requests with `keepalive`, all of them together
 * (https://fetch.spec.whatwg.org/#http-network-or-cache-fetch); one more byte and the request fails. The count is the
 * page's, so it is kept here and not in a client: a page may have several.
 */

/** Less than the browser's 64 KiB, because other code of the page uses the same room. */
const BUDGET = 60 * 1024;

/** Browsers also limit how many there may be. */
const MAX_REQUESTS = 8;

let bytesInFlight = 0;
let requestsInFlight = 0;

/** How many bytes the body of one more such request may have. */
export function keepaliveRoom(): number {
  return requestsInFlight < MAX_REQUESTS ? BUDGET - bytesInFlight : 0;
}

/**
 * Note that such a request is in flight.
 *
 * @returns To be called when it no longer is.
 */
export function takeKeepaliveRoom(bytes: number): () => void {
  bytesInFlight += bytes;
  requestsInFlight += 1;
  return () => {
    bytesInFlight -= bytes;
    requestsInFlight -= 1;
  };
}
