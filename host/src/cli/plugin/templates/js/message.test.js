import assert from 'node:assert/strict';
import { test } from 'node:test';
import { message } from './message.js';

test('an order is thanked for', () => {
  assert.equal(message('Hello', { user_id: 'ada', product: 'Lovelace' }), 'Hello, ada: Lovelace is ordered');
});
