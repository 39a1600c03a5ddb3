// Workers compute, a child echoes, a file is watched, timers fire: everything of libuv that needs no network.
'use strict';
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
const { spawn } = require('child_process');
const crypto = require('crypto');
const fs = require('fs');
const { pipeline } = require('stream/promises');
const zlib = require('zlib');

function hot(seed) {
  // Long enough to be compiled, re-compiled and collected.
  let value = seed;
  const seen = new Map();
  for (let round = 0; round < 200000; round++) {
    value = (value * 1103515245 + 12345) % 2147483648;
    seen.set(value % 4096, { value, text: String(value) });
  }
  let sum = 0;
  for (const { text } of seen.values()) sum = (sum * 31 + text.length + Number(text)) % 1000000007;
  return sum;
}

if (!isMainThread) {
  parentPort.on('message', (step) => {
    if (step === null) return process.exit(workerData);
    parentPort.postMessage([step, hot(step * 10 + workerData)]);
  });
} else {
  main().catch((error) => { console.error(error); process.exit(1); });
}

async function main() {
  let ticks = 0;
  const ticker = setInterval(() => ticks++, 10);
  const workers = [1, 2].map((number) => new Worker(__filename, { workerData: number }));
  workers.forEach((worker) => worker.on('error', (error) => { throw error; }));
  const ask = (worker, step) => new Promise((answer) => {
    worker.once('message', answer);
    worker.postMessage(step);
  });
  const child = spawn('sed', ['-u', 's/^/child /'], { stdio: ['pipe', 'pipe', 'inherit'] });
  const childEnd = new Promise((ended) => child.on('close', (code) => ended(code)));
  let heard = '';
  child.stdout.on('data', (data) => { heard += data; });
  fs.writeFileSync('watched', '');
  let changes = 0;
  const watcher = fs.watch('watched', () => changes++);
  const digest = crypto.createHash('sha256');
  for (let step = 1; step <= 60; step++) {
    const answers = await Promise.all(workers.map((worker) => ask(worker, step)));
    child.stdin.write(JSON.stringify(answers) + '\n');
    const key = await new Promise((made, fail) =>
      crypto.pbkdf2(String(answers), 'salt', 5000, 32, 'sha256', (error, key) => error ? fail(error) : made(key)));
    digest.update(key);
    await fs.promises.appendFile('watched', key.toString('hex') + '\n');
    await new Promise((later) => setTimeout(later, 5));
    fs.appendFileSync('progress', '.');
  }
  await pipeline(fs.createReadStream('watched'), zlib.createGzip(), zlib.createGunzip(), fs.createWriteStream('copy'));
  child.stdin.end();
  const status = await childEnd;
  const ends = workers.map((worker) => new Promise((ended) => worker.once('exit', ended)));
  workers.forEach((worker) => worker.postMessage(null));
  console.log('workers', await Promise.all(ends), 'child', status, heard.split('\n').length, crypto.createHash('md5').update(heard).digest('hex'));
  clearInterval(ticker);
  watcher.close();
  console.log('ticks', ticks > 20, 'changes', changes >= 60, 'clock', performance.now() < 600000);
  console.log('digest', digest.digest('hex'), fs.readFileSync('copy').equals(fs.readFileSync('watched')));
}
