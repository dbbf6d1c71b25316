// Looks at the operator page as a browser shows it: no violation of its content security policy, nothing wider than a phone, buttons that
// ask back, live updates; and takes the screenshots of docs/images.
// Usage: node look.js BASE TOKEN PERMISSION FOLDER; exit status 1 if something is not as it should be.
import { chromium } from 'playwright-core';

const [base, token, permission, folder] = process.argv.slice(2);
const wrong = [];
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync'],
});

const looks = [
  { name: 'light', colorScheme: 'light', viewport: { width: 1280, height: 900 } },
  { name: 'dark', colorScheme: 'dark', viewport: { width: 1280, height: 900 } },
  { name: 'phone', colorScheme: 'light', viewport: { width: 390, height: 844 } },
];

/** What docs/images has. */
const shown = ['overview', 'permission'];

try {
  for (const { name, ...look } of looks) {
    const context = await browser.newContext(look);
    const page = await context.newPage();
    page.on('console', (message) => {
      // The answers 4xx that are asked for below are logged, too.
      if (message.type() === 'error' && !message.text().includes('status of')) wrong.push(`${name}: ${message.text()}`);
    });
    page.on('pageerror', (error) => wrong.push(`${name}: ${error}`));
    await page.goto(`${base}/operator`);
    if (!page.url().endsWith('/operator/login')) wrong.push(`${name}: no login was asked for`);
    await page.fill('input[name=token]', token);
    await page.click('button');
    await page.waitForSelector('.banner');
    const shots = {
      overview: '/operator',
      charges: '/operator/charges',
      permission: `/operator/permissions/${permission}`,
      quarantine: '/operator/quarantine',
    };
    for (const [what, path] of Object.entries(shots)) {
      await page.goto(`${base}${path}`);
      await page.waitForFunction(() => document.getElementById('live').textContent === 'live');
      const wider = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
      if (wider > 0) wrong.push(`${name}: ${what} is ${wider} pixels too wide`);
      if (shown.includes(what)) {
        await page.screenshot({ path: `${folder}/operator-${what}-${name}.png`, fullPage: what === 'overview' });
      }
    }
    // A button asks back, and the way back is there.
    await page.goto(`${base}/operator`);
    await page.click('text=Stop all charges');
    await page.waitForSelector('button.sure');
    await page.click('text=No, back');
    await page.waitForSelector('.banner');
    // What is not ours is not run, whatever is put into the page.
    const ran = await page.evaluate(() => {
      const script = document.createElement('script');
      script.textContent = 'window.hostile = true';
      document.body.append(script);
      return window.hostile === true;
    });
    if (ran) wrong.push(`${name}: an inline script ran`);
    await context.close();
  }
  // Live: what happens is shown without a click. And without JavaScript everything is there but that.
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(`${base}/operator/login`);
  await page.fill('input[name=token]', token);
  await page.click('button');
  await page.waitForSelector('.banner');
  const other = await browser.newContext({ storageState: await context.storageState(), javaScriptEnabled: false });
  const plain = await other.newPage();
  for (const [button, banner] of [['Stop all charges', 'The stop switch is on'], ['Lift the stop switch', 'At work']]) {
    await plain.goto(`${base}/operator`);
    await plain.click(`text=${button}`);
    await plain.click('button.sure');
    await page.waitForFunction((text) => document.querySelector('.banner').textContent.includes(text), banner, { timeout: 15000 });
  }
} catch (error) {
  wrong.push(String(error));
} finally {
  await browser.close();
}
// Our own attempt above is refused by the policy, and Chromium says so.
const unexpected = wrong.filter((text) => !/inline script.*Content Security Policy|violates the following Content Security Policy directive.*script-src/s.test(text));
unexpected.forEach((text) => console.error(text));
console.log(`${looks.length} looks; ${unexpected.length} things wrong`);
process.exit(unexpected.length > 0 ? 1 : 0);
