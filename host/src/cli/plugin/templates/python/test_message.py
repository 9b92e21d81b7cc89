import unittest

from message import message


class Message(unittest.TestCase):
    def test_an_order_is_thanked_for(self):
        order = {"user_id": "ada", "product": "Lovelace"}
        self.assertEqual(message("Hello", order), "Hello, ada: Lovelace is ordered")
