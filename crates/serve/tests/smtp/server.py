#!/usr/bin/env python3
"""A server that takes mail. Says its port, and then each mail that it takes, as lines of JSON, until its input ends.

    python3 server.py [--tls CERTIFICATE KEY] [--user NAME PASSWORD]

With `--tls` it takes nothing before STARTTLS, and with `--user` nothing from anybody else. It has no mailbox whose name begins with `gone`.
"""

import argparse
import asyncio
import email
import email.policy
import json
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult


def say(line):
    print(json.dumps(line), flush=True)


class Mailboxes:
    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("gone"):
            return "550 5.1.1 there is no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        bodies = {kind: mail.get_body((kind,)).get_content() for kind in ("plain", "html")}
        say(dict(
            bodies, sender=envelope.mail_from, to=envelope.rcpt_tos, tls=session.ssl is not None,
            user=session.auth_data.login.decode() if session.authenticated else None,
            headers={name.lower(): str(value) for name, value in mail.items()},
        ))
        return "250 OK"


async def serve(tls, user):
    context = None
    if tls:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*tls)

    def authenticate(server, session, envelope, mechanism, given):
        known = user and [given.login.decode(), given.password.decode()] == user
        return AuthResult(success=bool(known), handled=False, auth_data=given)

    def session():
        return SMTP(
            Mailboxes(), hostname="localhost", tls_context=context, require_starttls=bool(tls), authenticator=authenticate,
            auth_required=bool(user), auth_require_tls=bool(tls),
        )

    loop = asyncio.get_running_loop()
    server = await loop.create_server(session, "127.0.0.1", 0)
    say(server.sockets[0].getsockname()[1])
    # Whoever started it holds the other end: it ends with them.
    await loop.run_in_executor(None, sys.stdin.read)


arguments = argparse.ArgumentParser()
arguments.add_argument("--tls", nargs=2)
arguments.add_argument("--user", nargs=2)
given = arguments.parse_args()
asyncio.run(serve(given.tls, given.user))
