"""The tutorial's consumer: parses each event, writes a line of it, and acknowledges it.

Prints how many seconds it took from the first event to the last. Its lines go to a file, which Python buffers.
"""

import json
import sys
import time

import pika

url, queue, prefetch, count, lines = sys.argv[1:]
prefetch, count, lines = int(prefetch), int(count), open(lines, "w", encoding="utf-8")
connection = pika.BlockingConnection(pika.URLParameters(url))
channel = connection.channel()
channel.basic_qos(prefetch_count=prefetch)
handled = 0
first = None


def callback(channel, method, properties, body):
    global handled, first
    first = first or time.monotonic()
    event = json.loads(body)
    print(
        f"[Notification Service] {event['event']}: order #{event['order_id']}"
        f" of user {event['user_id']}, product {event['product']}",
        file=lines,
    )
    channel.basic_ack(delivery_tag=method.delivery_tag)
    handled += 1
    if handled == count:
        print(time.monotonic() - first)
        channel.stop_consuming()


channel.basic_consume(queue=queue, on_message_callback=callback, auto_ack=False)
channel.start_consuming()
connection.close()
