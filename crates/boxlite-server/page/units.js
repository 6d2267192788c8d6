// Figures in the words and units of the command line.

const UNITS = [["TiB", 2 ** 40], ["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]];

/** Bytes as `boxlite` prints them: `5 GiB`, `1.25 MiB`, `17 B`. */
export function bytes(count) {
  if (count === null || count === undefined) return "unknown";
  for (const [unit, factor] of UNITS) {
    if (count < factor) continue;
    return count % factor === 0 ? `${count / factor} ${unit}` : `${(count / factor).toFixed(2)} ${unit}`;
  }
  return `${count} B`;
}

/** The same with at most three digits, for where space is short. */
export function about(count) {
  for (const [unit, factor] of UNITS) {
    if (count < factor) continue;
    const value = count / factor;
    return `${value < 9.95 ? value.toFixed(1) : Math.round(value)} ${unit}`;
  }
  return `${Math.round(count)} B`;
}

export function signed(count) {
  return count === 0 ? "0 B" : `${count < 0 ? "−" : "+"}${about(Math.abs(count))}`;
}

export function percent(part, whole) {
  if (!whole) return "0 %";
  const share = (part / whole) * 100;
  return share > 0 && share < 1 ? "<1 %" : `${Math.round(share)} %`;
}

export function count(number, one, many = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

/** A span of seconds: `40 s`, `12 min`, `3 h`, `5 d`. */
export function span(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 90) return `${whole} s`;
  if (whole < 90 * 60) return `${Math.round(whole / 60)} min`;
  if (whole < 36 * 3600) return `${Math.round(whole / 3600)} h`;
  return `${Math.round(whole / 86400)} d`;
}

export function ago(seconds, now = Date.now() / 1000) {
  return `${span(now - seconds)} ago`;
}

/** The time of day, with the date where that is not today. */
export function clock(when) {
  const at = new Date(when);
  const time = at.toLocaleTimeString("en-GB");
  if (at.toDateString() === new Date().toDateString()) return time;
  return `${at.toLocaleDateString("en-CA")} ${time}`;
}

/** A digest or id as short as the command line shows it. */
export function short(name) {
  const stem = name.replace(/\.(ext4|qcow2)$/, "").replace(/^sha256:/, "");
  return /^([0-9a-f]{32}|[0-9a-f]{64})$/.test(stem) ? stem.slice(0, 12) : name;
}
