"""What is raised where bytes from a bundle, a peer or a disk are not what they claim to be."""

from __future__ import annotations

from fedfsd.errors import FedfsdError


class EvidenceError(FedfsdError):
    """Evidence that is malformed, unsigned, or contradicts itself."""

    code, exit_code = "evidence", 10
