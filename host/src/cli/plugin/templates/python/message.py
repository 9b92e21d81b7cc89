"""Plain Python, which any interpreter can test: `python3 -m unittest`."""


def message(greeting: str, order: dict) -> str:
    return f"{greeting}, {order.get('user_id', 'stranger')}: {order['product']} is ordered"
