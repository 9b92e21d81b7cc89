"""What a receiver makes of a webhook, by the libraries that people use for it: `standardwebhooks` and `cloudevents`.

Reads one JSON object: the headers, the body in base64, and secrets. Writes one: by which of the secrets it is verified,
and the event, if it is one.
"""

import base64
import json
import sys

from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from standardwebhooks import Webhook, WebhookVerificationError


def is_verified(secret, headers, body):
    try:
        Webhook(secret).verify(body, headers, json_parse=False)
        return True
    except WebhookVerificationError:
        return False


def main():
    request = json.load(sys.stdin)
    headers = request["headers"]
    body = base64.b64decode(request["body"])
    answer = {"verified": [is_verified(secret, headers, body) for secret in request["secrets"]]}
    is_event = headers.get("content-type", "").startswith("application/cloudevents") or "ce-id" in headers
    if is_event:
        event = from_http_event(HTTPMessage(headers=headers, body=body))
        answer["attributes"] = {name: str(value) for name, value in event.get_attributes().items()}
        answer["data"] = event.get_data()
    json.dump(answer, sys.stdout)


main()
