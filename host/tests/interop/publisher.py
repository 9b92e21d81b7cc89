"""The tutorial's publisher: declares everything non-durable, sends plain JSON without properties."""

import argparse
import json
import uuid

import pika

arguments = argparse.ArgumentParser()
arguments.add_argument("--port", type=int, default=5672)
arguments.add_argument("--count", type=int, default=1)
arguments = arguments.parse_args()

connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", arguments.port))
channel = connection.channel()
channel.exchange_declare(exchange="orders", exchange_type="fanout")
channel.queue_declare(queue="notifications")
channel.queue_bind(exchange="orders", queue="notifications")

for number in range(arguments.count):
    event = {
        "event": "OrderCreated",
        "order_id": str(uuid.uuid4()),
        "user_id": f"user{number}",
        "product": "iPhone 15",
    }
    channel.basic_publish(exchange="orders", routing_key="", body=json.dumps(event))
    print(event["order_id"])

connection.close()
