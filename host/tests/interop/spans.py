"""What OpenTelemetry's own library finds in OTLP requests: one body in base64 a line, out comes a JSON list of spans."""

import base64
import json
import sys

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


def value(any_value):
    return getattr(any_value, any_value.WhichOneof("value"))


def attributes(pairs):
    return {pair.key: value(pair.value) for pair in pairs}


spans = []
for line in sys.stdin:
    request = ExportTraceServiceRequest.FromString(base64.b64decode(line))
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                spans.append(
                    {
                        "name": span.name,
                        "kind": span.kind,
                        "trace": span.trace_id.hex(),
                        "span": span.span_id.hex(),
                        "parent": span.parent_span_id.hex(),
                        "state": span.trace_state,
                        "nanoseconds": span.end_time_unix_nano - span.start_time_unix_nano,
                        "status": span.status.code,
                        "message": span.status.message,
                        "attributes": attributes(span.attributes),
                        "resource": attributes(resource.resource.attributes),
                        "scope": scope.scope.name,
                    }
                )
json.dump(spans, sys.stdout)
