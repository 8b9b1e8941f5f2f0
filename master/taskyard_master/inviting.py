"""Invitations: who shows a certificate that is for joining gets what was left here for it, once.

They are in memory alone: no key of anybody is written down here, and a master that starts anew knows none,
so that none can be used twice.
"""

import logging
import time

from taskyard import messages as m
from taskyard.errors import RefusedError, UsageError
from taskyard.log import event
from taskyard.tls_identity import Identity

log = logging.getLogger(__name__)

MOST = 1000  # that wait at a time
MOST_BYTES = 1 << 16  # of one gift
LONGEST = 86400.0  # seconds that one may wait


class Invitations:
    """By the serial of the certificate that asks for it."""

    def __init__(self) -> None:
        self._waiting: dict[str, m.Invite] = {}

    def add(self, invite: m.Invite, now: float | None = None) -> None:
        """Keep a gift until it is asked for; raises UsageError."""
        now = time.time() if now is None else now
        self._waiting = {serial: one for serial, one in self._waiting.items() if one.ends > now}
        if invite.serial in self._waiting:  # nobody may put another gift in the place of one
            raise UsageError(f"there is an invitation {invite.serial} already: make a new one")
        if len(self._waiting) >= MOST or len(invite.gift) > MOST_BYTES:
            raise UsageError(
                f"{len(self._waiting)} invitations wait, and this one has {len(invite.gift)} bytes: at most"
                f" {MOST} of {MOST_BYTES} bytes are kept"
            )
        if not now < invite.ends <= now + LONGEST:
            raise UsageError("an invitation ends within a day: is the clock of this machine right?")
        self._waiting[invite.serial] = invite

    def answer(self, who: Identity, address: str, now: float | None = None) -> m.Reply:
        """What to send to a peer whose certificate is for joining."""
        now = time.time() if now is None else now
        invite = self._waiting.pop(f"{who.serial:X}", None)
        if invite is None or invite.ends <= now:
            text = f"the invitation of {who.host} is not known to the master: it was used, or the master was"
            text += " started anew since; 'taskyard join' makes another"
            event(log, "not-invited", f"{address}: {text}", logging.WARNING)
            return m.Fail(0, RefusedError.__name__, text)
        event(log, "invitation-used", f"{address} joins as {who.host}", host=who.host)
        return m.Gift(0, invite.gift)
