"""A mail relay for the tests: aiosmtpd, which takes mails and writes each down as a line of JSON, read back by Python's own
parser. What it does with a mail depends on its recipients' names."""

import argparse
import asyncio
import base64
import email
import email.policy
import json
import ssl
import sys

import dkim
from aiosmtpd.smtp import SMTP, AuthResult

STRICT = email.policy.SMTP.clone(raise_on_defect=True)


def say(what):
    print(json.dumps(what), flush=True)


def addresses(mail, name):
    header = mail[name]
    return [] if header is None else [[one.display_name, one.addr_spec] for one in header.addresses]


def text_of(part):
    return None if part is None else part.get_content()


class Relay:
    def __init__(self, arguments):
        self.arguments = arguments
        self.busy = arguments.busy

    async def handle_EHLO(self, server, session, envelope, hostname, responses):
        session.host_name = hostname
        if self.arguments.hide_starttls:
            responses = [line for line in responses if "STARTTLS" not in line]
        return responses

    async def handle_MAIL(self, server, session, envelope, address, options):
        say({"talk": "MAIL", "tls": session.ssl is not None})
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, options):
        name = address.split("@")[0]
        if name == "nobody":
            return "550 5.1.1 no such user"
        if name == "greylisted" and self.busy > 0:
            self.busy -= 1
            return "450 4.2.1 come back later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        names = [address.split("@")[0] for address in envelope.rcpt_tos]
        if "full" in names:
            return "552 5.2.2 mailbox full"
        if "held" in names and self.arguments.hold:
            say({"talk": "held", "message_id": email.message_from_bytes(envelope.content)["Message-ID"]})
            await asyncio.sleep(3600)
        raw = envelope.original_content
        mail = email.message_from_bytes(raw, policy=STRICT)
        signed = None
        if self.arguments.dkim:
            record = f"v=DKIM1; k={self.arguments.dkim_kind}; p={self.arguments.dkim}".encode()
            signed = dkim.verify(raw, dnsfunc=lambda name, timeout=5: record)
        say(
            {
                "mail": mail["Message-ID"],
                "tls": session.ssl is not None,
                "user": session.auth_data.decode() if session.auth_data else None,
                "hello": session.host_name,
                "envelope_from": envelope.mail_from,
                "envelope_to": envelope.rcpt_tos,
                "headers": [[name, str(value)] for name, value in mail.items()],
                "from": addresses(mail, "From"),
                "to": addresses(mail, "To"),
                "subject": mail["Subject"],
                "text": text_of(mail.get_body(("plain",))),
                "html": text_of(mail.get_body(("html",))),
                "attachments": [
                    [part.get_filename(), part.get_content_type(), part.get_payload(decode=True).decode()]
                    for part in mail.iter_attachments()
                ],
                "longest_line": max(len(line) for line in raw.split(b"\r\n")),
                "is_ascii": raw.isascii(),
                "dkim": signed,
            }
        )
        return "250 OK"


def authenticate(server, session, envelope, mechanism, data):
    login, password = data.login.decode(), data.password.decode()
    expected = server.event_handler.arguments.login
    if f"{login}:{password}" != expected:
        # Some relays repeat what they were told.
        plain = base64.b64encode(data.login + b":" + data.password).decode()
        return AuthResult(success=False, handled=False, message=f"535 5.7.8 not {password}, nor {plain}")
    return AuthResult(success=True, auth_data=data.login)


async def serve(arguments):
    relay = Relay(arguments)
    context = None
    if arguments.identity:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(arguments.identity)

    def protocol():
        return SMTP(
            relay,
            hostname="relay.test",
            tls_context=None if arguments.implicit else context,
            require_starttls=context is not None and not arguments.implicit and not arguments.hide_starttls,
            auth_required=arguments.login is not None,
            auth_require_tls=not arguments.implicit and context is not None,
            authenticator=authenticate if arguments.login else None,
        )

    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        protocol, "127.0.0.1", arguments.port, ssl=context if arguments.implicit else None
    )
    say({"talk": "ready"})
    await server.serve_forever()


parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--identity", help="certificate and key, in PEM")
parser.add_argument("--implicit", action="store_true", help="TLS from the first byte on")
parser.add_argument("--hide-starttls", action="store_true")
parser.add_argument("--login", help="USER:PASSWORD")
parser.add_argument("--busy", type=int, default=0, help="so many times a greylisted recipient is put off")
parser.add_argument("--hold", action="store_true", help="keep mails to held@ without an answer")
parser.add_argument("--dkim", help="the public key, in base64")
parser.add_argument("--dkim-kind", default="rsa")
try:
    asyncio.run(serve(parser.parse_args()))
except KeyboardInterrupt:
    sys.exit(0)
