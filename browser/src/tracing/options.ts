/** Options that nobody reads: what was probably meant. */

import { shown, warnOnce } from "../identity/warnings.js";

const MEANT: Readonly<Record<string, string>> = {
  user: "endUserId",
  userid: "endUserId",
  enduser: "endUserId",
  id: "endUserId",
  metadata: "endUserMetadata",
  usermetadata: "endUserMetadata",
  session: "sessionId",
};

/**
 * Says once for each option that has no effect, with the option that was probably meant. TypeScript finds them at
 * compile time; JavaScript and options from elsewhere do not have it.
 */
export function warnUnknownOptions(options: unknown, known: readonly string[], place: string): void {
  if (typeof options !== "object" || options === null) return;
  for (const key of Object.keys(options)) {
    if (known.includes(key)) continue;
    const meant = optionMeantBy(key, known);
    const hint = meant === undefined ? "" : ` Was ${meant} meant?`;
    warnOnce("near_miss", `${place} ${key}`, `${place} has no option ${shown(key)}; it has no effect.${hint}`);
  }
}

function optionMeantBy(key: string, known: readonly string[]): string | undefined {
  const folded = key.toLowerCase().replace(/[^a-z0-9]/g, "");
  const alias = MEANT[folded];
  if (alias !== undefined && known.includes(alias)) return alias;
  return known.find((option) => distance(folded, option.toLowerCase()) <= 2);
}

/** How many characters have to be added, left out or replaced to get from one word to the other. */
function distance(left: string, right: string): number {
  let above = Array.from({ length: right.length + 1 }, (_, at) => at);
  for (let row = 1; row <= left.length; row++) {
    const line = [row];
    for (let column = 1; column <= right.length; column++) {
      const replaced = (above[column - 1] ?? 0) + (left[row - 1] === right[column - 1] ? 0 : 1);
      line.push(Math.min(replaced, (above[column] ?? 0) + 1, (line[column - 1] ?? 0) + 1));
    }
    above = line;
  }
  return above[right.length] ?? 0;
}
