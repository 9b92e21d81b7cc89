"""A publisher that is traced, as instrumented services are: the context is in the message's headers, or in a CloudEvent."""

import argparse
import json

import pika

arguments = argparse.ArgumentParser()
arguments.add_argument("--url", required=True)
arguments.add_argument("--exchange", required=True)
arguments.add_argument("--id", required=True)
arguments.add_argument("--mode", choices=["plain", "structured", "binary:cloudEvents:", "binary:ce-"], required=True)
arguments.add_argument("--traceparent", required=True)
arguments.add_argument("--tracestate", required=True)
arguments = arguments.parse_args()

context = {"traceparent": arguments.traceparent, "tracestate": arguments.tracestate}
attributes = {"specversion": "1.0", "id": arguments.id, "source": "/shop", "type": "OrderCreated"}
data = {"event": "OrderCreated", "order_id": arguments.id, "event_id": arguments.id}
if arguments.mode == "plain":
    body, properties = data, pika.BasicProperties(headers=context)
elif arguments.mode == "structured":
    body = {**attributes, **context, "data": data}
    properties = pika.BasicProperties(content_type="application/cloudevents+json")
else:
    prefix = arguments.mode.removeprefix("binary:")
    headers = {prefix + name: value for name, value in {**attributes, **context}.items()}
    body, properties = data, pika.BasicProperties(content_type="application/json", headers=headers)

connection = pika.BlockingConnection(pika.URLParameters(arguments.url))
channel = connection.channel()
channel.confirm_delivery()
channel.basic_publish(arguments.exchange, "order.created", json.dumps(body), properties, mandatory=True)
connection.close()
