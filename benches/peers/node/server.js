// The fastest plain Node that we know to write: no framework, the key read once, one script, one connection to Redis.
//
// Settings: PORT, REDIS_SOCKET, TOPIC, CERTIFICATE (a PEM file), PROCESSES.
import cluster from 'node:cluster';
import crypto from 'node:crypto';
import fs from 'node:fs';
import http from 'node:http';

import { Redis } from 'ioredis';

const { PORT, REDIS_SOCKET, TOPIC, CERTIFICATE, PROCESSES = '1' } = process.env;
const SEEN_MS = 16 * 24 * 3600 * 1000;
const KEY = new crypto.X509Certificate(fs.readFileSync(CERTIFICATE)).publicKey;

const ACCEPT = `
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('XADD', KEYS[2], '*', 'id', ARGV[1], 'body', ARGV[2])
redis.call('SET', KEYS[1], '1', 'PX', ARGV[3])
return 1`;

if (cluster.isPrimary && Number(PROCESSES) > 1) {
  for (let i = 0; i < Number(PROCESSES); i++) cluster.fork();
} else {
  const redis = new Redis({ path: REDIS_SOCKET, enableAutoPipelining: true });
  redis.defineCommand('accept', { numberOfKeys: 2, lua: ACCEPT });
  const answer = (response, status) => {
    response.writeHead(status, { 'content-length': 0 });
    response.end();
  };
  const accept = async (response, body) => {
    let message;
    try {
      message = JSON.parse(body);
    } catch {
      return answer(response, 400);
    }
    if (message.TopicArn !== TOPIC || message.SignatureVersion !== '2' || message.Type !== 'Notification') {
      return answer(response, 403);
    }
    const subject = message.Subject === undefined ? '' : `Subject\n${message.Subject}\n`;
    const signed = `Message\n${message.Message}\nMessageId\n${message.MessageId}\n${subject}Timestamp\n${message.Timestamp}\nTopicArn\n${message.TopicArn}\nType\n${message.Type}\n`;
    if (!crypto.verify('RSA-SHA256', Buffer.from(signed), KEY, Buffer.from(message.Signature, 'base64'))) {
      return answer(response, 403);
    }
    try {
      await redis.accept(`bench:seen:${message.MessageId}`, 'bench:journal', message.MessageId, body, SEEN_MS);
      answer(response, 200);
    } catch {
      answer(response, 503);
    }
  };
  const server = http.createServer((request, response) => {
    const parts = [];
    request.on('data', (part) => parts.push(part));
    request.on('end', () => accept(response, parts.length === 1 ? parts[0] : Buffer.concat(parts)));
  });
  server.listen(Number(PORT), '127.0.0.1');
}
