// A real Chromium with one page, which is watched: it may not complain, break its own policy, or ask anybody else.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { join } from "node:path";

const CHROMIUM = "/usr/bin/chromium";
const FLAGS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];
/** For whatever is waited for; the machine may be busy. */
export const SOON = 60_000;
export const DESK = { width: 1280, height: 900 };
export const PHONE = { width: 375, height: 812 };

/** `settings`: `at`, the page's address; `packages`, the folder with node_modules; `pictures`, where screenshots go. */
export async function open(settings) {
  const require = createRequire(join(settings.packages, "package.json"));
  const { chromium } = require("playwright-core");
  const axe = require("axe-core").source;
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: FLAGS });
  const context = await browser.newContext({ viewport: DESK, reducedMotion: "reduce" });
  const page = await context.newPage();
  page.setDefaultTimeout(SOON);
  const faults = [];
  // What the page does not know yet when it begins, or what is away, it asks for all the same.
  const expected = /^Failed to load resource: (net::ERR_|the server responded with a status of (401|404|422|503))/;
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type()) && !expected.test(message.text())) {
      faults.push(`console: ${message.text()}`);
    }
  });
  page.on("pageerror", (error) => faults.push(`error: ${error.stack}`));
  context.on("request", (request) => {
    const url = new URL(request.url());
    if (url.origin !== new URL(settings.at).origin && url.protocol !== "data:") faults.push(`a request to ${url}`);
  });
  await page.addInitScript(() => {
    addEventListener("securitypolicyviolation", (event) => console.error(`policy: ${event.violatedDirective} by ${event.blockedURI}`));
  });
  const watched = new Watched(page, axe, faults, settings.pictures);
  try {
    await page.goto(settings.at);
    return { browser, page, watched };
  } catch (error) {
    await browser.close();
    throw error;
  }
}

class Watched {
  constructor(page, axe, faults, pictures) {
    Object.assign(this, { page, axe, faults, pictures });
  }

  /** In light, dark and on a phone: axe finds nothing, nothing is wider than the page; and a picture of each. */
  async look(name) {
    for (const [how, colorScheme, size] of [["light", "light", DESK], ["dark", "dark", DESK], ["phone", "light", PHONE], ["phone-dark", "dark", PHONE]]) {
      await this.page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
      await this.page.setViewportSize(size);
      await this.judge(`${name} in ${how}`);
      await this.page.screenshot({ path: join(this.pictures, `${name}-${how}.png`) });
    }
    await this.page.emulateMedia({ colorScheme: "light", reducedMotion: "reduce" });
    await this.page.setViewportSize(DESK);
  }

  async judge(what) {
    const found = await this.page.evaluate(`(async () => { const module = undefined; ${this.axe}; return (await axe.run()).violations; })()`);
    const told = found.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map((node) => `${node.target} ${node.failureSummary}`).join("; ")}`);
    assert.deepEqual(told, [], `axe-core of ${what}`);
    const [needed, had] = await this.page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    assert.ok(needed <= had, `${what} is ${needed} pixels wide, of ${had}`);
  }

  /** To be asked at the end. */
  check() {
    assert.deepEqual(this.faults, []);
  }
}

/** Waits until a condition holds. */
export async function until(what, condition) {
  const end = Date.now() + SOON;
  for (;;) {
    if (await condition()) return;
    if (Date.now() > end) throw new Error(`not in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
