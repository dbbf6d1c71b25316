// An IPN endpoint as people write it today: Express, sns-validator, ioredis. It verifies, dedupes, stores, and answers.
//
// Settings: PORT, REDIS_SOCKET, TOPIC, CERTIFICATE (a PEM file: what fetching the signing certificate gives, which is done once), PROCESSES.
import cluster from 'node:cluster';
import fs from 'node:fs';
import https from 'node:https';
import { Readable } from 'node:stream';

import express from 'express';
import { Redis } from 'ioredis';
import MessageValidator from 'sns-validator';

const { PORT, REDIS_SOCKET, TOPIC, CERTIFICATE, PROCESSES = '1' } = process.env;
const SEEN_SECONDS = 16 * 24 * 3600;

// No request leaves this machine.
https.get = (_url, answered) => {
  const answer = Object.assign(Readable.from([fs.readFileSync(CERTIFICATE)]), { statusCode: 200 });
  answered(answer);
  return answer;
};

if (cluster.isPrimary && Number(PROCESSES) > 1) {
  for (let i = 0; i < Number(PROCESSES); i++) cluster.fork();
} else {
  const redis = new Redis({ path: REDIS_SOCKET });
  const validator = new MessageValidator();
  const app = express();
  // SNS says text/plain.
  app.use(express.text({ type: '*/*', limit: '300kb' }));
  app.post('/ipn', (request, response) => {
    let message;
    try {
      message = JSON.parse(request.body);
    } catch {
      return response.status(400).end();
    }
    if (message.TopicArn !== TOPIC) return response.status(403).end();
    validator.validate(message, async (error) => {
      if (error) return response.status(403).end();
      try {
        const key = `bench:seen:${message.MessageId}`;
        if (await redis.exists(key)) return response.status(200).end();
        await redis.xadd('bench:journal', '*', 'id', message.MessageId, 'body', request.body);
        await redis.set(key, '1', 'EX', SEEN_SECONDS);
        response.status(200).end();
      } catch {
        response.status(503).end();
      }
    });
  });
  app.listen(Number(PORT), '127.0.0.1');
}
