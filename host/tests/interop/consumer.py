"""The tutorial's consumer: takes orders from the queue, prints them, acknowledges by hand."""

import argparse
import json

import pika

arguments = argparse.ArgumentParser()
arguments.add_argument("--port", type=int, default=5672)
arguments.add_argument("--count", type=int, default=1, help="stop after so many")
arguments = arguments.parse_args()

connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", arguments.port))
channel = connection.channel()
channel.exchange_declare(exchange="orders", exchange_type="fanout")
channel.queue_declare(queue="notifications")
channel.queue_bind(exchange="orders", queue="notifications")

seen = 0


def notify(channel, method, _properties, body):
    global seen
    data = json.loads(body)
    print(f"{data['event']}: order {data['order_id']} of {data['user_id']}: {data['product']}", flush=True)
    channel.basic_ack(delivery_tag=method.delivery_tag)
    seen += 1
    if seen == arguments.count:
        channel.stop_consuming()


channel.basic_consume(queue="notifications", on_message_callback=notify)
channel.start_consuming()
connection.close()
