// Plain JavaScript, which any runtime can test: `npm test`.

export function message(greeting, order) {
  return `${greeting}, ${order.user_id ?? 'stranger'}: ${order.product} is ordered`;
}
