// Drives the dashboard of a host as an operator would. `node drive.mjs SCENARIO SETTINGS`, of which the settings are
// JSON: see `open`, and what the scenario takes beside.

import assert from "node:assert/strict";
import { copyFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { open, until } from "./browser.mjs";

const MARK = "mended by hand";

const number = async (locator) => Number((await locator.innerText()).replaceAll(",", "").replace(/k$/, "e3").replace(/M$/, "e6"));
const row = (page, plugin) => page.locator(`tr[data-plugin="${plugin}"]`);
const said = (page, text) => page.getByRole("status").filter({ hasText: text }).waitFor();

/** Under load: `plugins` is the folder, `mended` a plugin to put in the place of `shop`, `letters` how many that has. */
async function operate({ page, watched }, settings) {
  await step("the page shows the host and its plugins", async () => {
    await page.locator(".state", { hasText: /^ready$/ }).waitFor();
    await row(page, "logger").getByText("running").waitFor();
    await row(page, "moody").getByText("failing").waitFor();
    await row(page, "moody").getByText("told to try again").waitFor();
    await row(page, "newcomer").getByText("broken").waitFor();
    await row(page, "newcomer").getByText("Does not load:").waitFor();
    await row(page, "shop").getByText("may log only").waitFor();
    await page.getByText("2 plugins in trouble").waitFor();
  });

  await step("figures move", async () => {
    const plot = page.getByRole("img", { name: /^Events per second/ });
    await until("events are counted", async () => /received [1-9]/.test(await plot.getAttribute("aria-label")));
    await until("the latency is known", async () => /p99 \d/.test(await page.getByRole("img", { name: /^Time to settle/ }).getAttribute("aria-label")));
    const done = row(page, "logger").locator("td").nth(2);
    const before = await number(done);
    await until("the logger has done more", async () => (await number(done)) > before);
  });

  await step("events come in by themselves, and can be filtered", async () => {
    const events = page.locator("table.events tbody tr");
    await until("there are some", async () => (await events.count()) >= 25);
    const first = await events.first().innerText();
    await until("newer ones take their place", async () => (await events.first().innerText()) !== first);
    await page.getByRole("button", { name: "Pause feed" }).click();
    await page.getByText(/paused · [\d,]+ new/).waitFor();
    await page.getByRole("button", { name: "Go on" }).click();
    const section = page.locator("#events-section");
    await section.getByLabel("Plugin").selectOption("shop");
    await section.getByLabel("Outcome").selectOption("dead-letter");
    await until("only those", async () => {
      const texts = await events.allInnerTexts();
      return texts.length === settings.letters && texts.every((text) => /shop/.test(text) && /dead-letter/.test(text));
    });
    await section.getByLabel("Text").fill("no event has this");
    await section.getByText("No recent event has").waitFor();
    await section.getByLabel("Text").fill("");
    await section.getByLabel("Plugin").selectOption("");
    await section.getByLabel("Outcome").selectOption("");
  });

  await page.evaluate(() => scrollTo(0, 0));
  await watched.look("main");

  await step("a paused plugin's queue grows, and drains when it is resumed", async () => {
    const logger = row(page, "logger");
    await logger.getByRole("button", { name: "Pause logger" }).click();
    await said(page, "logger is paused");
    await logger.getByText("paused", { exact: true }).waitFor();
    const queue = logger.locator(".queue");
    await until("it grows", async () => (await number(queue)) > 0);
    const before = await number(queue);
    await until("it grows on", async () => (await number(queue)) > before);
    await page.screenshot({ path: join(settings.pictures, "paused.png") });
    // The button that was pressed has become the other one, and keeps the focus.
    assert.equal(await page.evaluate(() => document.activeElement.textContent), "Resume logger");
    await page.keyboard.press("Enter");
    await said(page, "logger is resumed");
    await until("it drains", async () => (await number(queue)) === 0);
    await logger.getByText("running", { exact: true }).waitFor();
  });

  await step("an event is explained by keyboard alone", async () => {
    await page.locator("body").click({ position: { x: 5, y: 5 } });
    await tabTo(page, (element) => element.closest("table.events") && element.matches("button.link"));
    await page.getByText("held while you are in it").waitFor();
    const event = await page.evaluate(() => document.activeElement.getAttribute("aria-label"));
    await page.keyboard.press("Enter");
    const dialog = page.getByRole("dialog", { name: /^What happened to/ });
    await dialog.getByText("Received from exchange").waitFor();
    await dialog.getByText(/: attempt 1 of \d+, /).first().waitFor();
    await dialog.getByText("How it stands").waitFor();
    assert.ok(event.includes(await dialog.locator("dd").first().innerText()), event);
    await page.keyboard.press("Tab");
    assert.ok(await page.evaluate(() => document.activeElement.closest("dialog") !== null), "the focus stays within");
    await watched.look("explain");
    await page.keyboard.press("Escape");
    await dialog.waitFor({ state: "detached" });
    assert.equal(await page.evaluate(() => document.activeElement.getAttribute("aria-label")), event, "the focus is back");
  });

  await step("an event is found by its order", async () => {
    const events = page.locator("#events-section");
    await events.getByLabel("Plugin").selectOption("shop");
    await until("only those", async () => (await page.locator("table.events tbody tr").count()) === settings.letters);
    const subject = await page.locator("table.events tbody tr").first().locator("td").nth(2).innerText();
    await events.getByLabel("Plugin").selectOption("");
    await page.getByRole("searchbox", { name: "What happened to" }).fill(subject);
    await page.keyboard.press("Enter");
    const dialog = page.getByRole("dialog", { name: `What happened to ${subject}` });
    await dialog.getByText(/shop: attempt 1 of \d+.*told to reject; dead-lettered/).waitFor();
    await dialog.getByRole("button", { name: "Close" }).last().click();
    await page.getByRole("searchbox", { name: "What happened to" }).fill("no-such-order");
    await page.keyboard.press("Enter");
    await page.getByRole("dialog").getByText("knows nothing of").waitFor();
    await page.keyboard.press("Escape");
  });

  await step("a plugin is mended, and loaded again", async () => {
    const unfinished = join(settings.plugins, "..", "mended.wasm");
    copyFileSync(settings.mended, unfinished);
    writeFileSync(join(settings.plugins, "shop.toml"), settings.mendedToml);
    renameSync(unfinished, join(settings.plugins, "shop.wasm"));
    await row(page, "shop").getByRole("button", { name: "Reload shop" }).click();
    await said(page, "shop");
    await row(page, "shop").getByText("Writes").waitFor();
  });

  const section = page.locator("#letters-section");
  const letters = section.locator("table.letters tbody tr");
  await step("a dead letter is found, looked at, edited and replayed, and arrives", async () => {
    await section.getByLabel("Plugin").selectOption("shop");
    await section.getByLabel("Reason").fill("no letter says this");
    await section.getByText("No dead letter matches").waitFor();
    await section.getByLabel("Reason").fill("told to");
    await until("they are listed", async () => (await letters.count()) === settings.letters);
    const opener = letters.first().getByRole("button");
    const id = (await opener.getAttribute("aria-label")).split(" ").pop();
    await opener.click();
    const dialog = page.getByRole("dialog", { name: /^Dead letter/ });
    await dialog.getByText("told-to: told to reject").waitFor();
    const payload = await dialog.getByRole("region", { name: /^Payload/ }).innerText();
    assert.equal(JSON.parse(payload).event, "OrderCanceled", payload);
    await watched.look("letter");
    await dialog.getByRole("button", { name: "Edit…" }).click();
    const draft = dialog.getByLabel("Payload, to be edited");
    await draft.fill("{");
    await dialog.getByText("This is not JSON yet").waitFor();
    await dialog.getByRole("button", { name: "Replay edited" }).click();
    await dialog.getByRole("alert").filter({ hasText: "JSON" }).waitFor();
    await draft.fill(JSON.stringify({ ...JSON.parse(payload), mark: MARK }, null, 2));
    await watched.look("edit");
    await dialog.getByRole("button", { name: "Replay edited" }).click();
    await dialog.waitFor({ state: "detached" });
    await said(page, "replayed with what you wrote");
    await until("it is gone", async () => (await letters.count()) === settings.letters - 1);
    assert.equal(await section.getByText(id).count(), 0);
    await page.locator("#events-section").getByLabel("Plugin").selectOption("shop");
    const arrived = page.locator("table.events tbody tr").filter({ hasText: "shop" }).filter({ hasText: "done" });
    await arrived.first().getByRole("button").click();
    const explained = page.getByRole("dialog", { name: /^What happened to/ });
    await explained.getByRole("list", { name: "What the plugin logged" }).getByText(MARK).waitFor();
    await page.keyboard.press("Escape");
    await page.locator("#events-section").getByLabel("Plugin").selectOption("");
  });

  await step("one is deleted, and the others are purged, after a question", async () => {
    await letters.first().getByRole("button").click();
    await page.getByRole("button", { name: "Delete…" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Delete", exact: true }).click();
    await said(page, "deleted");
    const left = settings.letters - 2;
    await until("it is gone", async () => (await letters.count()) === left);
    await section.getByRole("button", { name: "Purge these…" }).click();
    const dialog = page.getByRole("dialog", { name: /^Purge/ });
    await dialog.getByText("told to").waitFor();
    assert.equal(await page.evaluate(() => document.activeElement.textContent), "Cancel", "nothing dangerous is at hand");
    await watched.look("purge");
    await page.keyboard.press("Enter");
    await dialog.waitFor({ state: "detached" });
    assert.equal(await letters.count(), left, "nothing was done");
    await section.getByRole("button", { name: "Purge these…" }).click();
    await dialog.getByRole("button", { name: `Purge ${left}` }).click();
    await said(page, `${left} dead letters purged`);
    await section.getByText("No dead letter matches").waitFor();
  });
}

/** Without a plugin. */
async function empty({ page, watched }, settings) {
  await step("it says what to do", async () => {
    await page.getByText("There is no plugin yet.").waitFor();
    await page.locator("#plugins-section").getByText(settings.plugins).waitFor();
    await page.locator(".state", { hasText: "not ready" }).waitFor();
    await page.getByText("Not ready.").waitFor();
    await page.getByText("No event has come yet.").waitFor();
    await page.getByText("There are no dead letters").waitFor();
    await watched.look("empty");
  });
}

/** `token` is the right one. */
async function locked({ page, watched }, settings) {
  await step("it asks for the token", async () => {
    const token = page.getByLabel("Token", { exact: true });
    await token.waitFor();
    await watched.look("token");
    await token.fill("not-the-right-one");
    await page.keyboard.press("Enter");
    await token.waitFor();
    await until("it asks again", async () => (await page.getByLabel("Token", { exact: true }).inputValue()) === "");
    await page.getByLabel("Token", { exact: true }).fill(settings.token);
    await page.keyboard.press("Enter");
    await row(page, "logger").getByText("running").waitFor();
    await page.getByRole("img", { name: /^Events per second.*received \d/ }).waitFor();
    await page.reload();
    await row(page, "logger").getByText("running").waitFor();
  });
}

/** The host is stopped and started by whoever runs this, as it is told. */
async function away({ page, watched }) {
  await step("it says that the host is away, and finds it again", async () => {
    await page.locator(".state", { hasText: /^ready$/ }).waitFor();
    console.log("stop the host");
    await page.getByRole("alert").filter({ hasText: "does not answer" }).waitFor();
    await page.locator(".state", { hasText: "unreachable" }).waitFor();
    await watched.look("away");
    console.log("start the host");
    await page.locator(".state", { hasText: /^ready$/ }).waitFor();
    assert.equal(await page.getByText("does not answer").count(), 0);
    await row(page, "logger").getByText("running").waitFor();
  });
}

/** By the tabulator alone, to the first element of this kind. */
async function tabTo(page, isMeant) {
  for (let presses = 0; presses < 200; presses++) {
    await page.keyboard.press("Tab");
    if (await page.evaluate(`(${isMeant})(document.activeElement) ? true : false`)) return;
  }
  throw new Error("no such element is reached by keyboard");
}

async function step(name, act) {
  const began = Date.now();
  try {
    await act();
    console.log(`${name}: ${Date.now() - began} ms`);
  } catch (error) {
    error.message = `${name}: ${error.message}`;
    throw error;
  }
}

const scenario = { operate, empty, locked, away }[process.argv[2]];
const settings = JSON.parse(process.argv[3]);
const opened = await open(settings);
try {
  await scenario(opened, settings);
  opened.watched.check();
} catch (error) {
  await opened.page.screenshot({ path: join(settings.pictures, `failed-${process.argv[2]}.png`) }).catch(() => {});
  console.error(opened.watched.faults.join("\n"));
  console.error(error.stack);
  process.exitCode = 1;
} finally {
  await opened.browser.close();
}
