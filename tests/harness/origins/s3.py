"""S3: a server that checks each request's signature (@20minutes/s3rver), with keys that can be given out and taken away.

It is installed by npm, once, into a directory of its own (HOLDFAST_TEST_NODE, else below ~/.cache); missing() says why it is
not there.  What s3rver has no notion of is put before it: a key pair may have a session token, which must be in the request,
and may expire, with S3's own errors.
"""

import fcntl
import functools
import json
import os
import shutil
import subprocess

from harness.origins.nginx import free_port
from harness.sandbox import wait_until

PACKAGE = "@20minutes/s3rver@4.0.4"
_CACHE = os.environ.get("HOLDFAST_TEST_NODE") or os.path.join(
    os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "holdfast-tests", "s3rver-4.0.4")

_SERVER = """
const fs = require('fs');
const readline = require('readline');
const {Readable} = require('stream');
const S3rver = require('@20minutes/s3rver');
const Account = require('@20minutes/s3rver/lib/models/account');
const S3Error = require('@20minutes/s3rver/lib/models/error');
const [port, directory, log] = process.argv.slice(2);
const tokens = new Map();
const expired = new Set();
const server = new S3rver({
  address: '127.0.0.1', port: Number(port), silent: true, directory,
  configureBuckets: [{name: 'images', configs: []}]});
const getObject = server.store.getObject.bind(server.store);
server.store.getObject = async (bucket, key, options) => {
  if (!options || options.end !== 0) return getObject(bucket, key, options);
  const object = await getObject(bucket, key, {start: 0, end: 1});  // It takes an end of 0 for none.
  if (!object || !object.content) return object;
  const pieces = [];
  for await (const piece of object.content) pieces.push(piece);
  object.content = Readable.from([Buffer.concat(pieces).subarray(0, 1)], {objectMode: false});
  object.range.end = 0;
  return object;
};
server.middleware.unshift(async (ctx, next) => {
  const credential = /Credential=([^/]+)/.exec(ctx.get('authorization'));
  const key = credential ? credential[1] : '';
  ctx.res.on('close', () => fs.appendFileSync(log, JSON.stringify({
    key, status: ctx.res.statusCode, host: ctx.get('host'), path: ctx.path, range: ctx.get('range')}) + '\\n'));
  if (ctx.method === 'GET') {
    if (!key) throw new S3Error('AccessDenied', 'Access Denied');
    if ((tokens.get(key) || '') !== ctx.get('x-amz-security-token')) throw new S3Error('InvalidToken', 'Not that token');
    if (expired.has(key)) throw new S3Error('ExpiredToken', 'The provided token has expired.');
  }
  await next();
});
readline.createInterface({input: process.stdin}).on('line', line => {
  const {op, key, secret, token} = JSON.parse(line);
  if (op === 'add') { Account.DUMMY_ACCOUNT.createKeyPair(key, secret); if (token) tokens.set(key, token); }
  if (op === 'expire') expired.add(key);
  console.log('done');
});
server.run().then(() => console.log('serving'));
"""


@functools.cache
def missing():
    """Why there is no such server on this machine; "" when there is."""
    if os.path.isdir(os.path.join(_CACHE, "node_modules", "@20minutes", "s3rver")):
        return "" if shutil.which("node") else "no node"
    if not shutil.which("npm") or not shutil.which("node"):
        return "no npm to install s3rver with"
    os.makedirs(os.path.dirname(_CACHE), exist_ok=True)
    with open(_CACHE + ".lock", "w") as lock:  # Two tests may come here at once.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.isdir(_CACHE):
            return ""
        making = _CACHE + ".making"
        shutil.rmtree(making, ignore_errors=True)
        os.makedirs(making)
        try:
            done = subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", making, PACKAGE],
                                  text=True, capture_output=True, timeout=180)
        except subprocess.TimeoutExpired:
            return "npm does not get s3rver within 180 s"
        if done.returncode:
            return "npm can't install s3rver: " + (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        os.rename(making, _CACHE)
    return ""


class S3Server:
    """One bucket, `images`, on 127.0.0.1."""

    def __init__(self, box, name="s3"):
        self.directory = box.make_directory(name)
        self._log = box.path(name + ".requests")
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        program = box.path(name + ".js")
        with open(program, "w") as f:
            f.write(_SERVER)
        # Node looks for packages from the program's directory upwards.
        os.symlink(os.path.join(_CACHE, "node_modules"), box.path("node_modules"))
        with open(box.path(name + ".err"), "ab") as err:
            self._process = box.start(["node", program, str(self.port), self.directory, self._log],
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=err, text=True)
        self._expect("serving")

    def _expect(self, word):
        line = self._process.stdout.readline().strip()
        assert line == word, f"s3rver says {line!r}, not {word!r}"

    def _tell(self, **command):
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        self._expect("done")

    def add_key(self, key, secret, token=""):
        self._tell(op="add", key=key, secret=secret, token=token)

    def expire(self, key):
        self._tell(op="expire", key=key)

    def put(self, key, path):
        """Has the file `path` as object `key`, by s3rver's layout on disk."""
        base = os.path.join(self.directory, "images", key)
        os.makedirs(os.path.dirname(base), exist_ok=True)
        shutil.copyfile(path, base + "._S3rver_object")
        with open(base + "._S3rver_metadata.json", "w") as f:
            json.dump({"content-type": "application/octet-stream"}, f)

    def log(self):
        """Each answered request: a dict of key, status, host, path and range."""
        if not os.path.exists(self._log):
            return []
        with open(self._log) as f:
            return [json.loads(line) for line in f if line.endswith("\n")]

    def wait_requests(self, wanted, what, seconds=30):
        """Until a request has come for which wanted(entry)."""
        wait_until(lambda: any(wanted(entry) for entry in self.log()), seconds, what)
