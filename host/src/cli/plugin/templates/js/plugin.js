// {{name}}: a plugin for notify-host. `handle` is where your work goes.
// What there is to import stands in wit/plugin.wit.

import * as config from 'notify:plugin/config@0.1.0';
import * as log from 'notify:plugin/log@0.1.0';
import { message } from './message.js';

/** What an operator may set under [config]: JSON Schema. The host fills in its defaults. */
const CONFIG_SCHEMA = {
  type: 'object',
  additionalProperties: false,
  properties: {
    greeting: { type: 'string', minLength: 1, default: 'Thank you', description: 'how the message begins' },
    'ignore-user': { type: 'string', description: 'whose orders are none of our business' },
  },
};

export const metadata = {
  /** What the plugin is, and what it would like. Called once, when it is loaded. */
  describe() {
    return {
      name: '{{name}}',
      version: '0.1.0',
      description: 'Thanks for every order',
      annotations: [],
      configSchema: JSON.stringify(CONFIG_SCHEMA),
      // `*` is one word of a type, `#` any number of them. Without a subscription: every event.
      subscriptions: [{ eventType: 'OrderCreated' }],
      requests: [],
    };
  },
};

export const handler = {
  /** One attempt at one event, in a fresh instance. What throws an Error is tried again later. */
  handle(event, delivery) {
    const settings = JSON.parse(config.getJson());
    const order = JSON.parse(event.data);
    if (typeof order?.order_id !== 'string') {
      throw reject('bad-data', 'the order has no order_id');
    }
    if (order.user_id === settings['ignore-user']) {
      return skipped(`the orders of ${order.user_id} are ignored`);
    }
    if (!order.product) {
      // What may be better later. With a number of milliseconds: not before then.
      throw retry(`order ${order.order_id} has no product yet`);
    }
    log.write('info', message(settings.greeting, order), [
      ['order_id', order.order_id],
      ['attempt', String(delivery.attempt)],
    ]);
    return done();
  },
};

/** Handled. The note (a message id, an HTTP status) is for the operator. */
function done(note) {
  return { tag: 'done', val: note === undefined || note === null ? undefined : text(note) };
}

/** Looked at, and deliberately not acted on. */
function skipped(reason) {
  return { tag: 'skipped', val: text(reason) };
}

/** Try this event again: when the host thinks best, or not before so many milliseconds have passed. */
function retry(reason, millis) {
  return failure({ tag: 'retry', val: { reason: text(reason), after: wholeNumber(millis) } });
}

/** This event will never work here: to the dead letters. The code is short, of a-z, 0-9 and -. */
function reject(code, reason) {
  return failure({ tag: 'reject', val: { reason: text(reason), code: text(code) } });
}

/** No event can work until an operator acts: the host pauses the plugin and keeps its events. */
function misconfigured(reason) {
  return failure({ tag: 'misconfigured', val: text(reason) });
}

function failure(payload) {
  return Object.assign(new Error(payload.tag), { payload });
}

/** A string of the contract. It is always well-formed, and an Error becomes its name and message. */
function text(value) {
  return String(value).toWellFormed();
}

/**
 * A u64 of the contract, such as `after` here and `timeout` of an HTTP request; undefined for what is no number.
 * QuickJS accepts no BigInt here and StarlingMonkey no fraction, so it is a whole Number. The other way round, write
 * Number(delivery.budget): StarlingMonkey hands out a BigInt.
 */
function wholeNumber(value) {
  const number = Math.ceil(Number(value ?? NaN));
  return Number.isNaN(number) ? undefined : Math.min(Math.max(number, 0), Number.MAX_SAFE_INTEGER);
}
